"""Where the right photos stand in ranked lists, and every measure that follows from it.

A list is read once, into the ranks of its hits. A measure is then a few operations on arrays over all
queries. Each measure is NaN for a query without a right photo.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hits", "KnownRanks", "find_hits"]

PerQuery = NDArray[np.float64]

FEW_HITS = 8  # that are quicker looked up one by one than by walking along the list


@dataclass(frozen=True)
class KnownRanks:
    """A ranked list of which nothing is known but where its right photos stand; none is repeated.

    Attributes
    ----------
    ranks
        From 1, ascending.
    """

    ranks: list[int]


@dataclass(frozen=True, eq=False)
class Hits:
    """The hits of all queries, one after the other.

    Attributes
    ----------
    query
        (h,) int64, the row of the query that each hit belongs to, ascending.
    rank
        (h,) int64, the rank of each hit from 1, junk not counted; ascending within a query.
    relevant
        (q,) int64, the number of right photos of each query.
    """

    query: NDArray[np.int64]
    rank: NDArray[np.int64]
    relevant: NDArray[np.int64]

    def precision_sum(self, k: int) -> PerQuery:
        """Return the sum, over the hits among the first k, of the precision at each hit."""
        return self._per_query(np.where(self.rank <= k, self._order / self.rank, 0.0))

    def average_precision(self, k: int) -> PerQuery:
        """Return `precision_sum` over min(right photos, k), as Kaggle has it."""
        return self._over(self.precision_sum(k), np.minimum(self.relevant, k))

    def average_precision_over_all(self, k: int) -> PerQuery:
        """Return `precision_sum` over all right photos, as trec_eval's `map_cut` has it."""
        return self._over(self.precision_sum(k), self.relevant)

    def area(self) -> PerQuery:
        """Return the area under precision over recall by trapezoids, as the Oxford protocols have it."""
        # Before rank 1 nothing has been shown; precision there is defined as 1.
        before = np.where(self.rank == 1, 1.0, (self._order - 1) / np.maximum(self.rank - 1, 1))
        return self._over(self._per_query(before + self._order / self.rank), 2 * self.relevant)

    def recall(self, k: int) -> PerQuery:
        """Return the share of the right photos that stand among the first k."""
        return self._over(self._within(k), self.relevant)

    def precision(self, k: int) -> PerQuery:
        """Return the hits among the first k over k, also where a list is shorter than k."""
        return self._over(self._within(k), np.full(len(self.relevant), k))

    def precision_to_last_hit(self, k: int) -> PerQuery:
        """Return the precision over the first min(k, rank of the last hit), as revisitop's mP@k has it."""
        # A list that ends with its last hit is not blamed for the places it has no photos to fill.
        last = np.zeros(len(self.relevant), np.int64)
        np.maximum.at(last, self.query, self.rank)
        return self._over(self._within(k), np.clip(last, 1, k))

    def hit_rate(self, k: int) -> PerQuery:
        """Return 1 where at least one right photo stands among the first k, else 0."""
        return self._over((self._within(k) > 0).astype(float), np.ones(len(self.relevant)))

    @property
    def _order(self) -> NDArray[np.int64]:
        """(h,) the number of each hit within its query, from 1."""
        first = np.searchsorted(self.query, self.query)
        order: NDArray[np.int64] = np.arange(1, len(self.query) + 1) - first
        return order

    def _within(self, k: int) -> PerQuery:
        return self._per_query((self.rank <= k).astype(float))

    def _per_query(self, values: PerQuery) -> PerQuery:
        # bincount adds in the order of the hits, so that a score does not depend on the other queries.
        sums = np.bincount(self.query, weights=values, minlength=len(self.relevant))
        return sums.astype(np.float64)

    def _over(self, values: PerQuery, denominators: NDArray[Any]) -> PerQuery:
        share: PerQuery = np.where(self.relevant > 0, values / np.maximum(denominators, 1), np.nan)
        return share


def find_hits(
    rankings: Iterable[Sequence[Any] | KnownRanks],
    right: Sequence[Collection[Any]],
    junk: Sequence[Collection[Any]] | None = None,
    *,
    repeats_count: bool = False,
) -> Hits:
    """Find the right photos in ranked lists.

    Parameters
    ----------
    rankings
        A list of ids per query, best first; or what is known of it, where there is no junk.
    right
        The ids of the right photos of each query. An id that stands there twice is counted twice in
        `Hits.relevant`.
    junk
        Per query the ids that are taken out of the list before ranks are counted; None for no junk.
    repeats_count
        Whether a right photo that a list repeats counts again each time. Otherwise its repeats earn nothing;
        in both cases they use up their ranks.

    Examples
    --------
    >>> hits = find_hits([["j", "a", "x", "b"]], [["a", "b", "c"]], [["j"]])
    >>> hits.rank, hits.recall(3)
    (array([1, 3]), array([0.66666667]))
    """
    rows: list[int] = []
    ranks: list[int] = []
    for row, (ranking, relevant) in enumerate(zip(rankings, right, strict=True)):
        if isinstance(ranking, KnownRanks):
            rows.extend([row] * len(ranking.ranks))
            ranks.extend(ranking.ranks)
            continue
        wanted = frozenset(relevant)
        there = wanted.intersection(ranking)
        if not there:
            continue
        if not repeats_count and len(there) <= FEW_HITS:
            found = sorted(ranking.index(photo) + 1 for photo in there)
        else:
            found = [rank for rank, photo in enumerate(ranking, 1) if photo in there]
        if not repeats_count and len(found) > len(there):
            # A dictionary keeps what was put first: reversed, each photo keeps its best rank.
            found = sorted({ranking[rank - 1]: rank for rank in reversed(found)}.values())
        if junk is not None and len(junk[row]) > 0:
            ignored = frozenset(junk[row])
            places = [rank for rank, photo in enumerate(ranking, 1) if photo in ignored]
            found = [rank - bisect_left(places, rank) for rank in found]
        rows.extend([row] * len(found))
        ranks.extend(found)
    counts = np.fromiter(map(len, right), np.int64, len(right))
    return Hits(np.array(rows, np.int64), np.array(ranks, np.int64), counts)
