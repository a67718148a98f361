"""How inliers and right photos are spread over the final lists of a run, added up shard by shard."""

from collections.abc import Mapping, Sequence

import numpy as np

from lmr.steps.results.matches.lists import QueryLists

__all__ = ["RECALL_AT", "Spreads"]

RECALL_AT = (1, 5, 10, 20, 50, 100)
"""Lengths of the beginning of a list in which right photos are looked for."""

_EDGES = (0, 1, 6, 11, 21, 51, np.inf)
_LABELS = ("none", "1 to 5", "6 to 10", "11 to 20", "21 to 50", "more than 50")


class Spreads:
    """Counts photos by their inliers, and right photos among the first of each list.

    Parameters
    ----------
    ids
        The queries' ids, by row.
    right
        The gallery rows that the solution names for each query, by its id; None without a solution.
    """

    def __init__(self, ids: Sequence[str], right: Mapping[str, set[int]] | None) -> None:
        self.ids, self.right = ids, right
        self.counts = np.zeros(len(_LABELS), np.int64)
        self.recalls = np.zeros(len(RECALL_AT))
        self.queries = 0

    def add(self, part: QueryLists) -> None:
        """Add the lists of a shard."""
        photos = part.last.photos
        if part.inliers is not None:
            self.counts += np.histogram(part.inliers[photos >= 0], bins=_EDGES)[0]
        for i, row in enumerate(part.queries.tolist()) if self.right is not None else ():
            assert self.right is not None
            if wanted := self.right.get(self.ids[row]):
                found = np.cumsum(np.isin(photos[i], list(wanted)))
                ends = np.minimum(RECALL_AT, len(found)) - 1
                self.recalls += found[ends] / len(wanted) if len(found) else 0.0
                self.queries += 1

    @property
    def inliers(self) -> list[tuple[str, int]]:
        """Photos of the final lists by their inliers; empty without verification."""
        return list(zip(_LABELS, self.counts.tolist(), strict=True)) if self.counts.any() else []

    @property
    def recall(self) -> list[tuple[str, float]]:
        """Share of a query's right photos among its first k, in the mean; empty without a solution."""
        means = (self.recalls / max(self.queries, 1)).tolist()
        return (
            [(f"first {k}", mean) for k, mean in zip(RECALL_AT, means, strict=True)] if self.queries else []
        )
