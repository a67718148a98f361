"""Step 3a, database-side augmentation: every gallery descriptor is averaged with its neighbours."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.global_search import augmentation as dba
from lmr.runtime.settings import Settings
from lmr.runtime.steps import PROCESS_BYTES, Each, Source, Step, Whole
from lmr.steps.sizes import dimension_of, rows_per_shard
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["AugmentSettings", "augment", "augment_shard"]


@dataclass(frozen=True, kw_only=True)
class AugmentSettings(Settings):
    """Settings of `augment`."""

    neighbours: Annotated[int, Ge(0)] = 2
    """Neighbours averaged in; 0 leaves the descriptors as they are."""
    alpha: Annotated[float, Ge(0)] = 3.0
    """Exponent of the similarity as weight; 0 is the plain mean."""


def augment(described: Source, neighbours: Step, settings: AugmentSettings) -> Step:
    """Declare the step that augments the gallery's descriptors: columns `photo`, `descriptor` (float16)."""
    return Step(
        name="augment",
        folder="augmented",
        make=augment_shard,
        settings=settings,
        inputs={"described": Each(described), "gallery": Whole(described), "neighbours": Each(neighbours)},
        shards=described.shards,
        rows=described.rows,
        bytes_per_row=4.0 + 2.0 * dimension_of(described),
        # Descriptors as stored, in float64 and as written; all lists of the shard are read, and few used.
        peak_bytes=PROCESS_BYTES + rows_per_shard(described) * (12.0 * dimension_of(described) + 16 * 50),
    )


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
