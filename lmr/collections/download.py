"""One file from a web server or S3 to this machine: in parts, resumed, and compared with its digest."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmr.errors import LmrError, StorageError, one_line
from lmr.storage import Piece, read_outside
from lmr.storage.locks import locked
from lmr.storage.objects import remedy, retried
from lmr.storage.urls import file_system

__all__ = ["Digest", "Got", "digest_of", "download", "read_small"]

CHUNK_BYTES = 8_000_000
"""So much is asked for at once, and lost at most when a connection breaks."""

_SMALL_BYTES = 50_000_000


@dataclass(frozen=True)
class Digest:
    """A digest of a file.

    Attributes
    ----------
    kind
        "md5" or "sha256".
    value
        Its hexadecimal digits, in small letters.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class Got:
    """A file that was fetched.

    Attributes
    ----------
    size
        Its bytes.
    digest
        Of the kind that its publisher uses, else SHA-256.
    """

    size: int
    digest: Digest


@dataclass(frozen=True)
class _Remote:
    size: int
    version: str


def download(
    url: str, path: Path, *, digest: Digest | None = None, told: Callable[[int], object] = lambda _: None
) -> Got:
    """Fetch a file to this machine; go on where an earlier try broke off.

    What is fetched lies beside it as `NAME.part` until it is whole and right. An earlier part is used
    only if the server still has the same file, by its ETag or its date. Busy servers are waited for.

    Parameters
    ----------
    url
        The file, on a web server or S3.
    path
        Where it goes.
    digest
        What it must have; None where none is known.
    told
        Is called with the number of bytes that have arrived, also in earlier tries.

    Raises
    ------
    StorageError
        If the server does not answer, refuses, or the disk is full: the part stays.
    LmrError
        If the file differs from its digest: the part is deleted. Or if another process fetches it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with locked(lock, wait=False) as held:
        if not held:
            raise LmrError("another process fetches the same file", got=str(path), fix="wait for it to end")
        try:
            return _download(url, path, digest, told)
        finally:
            lock.unlink(missing_ok=True)


def _download(url: str, path: Path, digest: Digest | None, told: Callable[[int], object]) -> Got:
    remote = _look(url)
    part, tag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.version")
    begun = part.stat().st_size if part.is_file() and tag.is_file() else 0
    if begun > remote.size or not remote.version or (begun and tag.read_text() != remote.version):
        begun = 0
    free = shutil.disk_usage(path.parent).free
    if remote.size - begun > free:
        raise StorageError(
            f"the disk has no room for {path.name}",
            got=f"{remote.size - begun:,} bytes are missing, {free:,} are free",
            fix="free some space, or choose another --data; then run the same command again",
        )
    total = hashlib.new(digest.kind if digest else "sha256", usedforsecurity=False)
    try:
        with open(part, "r+b" if begun else "w+b") as file:
            tag.write_text(remote.version)
            for start in range(0, begun, CHUNK_BYTES):
                total.update(file.read(min(CHUNK_BYTES, begun - start)))
            told(begun)
            while begun < remote.size:
                data = _chunk(url, begun, remote.size)
                if len(data) == remote.size and begun:  # the server gives whole files only
                    file.seek(0)
                    file.truncate()
                    told(-begun)
                    begun, total = 0, hashlib.new(total.name, usedforsecurity=False)
                file.write(data)
                total.update(data)
                told(len(data))
                begun += len(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some space, or choose another --data; then run the same command again: it goes on"
        raise StorageError(
            f"cannot write {part}", got=one_line(error), fix=fix if full else remedy(error)
        ) from error
    if _look(url) != remote:
        _discard(part, tag)
        raise StorageError(f"{url} changed while it was read", fix="run the same command again")
    got = Digest(total.name, total.hexdigest())
    if digest is not None and got != digest:
        _discard(part, tag)
        raise LmrError(
            f"{path.name} is not the file that its publisher describes; it was deleted",
            got=f"{got.kind} {got.value} of {remote.size:,} bytes; known (published, or fetched.json) is "
            f"{digest.value}",
            fix="run the same command again; if it stays so, the host's file is damaged, or a new version",
        )
    os.replace(part, path)
    tag.unlink(missing_ok=True)
    return Got(remote.size, got)


def read_small(url: str) -> bytes:
    """Return a small file, such as one of digests.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    (found,) = read_outside([url], most_bytes=_SMALL_BYTES)
    if isinstance(found, bytes):
        return found
    raise _unread(url, found)


def digest_of(path: Path, kind: str) -> Digest:
    """Return the digest of a file on this machine."""
    with path.open("rb") as file:
        return Digest(kind, hashlib.file_digest(file, kind).hexdigest())


def _look(url: str) -> _Remote:
    """Ask the server how large the file is, and which version of it there is."""

    def info() -> dict[str, Any]:
        fs, path = file_system(url)
        fs.invalidate_cache()
        found: dict[str, Any] = fs.info(path)
        return found

    try:
        about = retried(info, url)
    except Exception as error:
        raise _unread(url, error) from error
    if not isinstance(about.get("size"), int):
        raise StorageError(
            f"the server does not say how large {url} is",
            got="no Content-Length",
            fix="fetch it by other means, and put it where `lmr dataset describe NAME` says",
        )
    version = about.get("ETag") or about.get("Last-Modified") or about.get("LastModified") or ""
    return _Remote(about["size"], f"{about['size']} {version}" if version else "")


def _chunk(url: str, start: int, size: int) -> bytes:
    count = min(CHUNK_BYTES, size - start)
    (data,) = read_outside([Piece(url, start, count)], most_bytes=CHUNK_BYTES)
    if not isinstance(data, bytes):
        raise _unread(url, data)
    if len(data) not in (count, size):
        raise StorageError(
            f"the server gave another part of {url} than was asked for",
            got=f"{len(data):,} bytes instead of {count:,}",
            fix="run the same command again, or give another host by --from",
        )
    return data


def _unread(url: str, error: Exception) -> StorageError:
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
        causes.append(cause)
    got = getattr(error, "got", None) or one_line(causes[-1])
    answer = re.search(r"ClientResponseError: (\d{3})", str(got))
    status = int(answer[1]) if answer else None
    notes = "".join(f" ({note})" for one in causes for note in getattr(one, "__notes__", ()))
    if status in (401, 403) or isinstance(error, PermissionError) or "AccessDenied" in str(got):
        fix = "the host refuses: has the data set moved, or does it ask for an account? or give --from"
    elif status == 404 or str(got).startswith("FileNotFoundError"):
        fix = "the data set may have moved: see its home page, `lmr dataset describe NAME`, or give --from"
    else:
        fix = "check the network, then run the same command again: it goes on where it stopped"
    return StorageError(f"cannot fetch {url}", got=f"{got}{notes}", fix=fix)


def _discard(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
