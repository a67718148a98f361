"""Pairs of gallery photos to verify: each photo with its nearest ones, every pair once."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.steps.global_search.knn_graph import KnnGraph
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["PairSettings", "gallery_pairs", "gallery_pairs_shard"]


@dataclass(frozen=True, kw_only=True)
class PairSettings(Settings):
    """Settings of `gallery_pairs`."""

    neighbours: Annotated[int, Ge(1), Le(10_000)] = 20
    """Nearest photos that each photo is compared with, at most those of the kNN graph."""


def gallery_pairs(graph: KnnGraph, settings: PairSettings) -> Ranked:
    """Declare the step that pairs gallery photos; a ranking of each photo's nearest ones, by similarity.

    Of two photos that are among each other's nearest ones, the one with the smaller row lists the other.
    """
    depth = min(settings.neighbours, graph.neighbours)
    step = Step(
        name="gallery_pairs",
        folder="gallery_pairs",
        make=gallery_pairs_shard,
        settings=settings,
        inputs={"neighbours": Each(graph.step), "graph": Whole(graph.step)},
        shards=graph.step.shards,
        role="gallery",
        cost=Cost(
            rows=graph.step.rows,
            bytes_per_row=ranking_bytes(depth),
            # The lists of the shard, the lists of all photos that stand in them, and what is kept.
            task_bytes=rows_per_shard(graph.step) * (24.0 * graph.neighbours + 8.0 * depth * (depth + 6.0)),
            work=graph.step.rows,
            unit="vector",
            mapped_bytes=4.0 * graph.step.rows * graph.neighbours,
        ),
    )
    return Ranked(step, depth)


def gallery_pairs_shard(
    shard: int, settings: PairSettings, *, neighbours: Dataset, graph: Dataset
) -> pa.Table:
    """Pair the photos of one gallery shard."""
    rows = neighbours.read(shard, ["photo", "ids", "sims"])
    photos = column(rows, "photo")
    near = column(rows, "ids")[:, : settings.neighbours]
    sims = column(rows, "sims")[:, : settings.neighbours]
    back = stack(graph, "ids")[np.maximum(near, 0), : settings.neighbours]
    mutual = (back == photos[:, None, None]).any(axis=2)
    kept = (near >= 0) & ~(mutual & (near < photos[:, None]))
    # What is kept stands at the front, in the order before.
    order = np.argsort(~kept, axis=1, kind="stable")
    kept = np.take_along_axis(kept, order, axis=1)
    listed = np.where(kept, np.take_along_axis(near, order, axis=1), -1)
    scores = np.where(kept, np.take_along_axis(sims, order, axis=1), 0)
    return Ranking(photos, listed.astype(np.int32), scores.astype(np.float32)).table()
