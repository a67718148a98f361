"""Locks between the processes of one machine. Shared storage is never locked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lmr.errors import StorageError

__all__ = ["locked"]


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file; yield whether it is held, which is certain unless `wait` is False.

    A link in the file's place is not followed. Who holds the lock may delete the file.

    Raises
    ------
    StorageError
        If the file cannot be written, or its file system knows no locks.
    """
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        raise StorageError(
            f"cannot lock {path}",
            got=str(error),
            fix="choose a folder on this machine's own disk that can be written: LMR_CACHE, or LMR_WEIGHTS",
        ) from error
    try:
        yield True
    finally:
        lock.release()
