"""Lists of photos: text, CSV or Parquet files that name photos anywhere, some with ids and labels."""

import codecs
import csv
import io
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.evaluation.protocols.kaggle import is_plain_id
from lmr.evaluation.scores import first_five
from lmr.steps.parquet_files import parquet_table
from lmr.steps.photos.digests import DIGESTS, is_digest, with_digests
from lmr.steps.photos.names import known_path, told, url_of
from lmr.storage.outside import stamps_of
from lmr.text import are, counted, printable

__all__ = ["LIST_SUFFIXES", "Listed", "read_list"]

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
"""Suffixes of files that list photos."""

_PATHS = ("path", "url", "key", "file", "image")
_IDS = ("id",)
_LABELS = ("label", "landmark_id", "landmark")
_OTHER_MARKS = {"semicolons": ";", "tabs": "\t"}  # what spreadsheets write in the place of commas


class _Entry(NamedTuple):
    path: str
    id: str = ""
    label: str = ""
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True)
class Listed:
    """Photos of a list.

    Attributes
    ----------
    stamps
        Known path to size and time of change.
    ids, labels
        By path; empty where the list has none.
    repeated
        How many lines named a photo that stood there already.
    """

    stamps: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    repeated: int = 0


def read_list(url: str) -> Listed:
    """Read a list of photos and look at each of them, but for those at web addresses.

    A text file has a path or a web address in each line; CSV and Parquet files a column `path` (or `url`,
    `key`, `file`, `image`), and `id`, `label`, `sha256` and `md5` if they have them. Relative paths begin at
    the list's folder.

    Raises
    ------
    LmrError
        If the file is no such list; if photos are not there, or ids repeat or cannot stand in Kaggle's files.
        All of them are counted, and the first five named.
    """
    data = storage.read(url)
    suffix = posixpath.splitext(url)[1].lower()
    read = {".txt": _text_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[suffix]
    rows: dict[str, _Entry] = {}
    repeated = 0
    for entry in read(data, url):
        path = _known(entry.path)
        repeated += path in rows
        rows.setdefault(path, entry)
    if not rows:
        raise LmrError(f"{printable(url)} lists no photo", fix="write one path in each line")
    folder = posixpath.dirname(url)
    stamps = dict(zip(rows, stamps_of([url_of(folder, path) for path in rows]), strict=True))
    _refuse_missing(url, {rows[path].path: why for path, why in stamps.items() if isinstance(why, Exception)})
    ids = {path: entry.id for path, entry in rows.items()}
    if any(ids.values()):
        _refuse_ids(url, list(ids.values()))
    labels = {path: entry.label for path, entry in rows.items()}
    digests = {path: dict(zip(DIGESTS, entry[3:], strict=True)) for path, entry in rows.items()}
    _refuse_digests(url, {rows[path].path: some for path, some in digests.items()})
    return Listed(
        {
            path: with_digests(stamp, digests[path])
            for path, stamp in stamps.items()
            if isinstance(stamp, str)
        },
        ids if any(ids.values()) else {},
        labels if any(labels.values()) else {},
        repeated,
    )


def _known(entry: str) -> str:
    """Return the path that a photo is known by, of an entry as the list has it."""
    if entry.startswith("/") or "://" in entry:
        return entry if entry.isascii() or _is_text(entry) else known_path(entry)
    return known_path(posixpath.normpath(entry))


def _is_text(entry: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in entry)


def _text_rows(data: bytes, name: str) -> Iterator[_Entry]:
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        # Only the line's end is no part of a name: names may begin and end with spaces.
        if entry := line.removesuffix(b"\r").decode(errors="surrogateescape"):
            yield _Entry(entry)


def _csv_rows(data: bytes, name: str) -> Iterator[_Entry]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise LmrError(
            f"{printable(name)} is not written in UTF-8",
            got="UTF-16, as spreadsheets write 'Unicode text'",
            fix="save it as 'CSV UTF-8', or convert it: iconv -f UTF-16 -t UTF-8 OLD.csv > NEW.csv",
        )
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise LmrError(
            f"{printable(name)} is no CSV file",
            got=str(error),
            fix="write the list anew, separated by commas",
        ) from error
    if not rows:
        raise LmrError(
            f"{printable(name)} is empty",
            got="0 lines",
            fix=f"write {_PATHS[0]} in the first line, and one path in each line after it",
        )
    header = [cell.strip().lower() for cell in rows[0]]
    places = _places(header, name)
    wrong = [str(line) for line, row in enumerate(rows, 1) if row and len(row) != len(header)]
    if wrong:
        raise LmrError(
            f"{counted(len(wrong), 'line')} of {printable(name)} {'does' if len(wrong) == 1 else 'do'} "
            f"not have {counted(len(header), 'column')}",
            got=f"lines {first_five(wrong)}",
            fix='write names with commas in quotes: "a, b.jpg"',
        )
    for row in rows[1:]:
        if row:
            path, *others = ("" if place is None else row[place] for place in places)
            yield _Entry(path, *(one.strip() for one in others))


def _parquet_rows(data: bytes, name: str) -> Iterator[_Entry]:
    table = parquet_table(data, name)
    places = _places([column.lower() for column in table.column_names], name)
    columns = [[None] * len(table) if p is None else table.column(p).to_pylist() for p in places]
    for row in zip(*columns, strict=True):
        yield _Entry(*("" if cell is None else _cell(cell) for cell in row))


def _cell(cell: object) -> str:
    return cell.decode(errors="surrogateescape") if isinstance(cell, bytes) else str(cell)


def _places(header: Sequence[str], name: str) -> tuple[int | None, ...]:
    """Return the columns of an entry's fields; None where the list has none."""

    def place(names: Sequence[str]) -> int | None:
        return next((header.index(one) for one in names if one in header), None)

    paths = place(_PATHS)
    if paths is None:
        marks = [kind for kind, mark in _OTHER_MARKS.items() if any(mark in cell for cell in header)]
        raise LmrError(
            f"{printable(name)} has no column of paths",
            got=f"columns {', '.join(map(printable, header))}"[:200],
            fix=f"separate columns by commas, and not by {marks[0]}"
            if marks
            else f"name the column that holds them {_PATHS[0]}, in the first line",
        )
    return paths, place(_IDS), place(_LABELS), *(place((kind,)) for kind in DIGESTS)


def _refuse_missing(url: str, missing: dict[str, Exception]) -> None:
    if not missing:
        return
    first = "; ".join(f"{told(entry)} ({_why(why)})" for entry, why in list(missing.items())[:5])
    named = printable(url)
    raise StorageError(
        counted(
            len(missing),
            f"photo of the list {named} is not there",
            f"photos of the list {named} are not there",
        ),
        got=first + (" …" if len(missing) > 5 else ""),
        fix="take them out of the list, or put them there; relative paths begin at the list's folder",
    )


def _refuse_digests(url: str, digests: Mapping[str, Mapping[str, str]]) -> None:
    bad = [
        f"{told(entry)}: {kind} {told(digest[:70])}"
        for entry, some in digests.items()
        for kind, digest in some.items()
        if digest and not is_digest(kind, digest)
    ]
    if bad:
        raise LmrError(
            f"{counted(len(bad), 'digest')} of {printable(url)} {are(len(bad))} none",
            got=first_five(bad),
            fix="write sha256 as 64 hex digits and md5 as 32 (sha256sum, md5sum), or leave cells empty",
        )


def _why(error: Exception) -> str:
    what = getattr(error, "what", None) or getattr(error, "strerror", None) or str(error)
    return printable(str(what) or type(error).__name__)


def _refuse_ids(url: str, ids: Sequence[str]) -> None:
    bad = [photo_id for photo_id in ids if not is_plain_id(photo_id)]
    if bad:
        raise LmrError(
            f"{counted(len(bad), 'id')} of {printable(url)} cannot stand in Kaggle's files",
            got=first_five(repr(one) for one in bad),
            fix="give every photo an id without spaces, commas and quotes, or leave the column out",
        )
    often = [photo_id for photo_id, count in Counter(ids).items() if count > 1]
    if often:
        raise LmrError(
            f"{counted(len(often), 'id')} of {printable(url)} {are(len(often))} "
            f"{'that' if len(often) == 1 else 'those'} of several photos",
            got=first_five(map(told, often)),
            fix="give every photo an id of its own, or leave the column out",
        )
