"""What lies below a folder at any depth, with all that is no regular file told as what it is."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from lmr.errors import StorageError
from lmr.storage.objects import find
from lmr.storage.outside import irregular_kind, stamp_of_file, stamp_of_object
from lmr.storage.urls import is_local, local_path
from lmr.text import printable

__all__ = ["Entry", "walk"]

_NOT_OURS = frozenset({"lost+found"})
"""Folders of a file system itself, which only its administrator may open."""


@dataclass(frozen=True)
class Entry:
    """Something below a folder.

    Attributes
    ----------
    path
        Path below the folder.
    stamp
        Size and time of change (or ETag) of a regular file; of a link, those of the file that it means.
    irregular
        What it is, if it is no regular file: "pipe", "broken link", …; empty for files.
    """

    path: str
    stamp: str = ""
    irregular: str = ""


def walk(url: str) -> Iterator[Entry]:
    """Yield what lies below a folder, in no order; nothing when there is no such folder.

    Links to folders are followed, each folder once: one that holds itself ends nothing, and one that is
    reached in two ways is listed by its real place, if that is below the folder.

    Raises
    ------
    StorageError
        If the storage, or folders below, cannot be listed.
    """
    if is_local(url):
        yield from _walk_local(local_path(url))
        return
    for path, about in find(url).items():
        yield Entry(path, stamp_of_object(about))


def _walk_local(root: str) -> Iterator[Entry]:
    seen: set[tuple[int, int]] = set()
    closed: list[tuple[str, OSError]] = []
    # Links wait until all real folders are seen. No recursion: folders may be nested deeply.
    folders: list[str] = [""]
    links: list[str] = []
    while folders or links:
        below = folders.pop() if folders else links.pop()
        try:
            about = os.stat(os.path.join(root, below))
            if not stat.S_ISDIR(about.st_mode):
                continue
            if (about.st_dev, about.st_ino) in seen:
                yield Entry(below, irregular="link to a folder that is listed already")
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(os.path.join(root, below)) as entries:
                found = list(entries)
        except OSError as error:
            if below or not isinstance(error, FileNotFoundError):
                closed.append((below, error))
            continue
        for entry in found:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name in _NOT_OURS:
                    yield Entry(path, irregular="folder of the file system")
                else:
                    folders.append(path)
            elif entry.is_symlink() and _leads_to_folder(entry):
                links.append(path)
            else:
                yield _file(path, entry)
    if closed:
        first = "; ".join(f"{printable(path) or '.'}: {error.strerror}" for path, error in closed[:5])
        raise StorageError(
            f"{len(closed)} folders below {printable(root)} cannot be listed",
            got=first,
            fix="make them readable, or move them elsewhere; is the folder mounted?",
        )


def _leads_to_folder(link: "os.DirEntry[str]") -> bool:
    try:
        return link.is_dir()
    except OSError:  # a link to itself
        return False


def _file(path: str, entry: "os.DirEntry[str]") -> Entry:
    try:
        about = entry.stat()
    except OSError:
        return Entry(path, irregular="broken link" if entry.is_symlink() else "file that is gone")
    if kind := irregular_kind(about.st_mode):
        return Entry(path, irregular=kind)
    return Entry(path, stamp_of_file(about))
