"""Whole objects on any fsspec URL: a folder, an EFS mount, `s3://bucket/prefix`.

Everything that `lmr` keeps goes through here. An object is whole or absent: local files are written
under another name and renamed, S3 objects are one PUT (an fsspec file closed by an exception would
commit what it has).
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from lmr.errors import StorageError

__all__ = [
    "absolute",
    "delete",
    "exists",
    "folder_sizes",
    "is_local",
    "join",
    "local_path",
    "open_read",
    "put",
    "read",
]


# botocore waits a minute per try, and s3fs tries again: a wrong address would look like a hang. What
# the user's own fsspec configuration says goes first.
fsspec.config.conf.setdefault("s3", {}).setdefault(
    "config_kwargs",
    {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2, "mode": "standard"}},
)


def join(url: str, *parts: str) -> str:
    """Join path parts to a URL with single slashes."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part)])


def put(url: str, data: bytes | memoryview) -> None:
    """Write an object whole or not at all.

    Raises
    ------
    StorageError
        If storage is full, not writable or not reachable; nothing is left under the object's name.
    """
    with _explained("write", url):
        fs, path = fsspec.core.url_to_fs(url)
        if not is_local(url):
            fs.pipe_file(path, bytes(data))
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise


def read(url: str) -> bytes:
    """Read an object whole."""
    with _explained("read", url):
        fs, path = fsspec.core.url_to_fs(url)
        data: bytes = fs.cat_file(path)
        return data


@contextmanager
def open_read(url: str) -> Iterator[Any]:
    """Open an object for ranged reads, as Parquet's column selection needs.

    Only the opening is explained here: what goes wrong inside the block is the reader's to name.
    """
    with _explained("read", url):
        fs, path = fsspec.core.url_to_fs(url)
        file = fs.open(path, "rb")
    with file:
        yield file


def exists(url: str) -> bool:
    """Tell whether an object or folder is there."""
    with _explained("look for", url):
        fs, path = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        found: bool = fs.exists(path)
        return found


def folder_sizes(url: str) -> dict[str, int]:
    """List the files directly in a folder: name to size in bytes; empty when there is no such folder."""
    with _explained("list", url):
        fs, path = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        try:
            entries = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {
            os.path.basename(e["name"].rstrip("/")): int(e["size"] or 0)
            for e in entries
            if e["type"] == "file"
        }


def delete(url: str) -> None:
    """Delete an object or a folder with all that it holds; nothing happens when it is not there."""
    with _explained("delete", url):
        fs, path = fsspec.core.url_to_fs(url)
        fs.invalidate_cache()
        if fs.exists(path):
            fs.rm(path, recursive=True)


def is_local(url: str) -> bool:
    """Tell whether a URL is a path on this machine's file systems."""
    return "://" not in url or url.startswith(("file://", "local://"))


def absolute(url: str) -> str:
    """Return a URL that means the same in every working directory."""
    return os.path.abspath(local_path(url)) if is_local(url) else url


def local_path(url: str) -> str:
    """Return the path of a local URL."""
    return str(fsspec.core.url_to_fs(url)[1])


@contextmanager
def _explained(verb: str, url: str) -> Iterator[None]:
    """Turn the errors of file systems and S3 clients into a `StorageError` that names object and remedy."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(f"cannot {verb} {url}", got=_one_line(error), fix=_fix(error)) from error
    except Exception as error:
        # botocore's errors share no base with OSError and must not be imported here (s3fs is loaded by URL).
        if type(error).__module__.split(".")[0] not in ("botocore", "aiobotocore", "aiohttp", "s3fs"):
            raise
        raise StorageError(f"cannot {verb} {url}", got=_one_line(error), fix=_fix(error)) from error


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _fix(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            "free some space (or choose another --out) and run the same command again: finished shards stay"
        )
    if isinstance(error, PermissionError) or type(error).__name__ in ("NoCredentialsError", "ClientError"):
        return "check the permissions of the folder, or the AWS credentials in this environment"
    if isinstance(error, FileNotFoundError):
        return "check the path; if a finished shard was removed, run the same command again to remake it"
    if isinstance(error, ValueError | ImportError):
        return "check the URL's scheme, for example s3://bucket/prefix or a folder"
    return "check that the storage is reachable from this machine, then run the same command again"
