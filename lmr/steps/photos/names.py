"""Names of photos: the path that a photo is known by, its id in Kaggle's files, and how both are found.

A photo's *path* below its folder is what it is known by. It is text as it stands in the folder, except where
that is not possible or not clear: a name that is no UTF-8, or a key of S3 that a folder could not hold, is
written as `./` and the path percent-encoded. A list may name photos elsewhere: such a path is a whole URL, or
begins with `/`.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from urllib.parse import unquote, unquote_to_bytes

from lmr.evaluation.protocols.kaggle import is_plain_id
from lmr.evaluation.scores import first_five
from lmr.storage import Piece
from lmr.text import printable

__all__ = [
    "PhotoNames",
    "encoded",
    "ids_of_paths",
    "known_path",
    "named_offenders",
    "piece_of",
    "short_name",
    "told",
    "url_of",
]


def known_path(path: str) -> str:
    r"""Return the path that a photo is known by, of a path below a folder as the storage names it.

    Examples
    --------
    >>> known_path("caf\udce9, 1.jpg"), known_path("café, 1.jpg")
    ('./caf%E9%2C%201.jpg', 'café, 1.jpg')
    """
    unclear = path.startswith(("/", "./")) or path.endswith("/") or "//" in path
    return f"./{encoded(path)}" if unclear or not _is_utf8(path) else path


def url_of(folder: str, path: str) -> str:
    """Return where a photo lies that is known by a path."""
    if path.startswith("./"):
        path = unquote_to_bytes(path[2:]).decode(errors="surrogateescape")
    elif path.startswith("/") or "://" in path:
        return path
    return f"{folder.rstrip('/')}/{path}"


def piece_of(url: str, path: str, stamp: str) -> Piece:
    """Return where the bytes of a photo lie: a file, or a part of one."""
    size, _, *more = stamp.split(" ")
    part = [one for one in more if ":" not in one]  # what is written `name:value` says no place
    if not part:
        return Piece(url_of(url, path))
    offset, letters = map(int, part)
    return Piece(url_of(url, path[:letters]), offset, int(size))


def short_name(path: str) -> str:
    """Return a file's name without folder and suffix."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def ids_of_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """Return an id for each photo: its short name if that is plain and alone, else its encoded path.

    Examples
    --------
    >>> ids_of_paths(["a/1.jpg", "b/1.jpg", "b/2 3.jpg", "c/4.jpg"])
    ('a/1.jpg', 'b/1.jpg', 'b/2%203.jpg', '4')
    """
    names = [short_name(path) for path in paths]
    count = Counter(names)
    longs = list(map(_long, paths))
    # The short name of one may be the encoded path of another: `a.jpg` of `a.jpg.png`.
    taken = set(longs)
    return tuple(
        name if count[name] == 1 and (name not in taken or name == long) and is_plain_id(name) else long
        for name, long in zip(names, longs, strict=True)
    )


def encoded(path: str) -> str:
    """Return a path with all that an id may not hold percent-encoded, so that no two become the same."""
    plain = path.isascii() and path.isprintable() and not any(c in path for c in ' %,"')
    text = path if plain else "".join(c if _is_clear(c) else _escape(c) for c in path)
    if is_plain_id(text) or not text:
        return text
    return "".join(f"%{byte:02X}" for byte in text[0].encode()) + text[1:]


def told(name: str) -> str:
    r"""Return a name so that names that look alike are told apart.

    Examples
    --------
    >>> told("cafe")
    'cafe'
    >>> told("caf\u00e9") == told("cafe\u0301")
    False
    """
    return printable(name) if name.isascii() else f"{printable(name)} ({name!a})"


def named_offenders(ids: Sequence[str]) -> str:
    """Return how many photos do not fit, and the first five of them."""
    return f"{len(ids):,}: {first_five(ids)}"


class PhotoNames:
    """Finds photos by what people call them.

    Tried in this order: the id; the path encoded, as an id has it; the path; the path, the file's name or the
    short name, with or without suffix, plain or encoded; the same with accents in either form; of numbers the
    same without leading zeros. The first that fits counts, if it fits one photo only.

    Parameters
    ----------
    ids, paths
        Of the photos.
    """

    def __init__(self, ids: Sequence[str], paths: Sequence[str]) -> None:
        self._ids, self._paths = ids, paths

    def find(self, name: str) -> int | None:
        """Return the row of a photo; None where there is none of this name, or several."""
        tables = ["_by_id", "_by_long", "_by_path", "_by_part"]
        if not (name.isascii() and unquote(name).isascii()):
            tables.append("_by_accent")
        if short_name(name).isdecimal():
            tables.append("_by_number")
        # A table is made when no name stands in those before it: a large gallery by ids needs but one.
        for table in tables:
            plain = table in ("_by_id", "_by_long", "_by_path")
            for form in (name,) if plain else dict.fromkeys((name, unquote(name))):
                row = getattr(self, table).get(_FORMS.get(table, str)(form))
                if row is not None:
                    return int(row) if row >= 0 else None
        return None

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {one: row for row, one in enumerate(self._ids)}

    @cached_property
    def _by_long(self) -> dict[str, int]:
        return {_long(path): row for row, path in enumerate(self._paths)}

    @cached_property
    def _by_path(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self._paths)}

    @cached_property
    def _by_part(self) -> dict[str, int]:
        return self._parts(lambda part: part)

    @cached_property
    def _by_accent(self) -> dict[str, int]:
        return self._parts(_composed)

    @cached_property
    def _by_number(self) -> dict[str, int]:
        return self._parts(_without_zeros, only=lambda path: short_name(path).isdecimal())

    def _parts(
        self, form: Callable[[str], str], only: Callable[[str], bool] = lambda path: True
    ) -> dict[str, int]:
        rows = (row for row, path in enumerate(self._paths) if only(path))
        return _table((form(part), row) for row in rows for part in self._parts_of(row))

    def _parts_of(self, row: int) -> Iterator[str]:
        path = self._paths[row]
        folder, slash, name = path.rpartition("/")
        short = short_name(name)
        yield from (path, name, short, f"{folder}{slash}{short}") if folder else (name, short)


def _long(path: str) -> str:
    """Return a path as an id; what is encoded already stays."""
    return path[2:] if path.startswith("./") else encoded(path)


def _table(keys: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the row of each key; -1 where several rows have it."""
    table: dict[str, int] = {}
    for key, row in keys:
        if table.setdefault(key, row) != row:
            table[key] = -1
    return table


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _without_zeros(name: str) -> str:
    folder, slash, last = _composed(name).rpartition("/")
    return f"{folder}{slash}{last.lstrip('0') or '0'}"


_FORMS = {"_by_accent": _composed, "_by_number": _without_zeros}


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_clear(character: str) -> bool:
    return character not in '%,"' and not character.isspace() and printable(character) == character


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogateescape"))
