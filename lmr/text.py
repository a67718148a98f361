"""Text of unknown origin, such as names of files, made harmless for terminals, pages and spreadsheets.

With `lmr.errors` this is the ground under every other module: it imports nothing of lmr.
"""

import difflib
import unicodedata
from collections.abc import Iterable

__all__ = ["are", "counted", "csv_cell", "one_of", "printable"]

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # letters of many languages, and emoji, are written with these
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return text that shows what it is: what a terminal would obey, or not show, is written as an escape.

    Parameters
    ----------
    text
        Any text, also with bytes that are no UTF-8.
    keep
        Characters that stay as they are, such as line ends of a text of several lines.

    Examples
    --------
    >>> printable("a\x1b[31m.jpg")
    'a\\x1b[31m.jpg'
    >>> printable("Zürich 東京.jpg")
    'Zürich 東京.jpg'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c in keep or c in _JOINERS or unicodedata.category(c) not in _UNSEEN else _escape(c)
        for c in text
    )


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a name that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def csv_cell(text: str) -> str:
    """Return text as one cell of a CSV file that a spreadsheet shows as text and never computes.

    Examples
    --------
    >>> csv_cell("=HYPERLINK(1)")
    "'=HYPERLINK(1)"
    >>> csv_cell('5" pipe, red')
    '"5"" pipe, red"'
    """
    shown = printable(text)
    if text.startswith(_FORMULA_STARTS):
        shown = f"'{shown}"
    return '"' + shown.replace('"', '""') + '"' if any(c in shown for c in ',";') else shown


def are(count: int) -> str:
    """Return the verb that belongs to a number of things: is, or are."""
    return "is" if count == 1 else "are"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun, in the singular where the number is one.

    Examples
    --------
    >>> counted(1, "photo"), counted(1200, "photo"), counted(2, "query", "queries")
    ('1 photo', '1,200 photos', '2 queries')
    >>> counted(1, "id is", "ids are")
    '1 id is'
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def one_of(word: str, known: Iterable[str]) -> str:
    """Return the names that a word may be meant for, the likely one first.

    Examples
    --------
    >>> one_of("verfy", ["rank", "verify"])
    'did you mean verify? One of: rank, verify'
    >>> one_of("xyz", ["rank", "verify"])
    'one of: rank, verify'
    """
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    listed = f"ne of: {', '.join(names)}"
    return f"did you mean {near[0]}? O{listed}" if near else f"o{listed}"
