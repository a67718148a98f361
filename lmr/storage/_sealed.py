"""Folders of unpacked files that know what they hold: lengths and digests, written last.

A file is digested when the folder is sealed, and again when anything about it has changed since (its length,
its times, its place on the disk) or a day has gone by. Otherwise looking at it costs one question to the file
system.
"""

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Len
from pydantic import BaseModel, TypeAdapter

__all__ = ["DESCRIPTION", "is_whole", "seal", "sync"]

DESCRIPTION = "description.json"
_VERIFIED = "verified.json"
_VERIFY_AGAIN_SECONDS = 24 * 3600


class _File(BaseModel):
    bytes: Annotated[int, Ge(0)]
    sha256: Annotated[str, Len(64, 64)]


_Files = TypeAdapter(dict[str, _File])
_Stamps = TypeAdapter(dict[str, tuple[int, int, int, int]])


def seal(folder: Path) -> None:
    """Flush a folder's files to disk and describe them; read back what was written, which verifies it."""
    described = {}
    for path in _files(folder):
        sync(path)
        described[path.name] = _File(bytes=path.lstat().st_size, sha256=_digest(path))
    (folder / DESCRIPTION).write_bytes(_Files.dump_json(described, indent=2))
    _note(folder, described)
    sync(folder / DESCRIPTION)
    sync(folder)


def is_whole(folder: Path) -> bool:
    """Tell whether a folder is sealed and its files are what they were; what cannot be read is not whole."""
    try:
        described = _Files.validate_json((folder / DESCRIPTION).read_bytes())
        found = {name: (folder / name).lstat() for name in described}
        if any(
            not stat.S_ISREG(one.st_mode) or one.st_size != described[name].bytes
            for name, one in found.items()
        ):
            return False
        if _noted(folder) == {name: _stamp(one) for name, one in found.items()}:
            return True
        if any(_digest(folder / name) != about.sha256 for name, about in described.items()):
            return False
        _note(folder, described)
    except (OSError, ValueError):
        return False
    return True


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of files, to disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name not in (DESCRIPTION, _VERIFIED)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _note(folder: Path, described: dict[str, _File]) -> None:
    stamps = {name: _stamp((folder / name).lstat()) for name in described}
    (folder / _VERIFIED).write_bytes(_Stamps.dump_json(stamps))


def _noted(folder: Path) -> dict[str, tuple[int, int, int, int]] | None:
    """Return what was noted when the files were last digested; None if that is long ago, or unreadable."""
    try:
        path = folder / _VERIFIED
        if not 0 <= time.time() - path.stat().st_mtime < _VERIFY_AGAIN_SECONDS:
            return None
        return _Stamps.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
