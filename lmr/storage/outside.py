"""Reading files that lmr has not written: regular files only, of bounded size, failures told one by one."""

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lmr.errors import PhotoError, StorageError, one_line
from lmr.storage.objects import _file_system, _fix, _server, is_local, local_path
from lmr.storage.retries import is_transient, retry

__all__ = ["irregular_kind", "read_outside", "read_starts"]

_THREADS = 16


def read_outside(urls: Sequence[str], *, most_bytes: int) -> list[bytes | PhotoError | StorageError]:
    """Read files of one storage, many at a time; no name is taken for a pattern.

    Parameters
    ----------
    urls
        The files.
    most_bytes
        Larger files are not read.

    Returns
    -------
    Of each file its bytes; or a `PhotoError` with what is a fact (a pipe, too large); or a `StorageError`
    with what may be another way in a moment (missing, forbidden, not reachable).
    """
    done: dict[str, bytes | Exception] = {}
    passing: dict[str, Exception] = {}

    def attempt(url: str) -> bytes | Exception:
        try:
            return _read_file(local_path(url), most_bytes) if is_local(url) else _read_object(url, most_bytes)
        except Exception as error:
            return error

    def read_rest() -> None:
        rest = [url for url in dict.fromkeys(urls) if url not in done]
        with ThreadPoolExecutor(min(_THREADS, len(rest)), thread_name_prefix="read") as pool:
            found = dict(zip(rest, pool.map(attempt, rest), strict=True))
        passing.clear()
        passing.update({url: e for url, e in found.items() if isinstance(e, Exception) and is_transient(e)})
        done.update({url: result for url, result in found.items() if url not in passing})
        for error in passing.values():
            raise error

    try:
        if urls:
            retry(read_rest, _server(urls[0]))
    except Exception as error:
        if not is_transient(error):
            raise
    done.update(passing)
    return [_result(done[url]) for url in urls]


def read_starts(urls: Sequence[str], count: int) -> list[bytes | Exception]:
    """Read the first bytes of files of one storage; where one cannot be read, its error stands."""

    def attempt(url: str) -> bytes | Exception:
        try:
            if is_local(url):
                with open(os.open(local_path(url), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                    return file.read(count)
            fs, path = _file_system(url)
            start: bytes = retry(lambda: fs.cat_file(path, start=0, end=count), _server(url))
            return start
        except Exception as error:
            return error

    if not urls:
        return []
    with ThreadPoolExecutor(1 if is_local(urls[0]) else _THREADS, thread_name_prefix="read") as pool:
        return list(pool.map(attempt, urls))


def _result(found: bytes | Exception) -> bytes | PhotoError | StorageError:
    if isinstance(found, bytes | PhotoError | StorageError):
        return found
    return StorageError("cannot be read", got=one_line(found), fix=_fix(found))


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


def _read_file(path: str, most_bytes: int) -> bytes:
    # Opening a pipe waits for a writer, and opening a device may do anything: looked at first.
    _check(os.stat(path), most_bytes)
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _check(os.fstat(file.fileno()), most_bytes)
        return _bounded(file.read(most_bytes + 1), most_bytes)


def _read_object(url: str, most_bytes: int) -> bytes:
    fs, path = _file_system(url)
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
