"""The queries of a report, as files beside its page that a browser reads without a server.

A browser fetches no JSON for a page that was opened from a disk, but it runs scripts. So each file is a
script of one call: `lmrData("queries", 3, {...})`. Files are of bounded size and loaded when they are looked
at; only the index, some tens of bytes per query, is loaded whole, for the search box, filters and sorts.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmr.text import printable

__all__ = ["FILE_BYTES", "ListedPhoto", "PhotoPicture", "QueryEntry", "ReportData", "script"]

FILE_BYTES = 1_000_000
"""A file is closed once it is longer."""

_QUERIES_IN_INDEX = 10_000

Put = Callable[[str, bytes], None]
"""Stores a file below the folder of the report's data, by name."""


@dataclass(frozen=True, kw_only=True)
class PhotoPicture:
    """A photo's small picture as a `data:` URI, and the number of the file that has the large one.

    Attributes
    ----------
    small
        The small picture; empty where there is none.
    large
        The number of the file of large pictures; -1 where there is none.
    """

    small: str = ""
    large: int = -1


@dataclass(frozen=True, kw_only=True)
class ListedPhoto:
    """A photo in the final list of a query.

    Attributes
    ----------
    photo
        Row of the photo.
    ranks
        Its rank after each stage, from 1; 0 where the stage does not list it.
    inliers, confident
        What verification found; None without verification.
    right
        Whether the solution names it; None without one.
    probability
        That it shows the query's landmark; None without a calibration.
    lines
        For each inlier the x and y in the query and in the photo, in thousandths of width and height.
    """

    photo: int
    ranks: Sequence[int]
    inliers: int | None = None
    confident: bool | None = None
    right: bool | None = None
    probability: float | None = None
    lines: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class QueryEntry:
    """A query of the report.

    Attributes
    ----------
    query_id, path
        The query's id, and its path below the folder of queries.
    found
        Photos in its final list.
    confident
        How many of them are confident matches; None without verification.
    unreadable
        Why the query could not be read; empty for most.
    scores
        Its score after each stage; NaN where it is left out. Empty without a solution.
    n_right
        How many photos the solution names; None without one.
    listed
        The head of its final list, and the further confident matches.
    heads
        For each stage the first photos of its list.
    picture
        Of the query.
    """

    query_id: str
    path: str
    found: int
    confident: int | None = None
    unreadable: str = ""
    scores: Sequence[float] = ()
    n_right: int | None = None
    listed: Sequence[ListedPhoto] = ()
    heads: Sequence[Sequence[int]] = ()
    picture: PhotoPicture = field(default_factory=PhotoPicture)


class ReportData:
    """Writes the files of queries and of large pictures, none of them longer than a bound allows.

    Parameters
    ----------
    put
        Stores a file.
    photo
        Returns id and path of a gallery photo by row.
    """

    def __init__(self, put: Put, photo: Callable[[int], tuple[str, str]]) -> None:
        self.put, self.photo = put, photo
        self.queries = self.pictured = self.unreadable = self.without_confident = 0
        self.files: dict[str, int] = {"index": 0, "queries": 0, "large": 0}
        self._index: list[QueryEntry] = []
        self._places: list[int] = []
        self._open = _File()
        self._large: dict[str, str] = {}
        self._large_bytes = 0

    def add_large(self, name: str, picture: str) -> int:
        """Keep a large picture under a name; return the number of the file that will have it."""
        if self._large_bytes > FILE_BYTES:
            self.close_large()
        self._large[name] = picture
        self._large_bytes += len(picture)
        return self.files["large"]

    def close_large(self) -> None:
        """Write the large pictures that are still kept."""
        if self._large:
            self._store("large", self._large)
        self._large, self._large_bytes = {}, 0

    def add(self, query: QueryEntry, pictures: Mapping[int, PhotoPicture]) -> None:
        """Add a query; `pictures` has those of the photos that it lists, by row."""
        rows = {one.photo for one in query.listed}.union(*query.heads)
        photos = {}
        for row in rows - self._open.photos.keys():
            picture = pictures.get(row, PhotoPicture())
            photos[row] = [*map(printable, self.photo(row)), picture.small, picture.large]
        self._open.add(self.queries, _details(query), photos)
        self._index.append(query)
        self._places.append(self.files["queries"])
        self.queries += 1
        self.pictured += bool(query.picture.small)
        self.unreadable += bool(query.unreadable)
        self.without_confident += query.confident == 0 and not query.unreadable
        if self._open.n_bytes > FILE_BYTES:
            self._close_queries()
        if len(self._index) == _QUERIES_IN_INDEX:
            self._close_index()

    def close(self) -> None:
        """Write what is still kept."""
        self.close_large()
        self._close_queries()
        self._close_index()

    def _close_queries(self) -> None:
        if self._open.queries:
            self._write("queries", self._open.text())
        self._open = _File()

    def _close_index(self) -> None:
        if self._index:
            self._store("index", _index(self._index, self._places))
        self._index, self._places = [], []

    def _store(self, kind: str, value: Any) -> None:
        self._write(kind, _json(value))

    def _write(self, kind: str, text: str) -> None:
        number = self.files[kind]
        self.files[kind] = number + 1
        self.put(f"{kind}-{number:05d}.js", script(kind, number, text))


class _File:
    """The queries of a file that is not yet closed, and the photos that they list; as JSON, by number."""

    def __init__(self) -> None:
        self.queries: dict[int, str] = {}
        self.photos: dict[int, str] = {}
        self.n_bytes = 0

    def add(self, number: int, details: dict[str, Any], photos: dict[int, Any]) -> None:
        added = {row: _json(photo) for row, photo in photos.items()}
        self.queries[number] = _json(details)
        self.photos |= added
        self.n_bytes += sum(map(_length_in_script, (self.queries[number], *added.values())))

    def text(self) -> str:
        photos, queries = (
            ",".join(f'"{number}":{value}' for number, value in some.items())
            for some in (self.photos, self.queries)
        )
        return f'{{"photos":{{{photos}}},"queries":{{{queries}}}}}'


def script(kind: str, number: int, text: str) -> bytes:
    """Return a file of data, given as JSON: a script of one call, in which no text can be taken for code."""
    # A string that is parsed is read faster than a literal of the same content.
    return f"lmrData({json.dumps(kind)},{number},JSON.parse({json.dumps(text)}))\n".encode()


def _length_in_script(text: str) -> int:
    """Return how long JSON is in a string of a script, where quotation marks and backslashes are escaped."""
    return len(text) + text.count('"') + text.count("\\")


def _json(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _details(query: QueryEntry) -> dict[str, Any]:
    return {
        "picture": query.picture.small,
        "large": query.picture.large,
        "list": [
            [
                one.photo,
                list(one.ranks),
                one.inliers,
                _flag(one.confident),
                _flag(one.right),
                list(one.lines),
                None if one.probability is None else round(one.probability, 4),
            ]
            for one in query.listed
        ],
        "heads": [list(head) for head in query.heads],
    }


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _index(queries: Sequence[QueryEntry], places: Sequence[int]) -> dict[str, Any]:
    return {
        "id": [printable(query.query_id) for query in queries],
        "path": [printable(query.path) for query in queries],
        "found": [query.found for query in queries],
        "confident": [query.confident for query in queries],
        "unreadable": {i: printable(q.unreadable) for i, q in enumerate(queries) if q.unreadable},
        "scores": [[None if math.isnan(s) else round(s, 4) for s in query.scores] for query in queries],
        "right": [query.n_right for query in queries],
        "pictured": [int(bool(query.picture.small)) for query in queries],
        "file": list(places),
    }
