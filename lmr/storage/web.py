"""Photos from web addresses: many at a time, politely, and never from private addresses.

See `lmr.storage.web_hosts` for what is refused.
"""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING

from lmr.errors import PhotoError, one_line
from lmr.storage.web_hosts import PrivateAddress, check_literal, checked_resolver

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

__all__ = ["MayPass", "NotFetched", "WebLimits", "fetch", "is_web", "web_stamp"]

_REDIRECTS = 5
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_PAUSE_SECONDS = 0.5
_CHUNK_BYTES = 1 << 18


class NotFetched(PhotoError):
    """A web address has no photo to give: `what` is the reason that its row carries."""


class MayPass(NotFetched):
    """A photo could not be fetched now, for a reason that may pass: busy, slow, cut off, not reachable."""


@dataclass(frozen=True, kw_only=True)
class WebLimits:
    """How photos are fetched.

    Attributes
    ----------
    connections, per_host
        Photos on their way at once, of one call; and of these from one host.
    timeout_seconds
        Most time for one try, redirects included, s.
    tries
        How often a photo is tried, with pauses that double.
    longest_pause_seconds
        Longest pause before another try, s; a host that asks for a longer one is not waited for.
    private
        Whether addresses may lead to this machine and to its networks.
    """

    connections: int = 32
    per_host: int = 8
    timeout_seconds: float = 30.0
    tries: int = 4
    longest_pause_seconds: float = 60.0
    private: bool = False


def is_web(url: str) -> bool:
    """Tell whether a URL is a web address."""
    return url[:8].lower().startswith(("http://", "https://"))


def web_stamp(url: str) -> str:
    """Return what stands for size and time of a photo that is not looked at before it is fetched."""
    # The address is in it, so that another address is never taken for the same photo under a new name.
    return f"0 web-{sha256(url.encode(errors='surrogateescape')).hexdigest()[:12]}"


def fetch(
    urls: Sequence[str], *, most_bytes: int, limits: WebLimits | None = None
) -> Generator[bytes | NotFetched, None, None]:
    """Fetch photos, and yield them in the order of their addresses while the next ones are on their way.

    No more than `limits.connections` photos are on their way or wait to be taken, so the memory is bounded
    by so many times `most_bytes`. No proxy is used, no cookie is kept, nothing that is packed is unpacked.

    Parameters
    ----------
    urls
        Web addresses.
    most_bytes
        Larger photos are not read.
    limits
        How they are fetched.

    Yields
    ------
    Of each address its bytes; a `NotFetched` with what is a fact (not found, too large, a private address);
    or a `MayPass` with what may be another way in a moment.
    """
    if not urls:
        return
    limits = limits or WebLimits()
    futures: list[Future[bytes | NotFetched]] = [Future() for _ in urls]
    fetcher = _Fetcher(limits, most_bytes)
    thread = threading.Thread(target=fetcher.run, args=(urls, futures), name="fetch", daemon=True)
    thread.start()
    try:
        for i in range(len(futures)):
            result = futures[i].result()
            futures[i] = Future()  # what was taken is not held any longer
            fetcher.release()
            yield result
    finally:
        fetcher.stop()
        thread.join()


class _Fetcher:
    """Fetches in a loop and a thread of its own, so that photos come in while others are checked."""

    def __init__(self, limits: WebLimits, most_bytes: int) -> None:
        self.limits, self.most_bytes = limits, most_bytes
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._resting: dict[str, float] = {}
        """When a host that has asked for a pause may be asked again."""
        self._loop = asyncio.new_event_loop()
        self._room = asyncio.Semaphore(limits.connections)
        self._main: asyncio.Task[None] | None = None

    def run(self, urls: Sequence[str], futures: Sequence[Future[bytes | NotFetched]]) -> None:
        try:
            self._main = self._loop.create_task(self._all(urls, futures))
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._main)
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def release(self) -> None:
        """Make room for one more photo."""
        with contextlib.suppress(RuntimeError):  # the loop has ended: there is no further one
            self._loop.call_soon_threadsafe(self._room.release)

    def stop(self) -> None:
        """End what is on its way."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(lambda: self._main and self._main.cancel())

    async def _all(self, urls: Sequence[str], futures: Sequence[Future[bytes | NotFetched]]) -> None:
        import aiohttp

        # The timeout is ours: that of aiohttp counts the waiting for a connection too.
        async with (
            aiohttp.ClientSession(
                # Hosts that redirects lead to are bounded here.
                connector=aiohttp.TCPConnector(
                    limit=0,
                    limit_per_host=self.limits.per_host,
                    resolver=checked_resolver(self.limits.private),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                headers={"User-Agent": "lmr", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"},
                auto_decompress=False,
                read_bufsize=_CHUNK_BYTES,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for url, future in zip(urls, futures, strict=True):
                await self._room.acquire()
                group.create_task(self._settle(session, url, future))

    async def _settle(
        self, session: "aiohttp.ClientSession", url: str, future: Future[bytes | NotFetched]
    ) -> None:
        try:
            future.set_result(await self._tried(session, url))
        except NotFetched as error:
            future.set_result(error)
        except Exception as error:
            # Whatever a stranger's answer makes a library raise is that photo's alone.
            kind = MayPass if isinstance(error, OSError) else NotFetched
            future.set_result(kind("web: cannot be fetched", got=one_line(error)))

    async def _tried(self, session: "aiohttp.ClientSession", url: str) -> bytes:
        """Fetch one photo, with so many tries."""
        address = _parsed(url)
        host = f"{address.host}:{address.port}"
        busy = self._hosts.setdefault(host, asyncio.Semaphore(self.limits.per_host))
        tried = 0
        while True:
            tried += 1
            async with busy:
                while (rest := self._resting.get(host, 0.0) - time.monotonic()) > 0:
                    await asyncio.sleep(rest)
                try:
                    async with asyncio.timeout(self.limits.timeout_seconds):
                        return await self._once(session, address)
                except _Asked as asked:
                    error, pause = asked.error, asked.pause_seconds
                    if pause > self.limits.longest_pause_seconds:
                        raise error from asked
                    if pause:
                        # All that is wanted of this host waits: it is the host that is busy, not the photo.
                        self._resting[host] = max(self._resting.get(host, 0.0), time.monotonic() + pause)
                except TimeoutError:
                    error = MayPass(f"web: no answer within {self.limits.timeout_seconds:g} s")
            if tried >= self.limits.tries:
                raise MayPass(f"{error.what}, {tried} times" if tried > 1 else error.what)
            longest = min(_PAUSE_SECONDS * 2 ** (tried - 1), self.limits.longest_pause_seconds)
            await asyncio.sleep(random.uniform(0.5, 1.0) * longest)

    async def _once(self, session: "aiohttp.ClientSession", address: "URL") -> bytes:
        """Ask once, following redirects.

        Raises
        ------
        _Asked
            If another try may succeed.
        NotFetched
            If none will.
        """
        import aiohttp

        try:
            for _ in range(_REDIRECTS + 1):
                check_literal(address.host or "", self.limits.private)
                async with session.get(address, allow_redirects=False) as response:
                    if (onward := response.headers.get("Location")) and 300 <= response.status < 400:
                        address = address.join(_parsed(onward, relative=True))
                        if address.scheme not in ("http", "https"):
                            raise NotFetched(f"web: leads to an address of {address.scheme or 'no kind'}")
                        continue
                    return await self._content(response)
            raise NotFetched(f"web: more than {_REDIRECTS} redirects")
        except PrivateAddress as error:
            raise NotFetched(f"web: {error}") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise NotFetched("web: no web address", got=str(error)) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise NotFetched("web: its certificate is not valid", got=one_line(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise _Asked(MayPass("web: cut off before its end")) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise _Asked(MayPass("web: its host is not known")) from error
        except aiohttp.ClientConnectorError as error:
            raise _Asked(MayPass(f"web: not reachable ({error.os_error.strerror or 'no answer'})")) from error
        except aiohttp.ClientConnectionError as error:
            raise _Asked(MayPass("web: the connection was dropped")) from error
        except aiohttp.ClientError as error:
            raise _Asked(MayPass("web: the answer is not HTTP"), 0.0) from error

    async def _content(self, response: "aiohttp.ClientResponse") -> bytes:
        if response.status != 200:
            told = f"web: {response.status} {_phrase(response.status)}"
            if response.status in _PASSING_STATUSES:
                pause = _pause_of(response.headers.get("Retry-After", ""))
                if pause > self.limits.longest_pause_seconds:
                    told += f"; it asks to come back in {pause:,.0f} s"
                raise _Asked(MayPass(told), pause)
            raise NotFetched(told)
        packed = response.headers.get("Content-Encoding", "identity").lower()
        if packed not in ("", "identity"):
            raise NotFetched("web: sent packed, which was not asked for", got=packed)
        if (size := response.content_length or 0) > self.most_bytes:
            raise self._too_large(f"{size:,}")
        chunks, size = [], 0
        async for chunk in _chunks(response):
            size += len(chunk)
            if size > self.most_bytes:
                raise self._too_large(f"more than {self.most_bytes:,}")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self, size: str) -> NotFetched:
        return NotFetched(f"too large: {size} bytes; at most {self.most_bytes:,} are read of a web address")


class _Asked(Exception):
    """Another try may succeed, after a pause that the host may have asked for."""

    def __init__(self, error: MayPass, pause_seconds: float = 0.0) -> None:
        super().__init__(error.what)
        self.error, self.pause_seconds = error, pause_seconds


async def _chunks(response: "aiohttp.ClientResponse") -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_any():
        yield chunk


def _parsed(text: str, *, relative: bool = False) -> "URL":
    from yarl import URL

    # What is encoded already stays as it is: signed addresses are signed as they are written.
    encoded = text.isascii() and text.isprintable() and " " not in text
    try:
        address = URL(text, encoded=encoded)
        if not relative and not address.host:
            raise ValueError("no host")
        if address.port == 0:
            raise ValueError("port 0")
    except (ValueError, UnicodeError) as error:
        raise NotFetched("web: no web address", got=one_line(error)) from error
    return address.with_fragment(None)


def _pause_of(text: str) -> float:
    """Return how many seconds a host asks to wait, of a header `Retry-After`; 0 where it does not say."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(text)) if text.strip().isdecimal() else _until(parsedate_to_datetime(text))
    return 0.0


def _until(then: datetime) -> float:
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown answer"
