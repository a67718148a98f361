"""Which files of a folder are photos: by what is in them, with a count of all that is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lmr import storage
from lmr.features.decoding.formats import HEADER_BYTES, PHOTO_SUFFIXES, format_of
from lmr.storage.outside import read_starts
from lmr.storage.walk import walk
from lmr.text import printable

__all__ = ["Found", "find_photos", "left_out_as", "left_out_text"]


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes
    ----------
    photos
        Path below the folder to size and time of change (or ETag).
    left_out
        What is no photo, by kind: ".txt", "hidden", "pipe" and so on, to how many there are.
    """

    photos: Mapping[str, str]
    left_out: Mapping[str, int]


def find_photos(url: str) -> Found:
    """Find the photos below a folder.

    A file whose name ends as those of photos do is taken for one, and is looked into when it is ingested.
    All others are looked into here.
    """
    photos: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    unknown: dict[str, str] = {}
    for entry in walk(url):
        place = PurePosixPath(entry.path)
        # Hidden files and folders (thumbnails, half-copied files) are not part of a collection.
        if any(part.startswith(".") for part in place.parts):
            left_out["hidden"] += 1
        elif entry.irregular:
            left_out[entry.irregular] += 1
        elif place.suffix.lower() in PHOTO_SUFFIXES:
            photos[entry.path] = entry.stamp
        else:
            unknown[entry.path] = entry.stamp
    starts = read_starts([storage.join(url, path) for path in unknown], HEADER_BYTES)
    for (path, stamp), start in zip(unknown.items(), starts, strict=True):
        if kind := left_out_as(path, start):
            left_out[kind] += 1
        else:
            photos[path] = stamp
    return Found(photos, dict(left_out))


def left_out_as(path: str, start: bytes | Exception) -> str:
    """Return as what a file is counted that is no photo by its first bytes; empty for a photo.

    Parameters
    ----------
    path
        Path of the file; its suffix names the kind.
    start
        Its first `HEADER_BYTES` bytes, or why they cannot be read.
    """
    if isinstance(start, Exception):
        return "file that cannot be read"
    if format_of(start) is not None:
        return ""
    return printable(PurePosixPath(path).suffix.lower()) or "without suffix"


def left_out_text(left_out: Mapping[str, int], kinds: int = 10) -> str:
    """Return a sentence on what was left out; empty when nothing was.

    Examples
    --------
    >>> left_out_text({".txt": 2, ".mov": 1})
    '3 files left out: 1 .mov, 2 .txt'
    """
    if not left_out:
        return ""
    count = sum(left_out.values())
    shown = [f"{left_out[kind]:,} {kind}" for kind in _most(left_out, kinds)]
    rest = len(left_out) - len(shown)
    more = f" and {rest} more kinds" if rest else ""
    return f"{count:,} {'file' if count == 1 else 'files'} left out: {', '.join(shown)}{more}"


def _most(left_out: Mapping[str, int], kinds: int) -> Sequence[str]:
    return sorted(sorted(left_out, key=lambda kind: (-left_out[kind], kind))[:kinds])
