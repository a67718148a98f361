"""A query's lists, shard by shard: which photos each stage found, and what verification said of them.

Matches, the report and the sentences on the screen read a run through this, also one that is not finished: a
shard's last list is that of the last stage that has made it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.steps.both import Both
from lmr.steps.ranking import Ranking, ranks_in, read_ranking
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.arrow import column

__all__ = ["QueryLists", "RunLists"]


@dataclass(frozen=True, eq=False)
class QueryLists:
    """The lists of the queries of one shard.

    Attributes
    ----------
    queries
        (q,) int32 rows of the queries.
    stages
        The ranking after each stage that is there, in order.
    inliers
        (q, k) int32, one for each photo of the last list; 0 where a pair was not verified. None without
        verification.
    confident
        (q, k) bool, whether the pair has more inliers than the threshold; None without verification.
    probability
        (q, k) float32, that the photo shows the query's landmark; None without a calibration.
    """

    queries: NDArray[np.int32]
    stages: dict[str, Ranking]
    inliers: NDArray[np.int32] | None = None
    confident: NDArray[np.bool_] | None = None
    probability: NDArray[np.float32] | None = None

    @property
    def last(self) -> Ranking:
        """The list after the last stage."""
        return list(self.stages.values())[-1]

    @cached_property
    def ranks(self) -> dict[str, NDArray[np.int32]]:
        """Stage to (q, k) ranks of the last list's photos after it, from 1; 0 where it does not list one."""
        return {name: ranks_in(ranking.photos, self.last.photos) for name, ranking in self.stages.items()}

    @cached_property
    def brought_by(self) -> NDArray[np.int8]:
        """(q, k) the number of the first stage whose list holds each photo of the last list."""
        listed = np.stack(list(self.ranks.values())) > 0
        return np.asarray(np.argmax(listed, axis=0), np.int8)


class RunLists:
    """The lists of a run, and the names of its photos.

    Parameters
    ----------
    run
        The datasets of the run; shards that are not there yet are left out.
    """

    def __init__(self, run: RunDatasets) -> None:
        self.run = run

    @cached_property
    def photos(self) -> Both[pa.Table]:
        """The photos of each side in order of their rows: columns `id`, `path`."""
        return self.run.photos.map(lambda photos: photos.read(0, ["id", "path"]))

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The stages of which at least one shard is there, in order."""
        return tuple(name for name in self.run.rankings if self._present[name])

    @cached_property
    def _present(self) -> dict[str, set[int]]:
        return {name: set(ranking.present()) for name, ranking in self.run.rankings.items()}

    @cached_property
    def _probable(self) -> set[int]:
        return set(self.run.probable.present()) if self.run.probable else set()

    def __iter__(self) -> Iterator[QueryLists]:
        for shard in range(max(ranking.shards for ranking in self.run.rankings.values())):
            names = [name for name, present in self._present.items() if shard in present]
            if names:
                yield self._read(shard, names)

    def _read(self, shard: int, names: list[str]) -> QueryLists:
        stages = {name: read_ranking(self.run.rankings[name], shard) for name in names}
        lists = QueryLists(next(iter(stages.values())).queries, stages)
        # A calibration speaks of the last stage's list, and of no list before it.
        if self.run.probable is not None and shard in self._probable and list(self.run.rankings)[-1] in names:
            said = column(self.run.probable.read(shard, ["probability"]), "probability")
            lists = replace(lists, probability=said[:, : lists.last.photos.shape[1]])
        if self.run.verified not in names:
            return lists
        verified = self.run.rankings[self.run.verified].read(shard, ["inliers", "confident"])
        at = lists.ranks[self.run.verified]
        inliers = np.take_along_axis(column(verified, "inliers"), np.maximum(at - 1, 0), axis=1)
        confident = (at > 0) & (at <= column(verified, "confident")[:, None])
        return replace(lists, inliers=np.where(at > 0, inliers, 0).astype(np.int32), confident=confident)
