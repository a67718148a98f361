"""Which files of a folder are photos: by what is in them, with a count of all that is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lmr.errors import LmrError
from lmr.evaluation.scores import first_five
from lmr.features.decoding.formats import HEADER_BYTES, PHOTO_SUFFIXES, format_of
from lmr.steps.photos.archives import ARCHIVE_SUFFIX, Member, members
from lmr.steps.photos.names import encoded, known_path, piece_of, url_of
from lmr.storage.outside import read_starts
from lmr.storage.walk import walk
from lmr.text import printable

__all__ = ["Found", "find_in_archive", "find_photos", "left_out_as", "left_out_text"]


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes
    ----------
    photos
        Known path to size and time of change (or ETag); see `lmr.steps.photos.names`.
    left_out
        What is no photo, by kind: ".txt", "hidden", "pipe" and so on, to how many there are.
    """

    photos: Mapping[str, str]
    left_out: Mapping[str, int]


def find_photos(url: str) -> Found:
    """Find the photos below a folder, also those in its tar archives.

    A file whose name ends as those of photos do is taken for one, and is looked into when it is ingested.
    All others are looked into here.

    Raises
    ------
    LmrError
        If archives cannot be read; all of them are counted.
    """
    found = _Finding(url)
    archives = []
    for entry in walk(url):
        if entry.irregular or not entry.path.lower().endswith(ARCHIVE_SUFFIX):
            found.add(entry.path, entry.stamp, entry.irregular)
        elif not _hidden(entry.path):
            archives.append(entry.path)
    return found.with_members(sorted(archives))


def find_in_archive(folder: str, archive: str) -> Found:
    """Find the photos of one archive of a folder."""
    return _Finding(folder).with_members([archive])


class _Finding:
    """Sorts what is found into photos and what is left out."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.photos: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()
        self.unknown: dict[str, str] = {}

    def add(self, path: str, stamp: str, irregular: str = "") -> None:
        if _hidden(path):
            self.left_out["hidden"] += 1
        elif irregular:
            self.left_out[irregular] += 1
        elif PurePosixPath(path).suffix.lower() in PHOTO_SUFFIXES:
            self.photos[known_path(path)] = stamp
        else:
            self.unknown[known_path(path)] = stamp

    def with_members(self, archives: Sequence[str]) -> Found:
        """Add what the archives hold, and look into all that is not known yet."""
        faults: list[LmrError] = []
        for archive in archives:
            try:
                for member in members(url_of(self.url, known_path(archive))):
                    self._add_member(archive, member)
            except LmrError as error:
                faults.append(error)
        if faults:
            raise LmrError(
                f"{len(faults)} archives cannot be read",
                got=first_five(f"{error.what} ({error.got})" for error in faults),
                fix="copy them once more, or take them out of the folder",
            )
        pieces = [piece_of(self.url, path, stamp) for path, stamp in self.unknown.items()]
        for (path, stamp), start in zip(self.unknown.items(), read_starts(pieces, HEADER_BYTES), strict=True):
            if kind := left_out_as(path, start):
                self.left_out[kind] += 1
            else:
                self.photos[path] = stamp
        return Found(self.photos, dict(self.left_out))

    def _add_member(self, archive: str, member: Member) -> None:
        path = f"{archive}/{member.path}"
        encoded_too = known_path(path).startswith("./")
        letters = len(f"./{encoded(archive)}" if encoded_too else archive)
        self.add(path, f"{member.size} {member.time} {member.offset} {letters}", member.irregular)


def _hidden(path: str) -> bool:
    # Hidden files and folders (thumbnails, half-copied files) are not part of a collection.
    return any(part.startswith(".") and part != ".." for part in path.split("/"))


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
