"""Reading files that lmr has not written: regular files only, of bounded size, failures told one by one."""

import os
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lmr.errors import PhotoError, StorageError, one_line
from lmr.storage.objects import remedy, retried
from lmr.storage.retries import has_stale_credentials, is_transient, retry
from lmr.storage.urls import file_system, forget_credentials, is_local, local_path, server_of
from lmr.storage.web import is_web, web_stamp

__all__ = [
    "Piece",
    "irregular_kind",
    "read_outside",
    "read_starts",
    "stamp_of_file",
    "stamp_of_object",
    "stamps_of",
]

_THREADS = 16
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A file, or so many bytes of one.

    Attributes
    ----------
    url
        The file.
    offset
        Where the bytes begin.
    size
        How many they are; None for the whole file.
    """

    url: str
    offset: int = 0
    size: int | None = None


def read_outside(
    pieces: Sequence[Piece | str], *, most_bytes: int
) -> list[bytes | PhotoError | StorageError]:
    """Read files or parts of files, many at a time; no name is taken for a pattern.

    Parameters
    ----------
    pieces
        The files, or parts of them.
    most_bytes
        Larger ones are not read.

    Returns
    -------
    Of each file its bytes; or a `PhotoError` with what is a fact (a pipe, too large); or a `StorageError`
    with what may be another way in a moment (missing, forbidden, not reachable).
    """
    wanted = [Piece(one) if isinstance(one, str) else one for one in pieces]
    done: dict[Piece, bytes | Exception] = {}
    passing: dict[Piece, Exception] = {}

    def attempt(piece: Piece) -> bytes | Exception:
        try:
            return _read(piece, most_bytes)
        except Exception as error:
            return error

    def read_rest() -> None:
        rest = [piece for piece in dict.fromkeys(wanted) if piece not in done]
        with ThreadPoolExecutor(min(_THREADS, len(rest)), thread_name_prefix="read") as pool:
            found = dict(zip(rest, pool.map(attempt, rest), strict=True))
        passing.clear()
        passing.update({one: e for one, e in found.items() if isinstance(e, Exception) and _may_pass(e)})
        done.update({one: result for one, result in found.items() if one not in passing})
        # Credentials go first: they are renewed, and not waited for.
        for error in sorted(passing.values(), key=is_transient):
            raise error

    def renew() -> None:
        for server in {server_of(piece.url) for piece in passing}:
            forget_credentials(server)

    try:
        if wanted:
            retry(read_rest, server_of(wanted[0].url), renew)
    except Exception as error:
        if error not in passing.values():
            raise
    done.update(passing)
    return [_result(done[piece]) for piece in wanted]


def read_starts(pieces: Sequence[Piece | str], count: int) -> list[bytes | Exception]:
    """Read the first bytes of files, or of parts of files; where one cannot be read, its error stands."""
    wanted = [Piece(one) if isinstance(one, str) else one for one in pieces]

    def attempt(piece: Piece) -> bytes | Exception:
        size = count if piece.size is None else min(count, piece.size)
        try:
            if is_local(piece.url):
                with open(_open(piece.url), "rb") as file:
                    return os.pread(file.fileno(), size, piece.offset)
            return retried(lambda: _read_range(piece.url, piece.offset, size), piece.url)
        except Exception as error:
            return error

    if not wanted:
        return []
    with ThreadPoolExecutor(1 if is_local(wanted[0].url) else _THREADS, thread_name_prefix="read") as pool:
        return list(pool.map(attempt, wanted))


def _open(url: str) -> int:
    return os.open(local_path(url), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def stamps_of(urls: Sequence[str]) -> list[str | Exception]:
    """Return size and time of change (or ETag) of files; where one cannot be looked at, its error stands.

    Web addresses are not looked at: a request for each would take as long as fetching them.
    """

    def info(url: str) -> Mapping[str, Any]:
        fs, path = file_system(url)
        found: Mapping[str, Any] = fs.info(path)
        return found

    def look(url: str) -> str | Exception:
        if is_web(url):
            return web_stamp(url)
        try:
            if is_local(url):
                about = os.stat(local_path(url))
                if kind := irregular_kind(about.st_mode):
                    return PhotoError(f"not a regular file: a {kind}")
                return stamp_of_file(about)
            found = retried(lambda: info(url), url)
            return stamp_of_object(found) if found["type"] == "file" else PhotoError("not a file: a folder")
        except Exception as error:
            return error

    if not urls:
        return []
    with ThreadPoolExecutor(1 if is_local(urls[0]) else _THREADS, thread_name_prefix="look") as pool:
        return list(pool.map(look, urls))


def stamp_of_file(about: os.stat_result) -> str:
    """Return size and time of change of a local file."""
    return f"{about.st_size} {about.st_mtime}"


def stamp_of_object(about: Mapping[str, Any]) -> str:
    """Return size and ETag of an object, as its storage describes it."""
    return f"{about['size']} {about.get('ETag') or about.get('mtime') or ''}"


def _may_pass(error: Exception) -> bool:
    """Tell whether another try may succeed, at once with renewed credentials or in a while."""
    return is_transient(error) or has_stale_credentials(error)


def _result(found: bytes | Exception) -> bytes | PhotoError | StorageError:
    if isinstance(found, bytes | PhotoError | StorageError):
        return found
    return StorageError("cannot be read", got=one_line(found), fix=remedy(found))


def irregular_kind(mode: int) -> str:
    """Return what a file is that is no regular one, in words; empty for a regular one."""
    if stat.S_ISREG(mode):
        return ""
    kinds = {
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFDIR: "folder",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _read(piece: Piece, most_bytes: int) -> bytes:
    if piece.size is not None:
        return _read_piece(piece.url, piece.offset, piece.size, most_bytes)
    if is_local(piece.url):
        return _read_file(local_path(piece.url), most_bytes)
    return _read_object(piece.url, most_bytes)


def _read_piece(url: str, offset: int, size: int, most_bytes: int) -> bytes:
    if size > most_bytes:
        raise _too_large(f"{size:,}", most_bytes)
    if size == 0:
        return b""
    if is_local(url):
        with open(_open(url), "rb") as file:
            data = os.pread(file.fileno(), size, offset)
    else:
        data = _read_range(url, offset, size)
    if len(data) < size:
        raise StorageError(
            "cannot be read",
            got=f"the file ends after {offset + len(data):,} bytes",
            fix="it has become shorter since it was listed: run the same command again",
        )
    return data


def _read_range(url: str, offset: int, size: int) -> bytes:
    fs, path = file_system(url)
    data: bytes = fs.cat_file(path, start=offset, end=offset + size)
    return data


def _read_file(path: str, most_bytes: int) -> bytes:
    # Opening a pipe waits for a writer, and opening a device may do anything: looked at first.
    _check(os.stat(path), most_bytes)
    with open(_open(path), "rb") as file:
        _check(os.fstat(file.fileno()), most_bytes)
        parts, left = [], most_bytes + 1
        # Piece by piece: a single read makes room for all that it may find, and many threads read at a time.
        while left and (part := file.read(min(left, _PIECE_BYTES))):
            parts.append(part)
            left -= len(part)
        return _bounded(b"".join(parts), most_bytes)


def _read_object(url: str, most_bytes: int) -> bytes:
    fs, path = file_system(url)
    try:
        return _bounded(fs.cat_file(path, start=0, end=most_bytes + 1), most_bytes)
    except PhotoError:
        raise
    except Exception as error:
        # An object of no bytes has no range.
        if not is_transient(error) and not isinstance(error, FileNotFoundError | PermissionError):
            fs.invalidate_cache()
            if fs.info(path).get("size") == 0:
                return b""
        raise


def _check(found: os.stat_result, most_bytes: int) -> None:
    if kind := irregular_kind(found.st_mode):
        raise PhotoError(f"not a regular file: a {kind}")
    if found.st_size > most_bytes:
        raise _too_large(f"{found.st_size:,}", most_bytes)


def _bounded(data: bytes, most_bytes: int) -> bytes:
    if len(data) > most_bytes:
        raise _too_large(f"more than {most_bytes:,}", most_bytes)
    return data


def _too_large(size: str, most_bytes: int) -> PhotoError:
    return PhotoError(f"too large: {size} bytes; at most {most_bytes:,} are read")
