"""Step 3a, database-side augmentation: every gallery descriptor is averaged with its neighbours."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.global_search import augmentation as dba
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.steps.features.columns import Described
from lmr.steps.global_search.knn_graph import KnnGraph
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["AugmentSettings", "augment", "augment_shard"]


@dataclass(frozen=True, kw_only=True)
class AugmentSettings(Settings):
    """Settings of `augment`."""

    neighbours: Annotated[int, Ge(0), Le(10_000)] = 2
    """Neighbours averaged in; 0 leaves the descriptors as they are."""
    alpha: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of the similarity as weight; 0 is the plain mean."""


def augment(described: Described, graph: KnnGraph, settings: AugmentSettings) -> Described:
    """Declare the step that augments the gallery's descriptors: columns `photo`, `descriptor` (float16)."""
    step = Step(
        name="augment",
        folder="augmented",
        make=augment_shard,
        settings=settings,
        inputs={
            "described": Each(described.source),
            "gallery": Whole(described.source),
            "neighbours": Each(graph.step),
        },
        shards=described.shards,
        role="gallery",
        cost=Cost(
            rows=described.rows,
            bytes_per_row=8.0 + 2.0 * described.dimension,
            # Descriptors as stored, in float64 and as written; all lists of the shard are read, and few used.
            task_bytes=described.per_shard * (24.0 * described.dimension + 20.0 * graph.neighbours),
            work=described.rows * (1 + settings.neighbours),
            unit="vector",
            mapped_bytes=2.0 * described.rows * described.dimension,
        ),
    )
    return Described(step, described.dimension, searched_on=described.searched_on)


def augment_shard(
    shard: int, settings: AugmentSettings, *, described: Dataset, gallery: Dataset, neighbours: Dataset
) -> pa.Table:
    """Augment the descriptors of one gallery shard."""
    rows = described.read(shard, ["photo", "descriptor"])
    lists = neighbours.read(shard, ["ids", "sims"])
    k = settings.neighbours
    averaged = dba.augment_descriptors(
        column(rows, "descriptor"),
        column(lists, "ids")[:, :k],
        column(lists, "sims")[:, :k],
        stack(gallery, "descriptor"),
        alpha=settings.alpha,
    )
    return table({"photo": column(rows, "photo"), "descriptor": averaged.astype(np.float16)})
