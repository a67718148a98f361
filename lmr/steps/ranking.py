"""Rankings: what every search step writes and every later step reads.

A row is a query: `query` (its row), `photos` (gallery rows, best first, padded with -1), `scores`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.diffusion.online import after_diffusion
from lmr.retrieval.expansion.expand import order_with_verified
from lmr.retrieval.expansion.fuse import add_evidence, chance_mass
from lmr.runtime.steps import Step
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset

__all__ = [
    "Ranked",
    "Ranking",
    "Reached",
    "merge",
    "pair_keys",
    "ranking_bytes",
    "ranks_in",
    "read_ranking",
    "with_head",
]


@dataclass(frozen=True)
class Ranked:
    """A step that ranks gallery photos for every query.

    Attributes
    ----------
    step
        Columns as of `Ranking`.
    depth
        How many photos it ranks per query.
    """

    step: Step
    depth: int

    @property
    def queries(self) -> int:
        """How many queries it ranks for."""
        return self.step.rows

    @property
    def per_shard(self) -> int:
        """Most queries of a shard."""
        return rows_per_shard(self.step)


def ranking_bytes(depth: int) -> float:
    """Return the size of a query's list: rows and scores."""
    return 4.0 + 8.0 * depth


Reached = tuple[NDArray[np.integer[Any]], NDArray[np.float64]]
"""The photos that diffusion from one query has reached, without repeats, and how much mass reached each."""


@dataclass(frozen=True)
class Ranking:
    """The ranked gallery photos of some queries.

    Attributes
    ----------
    queries
        (q,) int32 rows of the queries.
    photos
        (q, k) int32 gallery rows, best first; -1 where a list ends early.
    scores
        (q, k) float32; what they mean, and what stands at the head whatever its score, the step says.
    """

    queries: NDArray[np.int32]
    photos: NDArray[np.int32]
    scores: NDArray[np.float32]

    def table(self, **more: Any) -> pa.Table:
        """Return the rows to write, with further columns if given."""
        return table(
            {
                "query": self.queries.astype(np.int32),
                "photos": self.photos.astype(np.int32),
                "scores": self.scores.astype(np.float32),
                **more,
            }
        )


def pair_keys(query: NDArray[np.integer[Any]], photo: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return one number for each pair of a query's row and a photo's, by which pairs are looked up.

    Examples
    --------
    >>> pair_keys(np.array([0, 1]), np.array([5, 5])).tolist()
    [5, 4294967301]
    """
    return (query.astype(np.int64) << 32) | photo.astype(np.int64)


def read_ranking(dataset: Dataset, shard: int) -> Ranking:
    """Read one shard of a ranking."""
    rows = dataset.read(shard, ["query", "photos", "scores"])
    return Ranking(column(rows, "query"), column(rows, "photos"), column(rows, "scores"))


def ranks_in(listed: NDArray[np.int32], photos: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the ranks of photos in lists, row by row, from 1; 0 where a list does not hold one.

    Examples
    --------
    >>> ranks_in(np.array([[7, 5, -1]], np.int32), np.array([[5, 9, -1, 7]], np.int32))
    array([[2, 0, 0, 1]], dtype=int32)
    """
    ranks = np.zeros(photos.shape, np.int32)
    row, place = np.nonzero(listed >= 0)
    if not len(row):
        return ranks
    keys = pair_keys(row, listed[row, place])
    order = np.argsort(keys, kind="stable")
    wanted = pair_keys(np.arange(len(photos))[:, None], photos)
    at = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    found = (keys[order][at] == wanted) & (photos >= 0)
    ranks[found] = place[order[at[found]]] + 1
    return ranks


def with_head(
    order: NDArray[np.int32],
    scores: NDArray[np.float32],
    verified: NDArray[np.int32],
    inliers: NDArray[np.int32],
    depth: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Put one query's confident matches at the head of its list, and pad it to `depth`.

    Every photo keeps its score; a confident match that the search did not list gets the best one.
    """
    photos = np.full(depth, -1, np.int32)
    kept = np.zeros(depth, np.float32)
    listed = order_with_verified(order, verified, inliers, depth)
    score = dict(zip(order.tolist(), scores.tolist(), strict=True))
    best = max(score.values(), default=0.0)
    photos[: len(listed)] = listed
    kept[: len(listed)] = [score.get(photo, best) for photo in listed.tolist()]
    return photos, kept


def merge(
    expanded: Dataset, shard: int, reached: Sequence[Reached], weight: float | None, *, gallery_rows: int
) -> pa.Table:
    """Merge what diffusion has reached from each query of a shard into the ranking of step 4.

    With a weight, the logarithm of the mass is added to the scores; without, what was reached stands first,
    by mass. Photos that were not reached keep the order before, and confident matches the head.
    """
    before = read_ranking(expanded, shard)
    confident = column(expanded.read(shard, ["confident"]), "confident")
    photos, scores = np.full_like(before.photos, -1), np.zeros_like(before.scores)
    depth = photos.shape[1]
    for q, (listed, (found, mass)) in enumerate(zip(before.photos, reached, strict=True)):
        if weight is None:
            order = after_diffusion(found, mass, listed, depth)
            ranked = 1 - np.arange(len(order), dtype=np.float32) / depth
        else:
            chance = chance_mass(mass, gallery_rows)
            order, ranked = add_evidence(
                listed, before.scores[q], found, mass, background=chance, weight=weight, depth=depth
            )
        head = listed[: confident[q]]
        places = np.arange(len(head), dtype=np.int32)[::-1]
        photos[q], scores[q] = with_head(order, ranked, head, places, depth)
    return Ranking(before.queries, photos, scores).table()
