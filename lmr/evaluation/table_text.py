"""Bytes of a CSV file to its rows: text, quotes, line ends; all faults of a file told in one error."""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from lmr.errors import LmrError
from lmr.evaluation.scores import first_five

__all__ = ["Faults", "cells_of", "only_spaces_part", "text_of"]

_PACKED = (
    (b"\x1f\x8b", "a gzip file", "unpack it first: gunzip -k {name}"),
    (b"BZh", "a bzip2 file", "unpack it first: bunzip2 -k {name}"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first: unxz -k {name}"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "unpack it first: unzstd {name}"),
    (b"PK\x03\x04", "a zip file or a workbook", "unpack it first: unzip {name}; save a workbook as CSV"),
    (b"PAR1", "a Parquet file", "write it as CSV with lists separated by spaces"),
    (b"\x80", "a Python pickle", "write it as CSV or JSON: a pickle may run any program when it is read"),
)
_WIDE = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_IN_CACHE = 1 << 18  # bytes that are looked through at a time
_CELL = re.compile(r'[ \t]*"([^"]*(?:""[^"]*)*)"[ \t]*(,|\n|\Z)|([^,\n]*)(,|\n|\Z)')


def text_of(data: bytes, name: str) -> str:
    """Return the text of a file, its line ends as newlines and without a byte order mark.

    Raises
    ------
    LmrError
        If it is compressed, not UTF-8, or another kind of file; with the command that mends it.
    """
    for start, kind, fix in _PACKED:
        if data.startswith(start):
            raise LmrError(
                f"{name} is not UTF-8 text", got=f"{kind}, {len(data)} bytes", fix=fix.format(name=name)
            )
    wide = next((kind for start, kind in _WIDE if data.startswith(start)), None)
    if wide is None and b"\x00" in data[:200]:
        # Without a mark, ASCII in UTF-16 has its zeros at odd places when the small byte comes first.
        wide = "UTF-16LE" if data[1:2] == b"\x00" else "UTF-16BE"
    if wide is not None:
        raise LmrError(
            f"{name} is not UTF-8 text",
            got=f"text in {wide}",
            fix=f"save it as UTF-8: iconv -f {wide} -t UTF-8 {name} > new.csv",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        lines = [n for n, line in enumerate(data.split(b"\n"), 1) if not _is_utf8(line)]
        raise LmrError(
            f"{name} is not UTF-8 text: {_places(lines)}",
            got=repr(data[max(0, error.start - 10) : error.start + 10]),
            fix=f"save it as UTF-8; from an old Windows: iconv -f WINDOWS-1252 -t UTF-8 {name} > new.csv",
        ) from error
    text = text.lstrip("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def only_spaces_part(data: bytes) -> bool:
    r"""Return whether a file is ASCII and the only space in its lines is " ", so that `split` cuts there.

    Examples
    --------
    >>> only_spaces_part(b"id,images\nq,a b\n"), only_spaces_part(b"q,a\tb"), only_spaces_part("é".encode())
    (True, False, False)
    """
    numbers = np.frombuffer(data, np.uint8)
    control = lines = 0  # in ASCII, all spaces but one are control characters
    for start in range(0, len(numbers), _IN_CACHE):
        piece = numbers[start : start + _IN_CACHE]
        control += int(np.count_nonzero(piece < ord(" ")))
        lines += int(np.count_nonzero(piece == ord("\n")))
    return data.isascii() and control == lines


def cells_of(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield per row the number of its first line and its cells, without the spaces and quotes around them.

    A quoted cell may hold commas, line ends, and quotes that are written twice. Empty lines are left out.

    Raises
    ------
    LmrError
        If a quote is opened and not closed.
    """
    if '"' not in text:
        for number, line in enumerate(_lines(text), start=1):
            if line and not line.isspace():
                yield number, [cell.strip() for cell in line.split(",")]
        return
    position, number = 0, 1
    while position < len(text):
        start, cells, end = number, [], ","
        while end == ",":
            found = _CELL.match(text, position)
            if found is None or (found[3] or "").lstrip().startswith('"'):
                raise LmrError(
                    f"{name}, line {number} has a quote that does not end with its column",
                    got=repr(text[position : position + 60]),
                    fix='write "…" around a whole column, and a quote inside it twice',
                )
            quoted, plain = found[1], found[3]
            cells.append((quoted.replace('""', '"') if plain is None else plain).strip())
            number += found[0].count("\n")
            position, end = found.end(), found[2] if plain is None else found[4]
        if any(cells):
            yield start, cells


def _lines(text: str) -> Iterator[str]:
    """Yield the lines one at a time: all of them at once would take the memory of the file again."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


class Faults:
    """The faults of one file, gathered by kind and told together.

    Parameters
    ----------
    name
        The file, as the user named it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._kinds: dict[str, tuple[str, list[str]]] = {}

    def add(self, kind: str, offender: str, fix: str) -> None:
        """Note an offender; `kind` completes "3 times: …"."""
        self._kinds.setdefault(kind, (fix, []))[1].append(offender)

    def raise_if_any(self) -> None:
        """Raise an error that names every kind, how often it occurs and its first five offenders."""
        if not self._kinds:
            return
        kinds = [f"{kind} ({len(offenders)}×)" for kind, (_, offenders) in self._kinds.items()]
        raise LmrError(
            f"{self.name}: {'; '.join(kinds)}",
            got="; ".join(first_five(offenders) for _, offenders in self._kinds.values()),
            fix="; ".join(dict.fromkeys(fix for fix, _ in self._kinds.values())),
        )


def _places(lines: Sequence[int]) -> str:
    return f"line {lines[0]}" if len(lines) == 1 else f"{len(lines)} lines: {first_five(lines)}"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
