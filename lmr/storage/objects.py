"""Whole objects on any fsspec URL: a folder, an EFS mount, `s3://bucket/prefix`.

Everything that `lmr` keeps goes through here. An object is whole or absent: local files are written
under another name and renamed, S3 objects are one PUT (an fsspec file closed by an exception would
commit what it has). No path is a pattern, a chain of storages or an option: every name that a file system or
S3 allows is itself.
"""

import errno
import getpass
import io
import os
import re
import shutil
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from lmr.errors import StorageError, one_line
from lmr.storage.folders import private_folder
from lmr.storage.retries import has_stale_credentials, retry, s3_answer, s3_operation
from lmr.storage.urls import (
    absolute,
    file_system,
    forget_credentials,
    is_local,
    join,
    local_path,
    server_of,
)

__all__ = [
    "absolute",
    "delete",
    "delete_empty",
    "exists",
    "find",
    "folder_sizes",
    "folders",
    "is_local",
    "join",
    "local_path",
    "open_read",
    "put",
    "put_written",
    "read",
    "remedy",
    "retried",
    "size",
]


Result = TypeVar("Result")

_THREADS = 16

IN_MEMORY_BYTES = 128 << 20
"""Objects up to this size are held in memory while they are sent."""


def put(url: str, data: bytes | memoryview) -> None:
    """Write an object whole or not at all.

    Raises
    ------
    StorageError
        If storage is full, not writable or not reachable; nothing is left under the object's name.
    """
    with _explained("write", url):
        if is_local(url):
            path = local_path(url)
            retry(lambda: _put_file(path, data), "file")
        else:
            retried(lambda: _pipe(url, bytes(data)), url)


def _pipe(url: str, data: bytes) -> None:
    fs, path = file_system(url)
    fs.pipe_file(path, data)


def put_written(url: str, write: Callable[[IO[bytes]], None], expected_bytes: int) -> int:
    """Write an object whole or not at all, by a function that fills an open file; return its size.

    An object in a folder of this machine is written where it will lie. A larger one for other storage goes
    there by way of a temporary file, piece by piece, so that it is never held in memory.

    Parameters
    ----------
    url
        The object.
    write
        Fills the file, which can be sought and read as well; called again after a passing error.
    expected_bytes
        About how large the object becomes.

    Raises
    ------
    StorageError
        If storage is full, not writable or not reachable; nothing is left under the object's name.
    """
    with _explained("write", url):
        if is_local(url):
            return retry(lambda: _new_file(local_path(url), write), "file")
        if expected_bytes <= IN_MEMORY_BYTES:
            held = io.BytesIO()
            write(held)
            retried(lambda: _pipe(url, held.getvalue()), url)
            return held.tell()
    folder = private_folder("unpacked")
    with (
        _explained("write a temporary file to", str(folder)),
        tempfile.NamedTemporaryFile(dir=folder) as file,
    ):
        write(file)
        file.flush()
        with _explained("write", url):
            retried(lambda: _send(file.name, url), url)
        return file.seek(0, os.SEEK_END)


def _send(source: str, url: str) -> None:
    fs, path = file_system(url)
    # S3's parts of 50 MB are held in memory while they are sent, ten at a time if it is not told otherwise.
    parts = {"max_concurrency": 2} if url.startswith(("s3:", "s3a:")) else {}
    fs.put_file(source, path, **parts)


def _put_file(path: str, data: bytes | memoryview) -> None:
    _new_file(path, lambda file: file.write(data))


def _new_file(path: str, write: Callable[[IO[bytes]], Any]) -> int:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    return size


def read(url: str) -> bytes:
    """Read an object whole."""
    with _explained("read", url):
        return retried(lambda: _cat(url), url)


def _cat(url: str) -> bytes:
    fs, path = file_system(url)
    data: bytes = fs.cat_file(path)
    return data


@contextmanager
def open_read(url: str) -> Iterator[Any]:
    """Open an object for ranged reads, as Parquet's column selection needs."""
    file = _Patient(url)
    try:
        yield file
    finally:
        file.close()


class _Patient:
    """A file whose reads are repeated while storage is busy; what is not reading is the file's own."""

    def __init__(self, url: str) -> None:
        self._url = url
        with _explained("read", url):
            self._file = retried(self._open, url)

    def read(self, size: int = -1) -> bytes:
        """Read from here."""
        position = self._file.tell()
        fresh = True

        def attempt() -> bytes:
            nonlocal fresh
            if not fresh:
                # A stale handle of a network file system stays stale.
                self._file.close()
                self._file = self._open()
            fresh = False
            self._file.seek(position)
            data: bytes = self._file.read(size)
            return data

        with _explained("read", self._url):
            return retried(attempt, self._url)

    def _open(self) -> Any:
        fs, path = file_system(self._url)
        return fs.open(path, "rb")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def exists(url: str) -> bool:
    """Tell whether an object or folder is there."""

    def look() -> bool:
        fs, path = file_system(url)
        fs.invalidate_cache()
        found: bool = fs.exists(path)
        return found

    with _explained("look for", url):
        return retried(look, url)


def size(url: str) -> int | None:
    """Return the size of an object in bytes; None when it is not there."""

    def look() -> int | None:
        fs, path = file_system(url)
        fs.invalidate_cache()
        try:
            return int(fs.info(path)["size"] or 0)
        except (FileNotFoundError, NotADirectoryError):
            return None

    with _explained("look for", url):
        return retried(look, url)


def folder_sizes(url: str) -> dict[str, int]:
    """List the files directly in a folder: name to size in bytes; empty when there is no such folder."""
    return {name: int(e["size"] or 0) for name, e in _entries(url).items() if e["type"] == "file"}


def folders(url: str) -> list[str]:
    """List the folders directly in a folder, by name; empty when there is no such folder."""
    return sorted(name for name, e in _entries(url).items() if e["type"] == "directory" and name)


def _entries(url: str) -> dict[str, dict[str, Any]]:
    """List what lies directly in a folder, by one request where it is short: name to what is said of it."""

    def look() -> list[dict[str, Any]]:
        fs, path = file_system(url)
        fs.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return entries

    with _explained("list", url):
        entries = retried(look, url)
    return {os.path.basename(e["name"].rstrip("/")): e for e in entries}


def find(url: str) -> dict[str, Mapping[str, Any]]:
    """List the files at any depth below a folder: path below it to what the storage says of it."""

    def look() -> tuple[str, Mapping[str, Mapping[str, Any]]]:
        fs, path = file_system(url)
        fs.invalidate_cache()
        return path.rstrip("/"), fs.find(path, detail=True)

    with _explained("list", url):
        root, found = retried(look, url)
    return {path[len(root) + 1 :]: about for path, about in found.items() if path.startswith(f"{root}/")}


def delete(url: str) -> None:
    """Delete an object or a folder with all that it holds; nothing happens when it is not there."""

    def remove() -> None:
        fs, path = file_system(url)
        fs.invalidate_cache()
        with suppress(FileNotFoundError):  # what an earlier try has removed
            if is_local(url):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.remove(path)
                return
            # One by one, since fsspec's `rm` of a folder takes names for patterns.
            objects = fs.find(path)
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="delete") as pool:
                list(pool.map(fs.rm_file, objects))

    with _explained("delete", url):
        retried(remove, url)


def retried(call: Callable[[], Result], url: str) -> Result:
    """Call until storage answers; `call` gets its file system anew each time, by then of new credentials."""
    return retry(call, server_of(url), renew=lambda: forget_credentials(url))


def delete_empty(path: str) -> None:
    """Delete a folder of this machine if nothing is in it; nothing happens otherwise."""
    with suppress(OSError):
        os.rmdir(local_path(path))


@contextmanager
def _explained(verb: str, url: str) -> Iterator[None]:
    """Turn the errors of file systems and S3 clients into a `StorageError` that names object and remedy."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(f"cannot {verb} {url}", got=_with_notes(error), fix=remedy(error)) from error
    except Exception as error:
        # botocore's errors share no base with OSError and must not be imported here (s3fs is loaded by URL).
        if type(error).__module__.split(".")[0] not in ("botocore", "aiobotocore", "aiohttp", "s3fs"):
            raise
        raise StorageError(f"cannot {verb} {url}", got=_with_notes(error), fix=remedy(error)) from error


def _with_notes(error: BaseException) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return one_line(error) + notes


def remedy(error: BaseException) -> str:
    """Return what can be done about an error of a file system or an S3 client."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            "free some space (or choose another --out) and run the same command again: finished shards stay"
        )
    if hint := s3_hint(error):
        return hint
    if isinstance(error, PermissionError):
        return f"check the permissions of the folder for the user {_user()} on {socket.gethostname()}"
    if isinstance(error, FileNotFoundError):
        return "check the path and its spelling: nothing is there by this name"
    if isinstance(error, IsADirectoryError):
        return "name a file: this is a folder"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return "choose another path: a part of this one is a file and no folder"
    if isinstance(error, ImportError):
        return "install the package that is named there, on every machine: pip install PACKAGE"
    if isinstance(error, ValueError):
        return "check the URL's scheme, for example s3://bucket/prefix or a folder"
    return "check that the storage is reachable from this machine, then run the same command again"


def s3_hint(error: BaseException) -> str:
    """Return what can be done about an answer of S3; empty if the error is none.

    Credentials belong to a machine: a worker's are not those of the one that submitted the run.
    """
    here = socket.gethostname()
    code, _ = s3_answer(error)
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return (
            f"give {here} AWS credentials (a role, a profile, or AWS_ACCESS_KEY_ID); for a public bucket "
            'put {"s3": {"anon": true}} into ~/.config/fsspec/s3.json there'
        )
    if type(error).__name__ in ("ProfileNotFound", "ConfigParseError", "ConfigNotFound"):
        return f"mend AWS_PROFILE, or ~/.aws/config, on {here}"
    if has_stale_credentials(error):
        # A HEAD request says no more than 400; a wrong region is answered so, too.
        region = f"; or {_REGION.format(here=here)}" if code in ("400", "Bad Request", "BadRequest") else ""
        return (
            f"renew the AWS credentials of {here} (aws sso login, or its credentials file): running workers "
            f"read them anew; then run the same command again{region}"
        )
    if not code:
        return ""
    if _KMS.search(f"{code} {error}"):
        return (
            f"allow the credentials of {here} to use the bucket's KMS key, or name it as "
            "s3_additional_kwargs in ~/.config/fsspec/s3.json there"
        )
    hint = _S3_HINTS.get(code, "").format(here=here)
    return f"{hint}{_ENCRYPTED}" if code == "AccessDenied" and s3_operation(error) in _WRITES else hint


_KMS = re.compile(r"^KMS|\bkms:|\bKMS key")
_WRITES = ("PutObject", "CreateMultipartUpload", "UploadPart")
_ENCRYPTED = "; where the bucket's policy demands encryption, name it there as s3_additional_kwargs"
_REGION = "set AWS_DEFAULT_REGION on {here} to the bucket's region (aws s3api get-bucket-location)"
_S3_HINTS = {
    "RequestTimeTooSkewed": "set the clock of {here}: timedatectl set-ntp true",
    "NoSuchBucket": "create the bucket, or check its name",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "AccessDenied": (
        "allow the credentials of {here} to list, read and write there, or use others; of a bucket that "
        "others own, requester_pays may be needed in ~/.config/fsspec/s3.json"
    ),
    "403": "allow the credentials of {here} to list, read and write there, or renew them",
    "AllAccessDisabled": "ask the bucket's owner: all access to it is turned off",
}
"""One remedy for each of S3's codes."""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
