"""The application: routes, and the turn in which searches are answered.

Searching takes processor time, so one search is worked at and a few may wait. Whoever comes after is told
when to come again. Uploads are read up to their bound and no further, and are first looked at in the
decoder's own process.
"""

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lmr.api.server.gallery import SIZES_PX, Gallery
from lmr.api.server.guard import Guard
from lmr.api.server.limits import Limits, RateLimit
from lmr.api.server.openapi import described, describing_page
from lmr.errors import LmrError, PhotoError, one_line
from lmr.text import printable

__all__ = ["make_app"]

Made = TypeVar("Made")
Handler = Callable[[Request], Awaitable[Response]]

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
}
_GROUPS_PER_PAGE = 24
_STRIP = 8
_DISCARD_SECONDS = 1.0


def make_app(
    gallery: Gallery, *, hosts: frozenset[str], token: str | None = None, limits: Limits | None = None
) -> Guard:
    """Return the application, guarded.

    Parameters
    ----------
    gallery
        What is searched.
    hosts
        Names under which it is asked.
    token
        What requests must show; None: nothing.
    limits
        What it takes from strangers.
    """
    limits = limits or Limits()
    pages = _Pages(gallery, limits)
    routes = [
        *(Route(path, _static(*about), methods=["GET"]) for path, about in _STATIC.items()),
        Route("/openapi.json", pages.openapi, methods=["GET"]),
        Route("/docs", pages.docs, methods=["GET"]),
        Route("/favicon.ico", _no_icon, methods=["GET"]),
        Route("/api/about", pages.about, methods=["GET"]),
        Route("/api/search", pages.search, methods=["POST"]),
        Route("/api/photos/{row:int}", pages.photo, methods=["GET"]),
        Route("/api/photos/{row:int}/search", pages.search_again, methods=["POST"]),
        Route("/api/groups", pages.groups, methods=["GET"]),
        Route("/api/groups/{number:int}", pages.group, methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _told, LmrError: _unable, Exception: _broken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts, token)


class _Pages:
    def __init__(self, gallery: Gallery, limits: Limits) -> None:
        self.gallery, self.limits = gallery, limits
        self._rate = RateLimit(limits.per_minute, limits.burst)
        self._waiting = 0
        # One thread each, so that pictures do not wait for searches.
        self._searching = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._showing = ThreadPoolExecutor(1, thread_name_prefix="show")

    async def about(self, request: Request) -> Response:
        more = {"upload_bytes": self.limits.upload_bytes}
        return JSONResponse(self.gallery.about() | more)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(described(self.limits))

    async def docs(self, request: Request) -> Response:
        return Response(describing_page(described(self.limits)), media_type="text/html")

    async def search(self, request: Request) -> Response:
        most = _number(request, "most", 30, 1, 100)
        self._check_rate(request)
        content = await self._upload(request)
        answer = await self._in_turn(
            functools.partial(
                self.gallery.search.ask,
                content,
                most=most,
                limits=self.limits.of_photo(self.gallery.search.ingest),
            )
        )
        return JSONResponse(self.gallery.answer(answer))

    async def search_again(self, request: Request) -> Response:
        most = _number(request, "most", 30, 1, 100)
        row = self._row(request)
        self._check_rate(request)

        def ask() -> Any:
            content = self.gallery.photo(row)
            if not content:
                raise PhotoError("this photo cannot be read now")
            return self.gallery.search.ask(content, most=most)

        return JSONResponse(self.gallery.answer(await self._in_turn(ask)))

    async def photo(self, request: Request) -> Response:
        row, size = self._row(request), request.query_params.get("size", "small")
        if size not in SIZES_PX:
            raise HTTPException(400, f"size is one of: {', '.join(SIZES_PX)}")
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._showing, self.gallery.picture, row, size)
        if not content:
            raise HTTPException(404, "this photo cannot be shown")
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    async def groups(self, request: Request) -> Response:
        page = _number(request, "page", 0, 0, 1_000_000)
        some = self.gallery.groups[page * _GROUPS_PER_PAGE : (page + 1) * _GROUPS_PER_PAGE]
        first = page * _GROUPS_PER_PAGE + 1
        shown = [
            {"group": first + i, "size": len(rows), "photos": self._named(rows[:_STRIP])}
            for i, rows in enumerate(some)
        ]
        pages = -(-len(self.gallery.groups) // _GROUPS_PER_PAGE)
        return JSONResponse({"page": page, "pages": pages, "groups": shown})

    async def group(self, request: Request) -> Response:
        number = request.path_params["number"]
        if not 1 <= number <= len(self.gallery.groups):
            raise HTTPException(404, "there is no such group")
        rows = self.gallery.groups[number - 1]
        return JSONResponse({"group": number, "size": len(rows), "photos": self._named(rows[:1000])})

    def _named(self, rows: list[int]) -> list[dict[str, Any]]:
        return [{"photo": row, "name": self.gallery.name(row)} for row in rows]

    def _row(self, request: Request) -> int:
        row: int = request.path_params["row"]
        if not 0 <= row < len(self.gallery):
            raise HTTPException(404, "there is no such photo")
        return row

    def _check_rate(self, request: Request) -> None:
        wait = self._rate.wait_seconds(request.client.host if request.client else "")
        if wait:
            seconds = str(int(wait) + 1)
            raise HTTPException(429, "too many searches from here; wait a little", {"retry-after": seconds})

    async def _upload(self, request: Request) -> bytes:
        """Read the request's body up to its bound, within its time."""
        most = self.limits.upload_bytes
        too_large = HTTPException(413, f"the file has more than {most:,} bytes", {"connection": "close"})
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            await self._discard(request)
            raise too_large
        parts, total = [], 0
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                async for part in request.stream():
                    total += len(part)
                    if total > most:
                        break
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, "the upload took too long", {"connection": "close"}) from None
        except ClientDisconnect:
            raise HTTPException(400, "the upload was broken off") from None
        if total > most:
            await self._discard(request)
            raise too_large
        return b"".join(parts)

    async def _discard(self, request: Request) -> None:
        """Read a little more of an upload that is refused: who still sends would miss the answer."""
        total = 0
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                async for part in request.stream():
                    total += len(part)
                    if total > self.limits.upload_bytes:
                        return

    async def _in_turn(self, work: Callable[[], Made]) -> Made:
        """Do some work when its turn comes; refuse it where too many wait already."""
        if self._waiting > self.limits.waiting:
            raise HTTPException(503, "too many searches wait; come again", {"retry-after": "5"})
        self._waiting += 1
        future = self._searching.submit(work)
        # Counted until it is done, also where whoever asked has gone.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._done))
        try:
            async with asyncio.timeout(self.limits.search_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise HTTPException(503, "the search took too long; come again", {"retry-after": "30"}) from None

    def _done(self) -> None:
        self._waiting -= 1


def _static(name: str, media_type: str) -> Handler:
    content = (resources.files("lmr.api.server") / "static" / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


async def _no_icon(request: Request) -> Response:
    return Response(status_code=204)


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise HTTPException(400, f"{name} is a number from {least:,} to {most:,}")
    return int(text)


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _unable(request: Request, error: Exception) -> Response:
    """Tell why a photo cannot be used; of anything else only that it failed: paths stand in it."""
    if isinstance(error, PhotoError):
        return JSONResponse({"error": printable(error.what)}, 422)
    return await _broken(request, error)


async def _broken(request: Request, error: Exception) -> Response:
    print(f"{request.method} {request.url.path}: {printable(one_line(error))}", file=sys.stderr, flush=True)
    return JSONResponse({"error": "the server could not answer; its operator sees why"}, 500)
