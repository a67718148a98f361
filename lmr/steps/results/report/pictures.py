"""Pictures for the report, drawn within bounds: photos of queries and gallery, and lines between inliers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import PhotoError, ShardError
from lmr.evaluation.pages.pictures import thumbnails
from lmr.evaluation.pages.report_data import PhotoPicture, ReportData
from lmr.runtime.steps import Role
from lmr.steps.both import Both
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.matches.lists import QueryLists, RunLists
from lmr.storage.arrow import column, ragged

__all__ = ["Pictured", "Pictures", "draw", "pick"]

MOST_PICTURED = 200
"""Queries that have pictures unless another number is asked for."""

MOST_BYTES = 4_000_000_000
"""Shards of photos that are read for pictures, at most."""

MOST_LARGE = 2000
"""Photos of the gallery that have a large picture, at most."""

SMALL_PX, LARGE_PX = 220, 640
_LINES = 40
_THREADS = 4


@dataclass
class Pictured:
    """What is to be drawn.

    Attributes
    ----------
    queries
        Rows of the queries.
    photos
        Rows of the gallery's photos; True where a large picture is wanted.
    matches
        Gallery row to the rows of the queries whose confident match it is.
    """

    queries: set[int] = field(default_factory=set)
    photos: dict[int, bool] = field(default_factory=dict)
    matches: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Pictures:
    """What was drawn: pictures by row, lines by rows of query and photo; and the shards that lacked for it.

    Nothing else needs these shards any more, so the report is made without them.
    """

    queries: dict[int, PhotoPicture] = field(default_factory=dict)
    photos: dict[int, PhotoPicture] = field(default_factory=dict)
    lines: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    lost: dict[str, None] = field(default_factory=dict)


def pick(
    run: RunDatasets,
    lists: RunLists,
    scores: Sequence[float],
    wanted: Callable[[QueryLists, int], list[int]],
    most: int | None,
) -> Pictured:
    """Choose the queries that have pictures: all of them, or as many as the bounds allow.

    Where not all fit, half of them are those that score worst, if there are scores, and the others are spread
    over the whole list.
    """
    count = len(lists.photos.queries)
    order = _order(count, scores)[: MOST_PICTURED if most is None else most]
    priority = {row: place for place, row in enumerate(order)}
    found: dict[int, tuple[list[int], list[int]]] = {}
    for part in lists:
        for i, row in enumerate(part.queries.tolist()):
            if row in priority:
                sure = part.last.photos[i][part.confident[i]].tolist() if part.confident is not None else []
                found[row] = wanted(part, i), sure
    chosen, budget = Pictured(), _Budget(run)
    for row in order:
        rows, sure = found.get(row, ([], []))
        if not budget.allows(row, rows):
            break
        chosen.queries.add(row)
        for photo in rows:
            chosen.photos.setdefault(photo, len(chosen.photos) < MOST_LARGE)
        for photo in sure:
            chosen.matches[photo].append(row)
    return chosen


def _order(count: int, scores: Sequence[float]) -> list[int]:
    """Return the queries in the order in which they are given pictures."""
    spread = _spread(count)
    if not len(scores):
        return spread
    worst = [int(i) for i in np.argsort(scores, kind="stable") if not np.isnan(scores[i])]
    mixed = [row for pair in zip(worst, spread, strict=False) for row in pair]
    return list(dict.fromkeys([*mixed, *spread]))


def _spread(count: int) -> list[int]:
    """Return all numbers below a count, those far from each other first."""
    bits = max(count - 1, 1).bit_length()
    mirrored = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [i for i in mirrored if i < count]


class _Budget:
    """Counts the bytes of the shards that pictures need; a shard is read once."""

    def __init__(self, run: RunDatasets) -> None:
        self.layouts = run.layouts
        self.sizes = run.images.map(lambda images: images.present()) if run.images else Both({}, {})
        self.left = MOST_BYTES
        self.read: set[tuple[Role, int]] = set()

    def allows(self, query: int, photos: Iterable[int]) -> bool:
        """Tell whether a query's pictures fit, and count them if so."""
        wanted: set[tuple[Role, int]] = {("queries", self.layouts.queries.place(query)[0])}
        wanted |= {("gallery", self.layouts.gallery.place(row)[0]) for row in photos}
        more = sum(self.sizes.of(role).get(shard, 0) for role, shard in wanted - self.read)
        if more > self.left:
            return False
        self.left -= more
        self.read |= wanted
        return True


def draw(run: RunDatasets, chosen: Pictured, data: ReportData) -> Pictures:
    """Draw what was chosen; large pictures go to their files at once."""
    drawn = Pictures()
    if run.images is None:
        return drawn
    drawn.queries = _photos(run, "queries", dict.fromkeys(chosen.queries, True), data, drawn)
    drawn.photos = _photos(run, "gallery", chosen.photos, data, drawn)
    data.close_large()
    if run.pairs is not None and run.local is not None:
        drawn.lines = _lines(run, chosen, drawn)
    return drawn


def _photos(
    run: RunDatasets, role: Role, rows: dict[int, bool], data: ReportData, drawn: Pictures
) -> dict[int, PhotoPicture]:
    assert run.images is not None
    images, found = run.images.of(role), {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for shard, inside in _by_shard(run, role, rows):
            try:
                content = images.read(shard, ["image"]).column("image")
            except ShardError as error:
                drawn.lost[error.what] = None
                continue
            small_and_large = pool.map(_both_sizes, [content[place].as_py() for _, place in inside])
            for (row, _), (small, large) in zip(inside, small_and_large, strict=True):
                number = data.add_large(f"{role[0]}{row}", large) if large and rows[row] else -1
                found[row] = PhotoPicture(small=small, large=number)
    return found


def _both_sizes(jpeg_bytes: bytes) -> tuple[str, str]:
    try:
        small, large = thumbnails(jpeg_bytes, (SMALL_PX, LARGE_PX))
    except PhotoError:
        return "", ""
    return small, large


def _by_shard(run: RunDatasets, role: Role, rows: Iterable[int]) -> list[tuple[int, list[tuple[int, int]]]]:
    """Return the shards of some photos, each with the rows of it that are wanted and their places."""
    by_shard: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in sorted(rows):
        shard, inside = run.layouts.of(role).place(row)
        by_shard[shard].append((row, inside))
    return sorted(by_shard.items())


def _lines(run: RunDatasets, chosen: Pictured, drawn: Pictures) -> dict[tuple[int, int], list[int]]:
    """Return the ends of the lines between inliers of confident matches, in thousandths of either photo."""
    assert run.pairs is not None
    queries, gallery = _Places(run, "queries"), _Places(run, "gallery")
    found: dict[tuple[int, int], list[int]] = {}
    for shard, inside in _by_shard(run, "gallery", chosen.matches):
        try:
            pairs = run.pairs.read(shard, ["query", "photo", "matches"])
            query, photo, matches = column(pairs, "query"), column(pairs, "photo"), ragged(pairs, "matches")
            for row, _ in inside:
                for one in chosen.matches[row]:
                    at = np.flatnonzero((query == one) & (photo == row))
                    if len(at):
                        some = _thinned(matches[int(at[0])])
                        ends = np.hstack([queries.of(one)[some[:, 0]], gallery.of(row)[some[:, 1]]])
                        found[one, row] = ends.ravel().tolist()
        except ShardError as error:
            drawn.lost[error.what] = None
    return found


def _thinned(matches: NDArray[Any]) -> NDArray[Any]:
    """Return no more matches than can be told apart, from all over the list."""
    some = np.unique(np.linspace(0, len(matches) - 1, min(len(matches), _LINES)).astype(int))
    return np.asarray(matches[some])


class _Places:
    """Where the local features of photos lie, in thousandths of width and height; keeps some shards."""

    def __init__(self, run: RunDatasets, role: Role) -> None:
        assert run.local is not None
        assert run.images is not None
        self.local, self.images = run.local.of(role), run.images.of(role)
        self.layout = run.layouts.of(role)
        self.shards: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = {}

    def of(self, row: int) -> NDArray[np.int32]:
        """Return (n, 2) x and y of a photo's features."""
        shard, inside = self.layout.place(row)
        if shard not in self.shards:
            if len(self.shards) == 8:
                self.shards.pop(next(iter(self.shards)))
            local = self.local.read(shard, ["photo", "xy"])
            sizes = self.images.read(shard, ["width", "height"])
            both = np.stack([column(sizes, "width"), column(sizes, "height")], axis=1)
            self.shards[shard] = column(local, "photo"), column(local, "xy"), both
        photo, xy, sizes_px = self.shards[shard]
        scaled = np.rint(1000 * xy[photo == row] / np.maximum(sizes_px[inside], 1))
        return np.asarray(scaled, np.int32)
