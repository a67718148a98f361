"""Kaggle's files: submissions and solutions, bytes in and bytes out. Who calls reads and writes them.

All are CSV of one line per query after a header, with lists separated by spaces:

=========================  ==================  =======================================
file                       header              a line
=========================  ==================  =======================================
retrieval submission       ``id,images``       ``query,photo photo …`` (at most 100)
retrieval solution         ``id,images``       ``query,photo photo …``
recognition submission     ``id,landmarks``    ``photo,landmark confidence`` or ``photo,``
recognition solution       ``id,landmark(s)``  ``photo,landmark landmark …``
=========================  ==================  =======================================

In a solution nothing, `None` or `nan` stands for no right answer. A third column `Usage` tells which rows are
not scored: those that say Ignored. Line ends of every system, a byte order mark and quotes are accepted.
A fault is told for the whole file at once, with its count and its first five offenders.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lmr.errors import LmrError
from lmr.evaluation.scores import first_five
from lmr.evaluation.table_text import Faults, cells_of, only_spaces_part, text_of
from lmr.text import printable

__all__ = [
    "MAX_PREDICTIONS",
    "RankedLists",
    "answers_of",
    "is_plain_id",
    "parse_recognition_solution",
    "parse_recognition_submission",
    "parse_solution",
    "parse_submission",
    "recognition_csv",
    "submission_csv",
    "table_rows",
]

MAX_PREDICTIONS = 100
"""The most gallery photos that the challenge accepts per query."""

NOTHING = frozenset({"", "none", "nan", "null", "<na>"})
"""What stands in a solution for no answer, in small letters: Kaggle writes None, pandas nan."""

_LONGEST_NOTHING = max(map(len, NOTHING))

_SEPARATORS = ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"))
_DASHED = re.compile(r"-[-\w]*")  # ids of some sites begin with a dash
_LIST_FIX = "separate the ids of a list by spaces: a b c"


def parse_submission(
    data: bytes, name: str = "the submission", *, max_photos: int | None = MAX_PREDICTIONS
) -> "RankedLists":
    """Read a retrieval submission: query id to gallery ids, best first, in the file's order.

    Parameters
    ----------
    data
        The bytes of the file.
    name
        What errors call it.
    max_photos
        The most photos that a query may have; None for no limit, as protocols with whole rankings need it.

    Raises
    ------
    LmrError
        If it is not such a file, names a query twice, or gives queries too many photos; with the lines.
    """
    faults = Faults(name)
    cells: dict[str, str] = {}
    spaced = only_spaces_part(data)
    for line, query_id, (photos,) in table_rows(data, name, ("id,images",), faults):
        cells[query_id] = photos
        if max_photos is None or (spaced and photos.count(" ") < max_photos):
            continue  # spaces are counted much sooner than ids are cut out
        if len(photos.split()) > max_photos:
            faults.add(
                f"queries with more than {max_photos} photos",
                f"query {query_id} has {len(photos.split())} (line {line})",
                f"keep the {max_photos} best; the challenge refuses longer lists",
            )
    faults.raise_if_any()
    return RankedLists(cells, spaced=spaced)


class RankedLists(Mapping[str, list[str]]):
    """Query id to gallery ids, each list made when it is asked for.

    A hundred thousand lists of a hundred ids are ten million texts: made at once, they would take most of
    the time and memory of scoring.

    Parameters
    ----------
    cells
        Query id to its photos, separated by spaces.
    spaced
        Whether all is ASCII, and ids are separated by nothing else.

    Attributes
    ----------
    spaced
        As given.
    """

    def __init__(self, cells: Mapping[str, str], *, spaced: bool = False) -> None:
        self._cells = cells
        self.spaced = spaced

    def cell(self, query_id: str) -> str | None:
        """Return the photos of a query as they stand in the file, or None for no such query."""
        return self._cells.get(query_id)

    def __getitem__(self, query_id: str) -> list[str]:
        return self._cells[query_id].split()

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._cells


def parse_solution(data: bytes, name: str = "the solution") -> dict[str, list[str]]:
    """Read a retrieval solution: query id to the ids of its right photos, none for a query without.

    A query whose `Usage` is Ignored has none, so that it is left out of every mean. Raises as
    `parse_submission`.
    """
    faults = Faults(name)
    right = {
        query_id: [] if _ignored(rest) else answers_of(photos)
        for _, query_id, (photos, *rest) in table_rows(data, name, ("id,images", "id,images,usage"), faults)
    }
    faults.raise_if_any()
    return right


def parse_recognition_solution(data: bytes, name: str = "the solution") -> dict[str, list[str]]:
    """Read a recognition solution: photo id to its landmarks, none for a photo without.

    A photo whose `Usage` is Ignored is left out. Raises as `parse_submission`.
    """
    faults = Faults(name)
    headers = ("id,landmark", "id,landmarks", "id,landmark,usage", "id,landmarks,usage")
    rows = list(table_rows(data, name, headers, faults))
    faults.raise_if_any()
    return {photo_id: answers_of(landmarks) for _, photo_id, (landmarks, *rest) in rows if not _ignored(rest)}


def parse_recognition_submission(data: bytes, name: str = "the submission") -> dict[str, tuple[str, float]]:
    """Read a recognition submission: photo id to landmark and confidence; unnamed photos are left out.

    Raises as `parse_submission`, and if a line does not hold one landmark and one number.
    """
    faults = Faults(name)
    predictions: dict[str, tuple[str, float]] = {}
    for line, photo_id, (cell,) in table_rows(data, name, ("id,landmarks",), faults):
        if not cell:
            continue
        try:
            landmark, confidence = cell.split()
            predictions[photo_id] = sys.intern(landmark), _number(confidence)
        except ValueError:
            faults.add(
                "photos without one landmark and its confidence",
                f"photo {photo_id} has {cell[:40]!r} (line {line})",
                "write one landmark, a space and one number, or nothing",
            )
    faults.raise_if_any()
    return predictions


def submission_csv(predictions: Mapping[str, Sequence[str]]) -> bytes:
    r"""Return the bytes of a retrieval submission, queries in the mapping's order.

    Raises
    ------
    LmrError
        If a query has more than 100 photos, or an id would break the file (empty, or with a space, comma or
        quote).

    Examples
    --------
    >>> submission_csv({"q1": ["a", "b"], "q2": []})
    b'id,images\nq1,a b\nq2,\n'
    """
    long = [f"query {q} has {len(p)}" for q, p in predictions.items() if len(p) > MAX_PREDICTIONS]
    if long:
        raise LmrError(
            f"{len(long)} queries have more than {MAX_PREDICTIONS} photos",
            got=first_five(long),
            fix=f"keep the {MAX_PREDICTIONS} best; the challenge refuses longer lists",
        )
    _refuse_bad_ids((query_id, (query_id, *photos)) for query_id, photos in predictions.items())
    lines = [f"{query_id},{' '.join(photos)}" for query_id, photos in predictions.items()]
    return "\n".join(["id,images", *lines, ""]).encode()


def recognition_csv(predictions: Mapping[str, tuple[str, float] | None]) -> bytes:
    r"""Return the bytes of a recognition submission; None for a photo that is given no landmark.

    Confidences are written so that they read back the same.

    Examples
    --------
    >>> recognition_csv({"p1": ("8815", 0.1), "p2": None})
    b'id,landmarks\np1,8815 0.1\np2,\n'
    """
    _refuse_bad_ids((photo, (photo, named[0]) if named else (photo,)) for photo, named in predictions.items())
    no_number = [photo for photo, named in predictions.items() if named and named[1] != named[1]]
    if no_number:
        raise LmrError(
            f"{len(no_number)} confidences are not numbers",
            got=f"NaN for {first_five(no_number)}",
            fix="give a number, or None for a photo without landmark",
        )
    lines = [
        f"{photo}," if named is None else f"{photo},{named[0]} {float(named[1])!r}"
        for photo, named in predictions.items()
    ]
    return "\n".join(["id,landmarks", *lines, ""]).encode()


def is_plain_id(text: str) -> bool:
    """Tell whether text can stand as an id in every file of Kaggle's and be read back as the same.

    It holds nothing that separates, nothing that is not seen, does not begin as the lists of programs do,
    is no formula of a spreadsheet, and no word for nothing.

    Examples
    --------
    >>> [is_plain_id(text) for text in ("0a1b", "-x_1", "a b", "[a]", "=1+1", "None", "Zürich")]
    [True, True, False, False, False, False, True]
    """
    return not (
        _breaks(text)
        or text[0] in "[({"
        or (text[0] in "=+-@" and _DASHED.fullmatch(text) is None)
        or text.lower() in NOTHING
        or printable(text) != text
    )


def table_rows(
    data: bytes, name: str, headers: Sequence[str], faults: Faults
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield per row its line, its id and its other cells; what is wrong with rows goes to `faults`.

    Parameters
    ----------
    data
        The bytes of the file.
    name
        What errors call it.
    headers
        The headers that are accepted, in small letters; the first is the one that errors recommend.
    faults
        Gets the repeated ids, the wrong numbers of columns and the lists that are not separated by spaces.

    Raises
    ------
    LmrError
        If the file is no text, or its header is none of those, or it has no rows.
    """
    width = 0
    first_seen: dict[str, int] = {}
    for line, cells in cells_of(text_of(data, name), name):
        if width == 0:
            if ",".join(cells).lower() not in headers:
                raise _no_header(name, cells, line, headers)
            width = len(cells)
            continue
        if len(cells) != width or not cells[0]:
            faults.add(
                f"lines without an id and {width} columns",
                f"line {line}: {','.join(cells)[:60]}",
                "separate columns by commas, and the ids of a list by spaces",
            )
            first_seen.setdefault("", line)
        elif cells[0] in first_seen:
            faults.add(
                "ids that stand there twice",
                f"{cells[0]} (lines {first_seen[cells[0]]} and {line})",
                "keep one line per id",
            )
        else:
            first_seen[cells[0]] = line
            if any(map(_is_no_list, cells[1:])):
                faults.add(
                    "lists that are not separated by spaces", f"line {line}: {cells[1][:40]}", _LIST_FIX
                )
            yield line, cells[0], cells[1:]
    if not first_seen:
        raise LmrError(
            f"{name} holds no lines",
            got="an empty file" if width == 0 else "a header and nothing else",
            fix="check that the file was written to its end",
        )


def answers_of(cell: str) -> list[str]:
    """Return the ids of a solution's cell, none for what stands for no answer."""
    return [] if len(cell) <= _LONGEST_NOTHING and cell.lower() in NOTHING else cell.split()


def _no_header(name: str, cells: Sequence[str], line: int, headers: Sequence[str]) -> LmrError:
    got = ",".join(cells)
    fix = f"the first line should be {headers[0]}"
    for separator, word in _SEPARATORS:
        if ",".join(cell.strip(' "') for cell in got.split(separator)).lower() in headers:
            shown = separator.replace("\t", r"\t")
            return LmrError(
                f"{name} separates its columns by {word}",
                got=got[:80],
                fix=f"separate them by commas: tr '{shown}' ',' < {name} > new.csv",
            )
    if ",".join(cells[1:]).lower() in headers:
        what = f"{name} has a column before the ids, as a table's own row numbers are"
        fix = f"leave it out: cut -d, -f2- {name} > new.csv (pandas: to_csv(…, index=False))"
        return LmrError(what, got=got[:80], fix=fix)
    if cells[0].lower() != "id" and len(cells) == headers[0].count(",") + 1:
        fix = f"put a header before it: sed '1i {headers[0]}' {name} > new.csv"
    elif any("landmark" in cell.lower() for cell in cells) and "landmark" not in headers[0]:
        fix += "; this file is for recognition: lmr evaluate --protocol gap"
    elif len(cells) > 2 and {"easy", "ok"} & {cell.lower() for cell in cells}:
        fix += "; this file is for --protocol revisited-medium or classic"
    return LmrError(f"{name}, line {line} is not the header", got=got[:80], fix=fix)


def _ignored(rest: Sequence[str]) -> bool:
    return bool(rest) and rest[-1].lower() == "ignored"


_PRINTED = re.compile(r"[\[({] *('.*'|\d+( +\d+)+)? *[\])}]")
"""`[]`, `['a' 'b']` and `[1 2 3]`: an array or a list, as it prints itself."""


def _is_no_list(cell: str) -> bool:
    """Tell whether a cell holds a list in another writing: with commas, or as a program prints it.

    An id may stand in brackets, as files that were copied do: `(1)`.
    """
    return (
        "," in cell
        or '"' in cell
        or (cell.startswith(("[", "(", "{")) and _PRINTED.fullmatch(cell) is not None)
    )


def _number(text: str) -> float:
    number = float(text)
    if number != number:
        raise ValueError("NaN has no place in an order")
    return number


def _breaks(one: str) -> bool:
    return not one or "," in one or '"' in one or one.split() != [one]


def _refuse_bad_ids(rows: Iterable[tuple[str, Sequence[str]]]) -> None:
    bad = [f"{one!r} in the line of {row}" for row, ids in rows for one in ids if _breaks(one)]
    if bad:
        raise LmrError(
            f"{len(bad)} ids would break the file",
            got=first_five(bad),
            fix="use ids without spaces, commas and quotes",
        )
