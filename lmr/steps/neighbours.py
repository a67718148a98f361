"""The gallery's kNN graph, searched once and read by augmentation and diffusion."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.neighbours import top_k
from lmr.runtime.cache import stack
from lmr.runtime.limits import threads
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Source, Step, Whole
from lmr.runtime.tables import column, table

__all__ = ["NeighbourSettings", "find_neighbours", "neighbours_shard"]


@dataclass(frozen=True, kw_only=True)
class NeighbourSettings(Settings):
    """Settings of the kNN graph."""

    neighbours: Annotated[int, Ge(1)] = 50
    """Neighbours per gallery photo, itself not counted."""


def find_neighbours(described: Source, settings: NeighbourSettings) -> Step:
    """Declare the step that finds the nearest gallery photos of every gallery photo.

    Columns: `photo`, `ids` (gallery rows, -1 padded), `sims`.
    """
    return Step(
        name="neighbours",
        folder="neighbours",
        make=neighbours_shard,
        settings=settings,
        inputs={"described": Each(described), "gallery": Whole(described)},
        shards=described.shards,
        rows=described.rows,
        bytes_per_row=4.0 + 8.0 * settings.neighbours,
    )


def neighbours_shard(
    shard: int, settings: NeighbourSettings, *, described: Dataset, gallery: Dataset
) -> pa.Table:
    """Find the neighbours of the photos of one gallery shard, exactly."""
    rows = described.read(shard, ["photo", "descriptor"])
    photos = column(rows, "photo")
    sims, ids = top_k(
        to_float(column(rows, "descriptor")),
        [(0, stack(gallery, "descriptor"))],
        settings.neighbours,
        exclude_self_start=int(photos[0]),
        threads=threads(),
    )
    return table({"photo": photos, "ids": ids, "sims": sims})
