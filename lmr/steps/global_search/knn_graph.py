"""The gallery's kNN graph, searched once and read by augmentation and diffusion."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import PROCESS_BYTES, Each, Source, Step, Whole
from lmr.steps.global_search.search import KnnSettings, index_if_large, search_gallery
from lmr.steps.sizes import dimension_of, opening_bytes, rows_per_shard
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["NeighbourSettings", "find_neighbours", "neighbours_shard"]


@dataclass(frozen=True, kw_only=True)
class NeighbourSettings(KnnSettings):
    """Settings of the kNN graph."""

    neighbours: Annotated[int, Ge(1)] = 50
    """Neighbours per gallery photo, itself not counted."""


def find_neighbours(described: Source, settings: NeighbourSettings) -> Step:
    """Declare the step that finds the nearest gallery photos of every gallery photo.

    Columns: `photo`, `ids` (gallery rows, -1 padded), `sims`.
    """
    index = index_if_large(described, settings)
    return Step(
        name="neighbours",
        folder="neighbours",
        make=neighbours_shard,
        settings=settings,
        inputs={
            "described": Each(described),
            "gallery": Whole(described),
            **index,
        },
        shards=described.shards,
        rows=described.rows,
        bytes_per_row=4.0 + 8.0 * settings.neighbours,
        # Descriptors as stored and as floats; lists as found, sorted and written.
        peak_bytes=PROCESS_BYTES
        + opening_bytes(index)
        + rows_per_shard(described) * (12 * dimension_of(described) + 40 * settings.neighbours),
    )


def neighbours_shard(
    shard: int,
    settings: NeighbourSettings,
    *,
    described: Dataset,
    gallery: Dataset,
    index: Dataset | None = None,
) -> pa.Table:
    """Find the neighbours of the photos of one gallery shard."""
    rows = described.read(shard, ["photo", "descriptor"])
    photos = column(rows, "photo")
    sims, ids = search_gallery(
        to_float(column(rows, "descriptor")),
        stack(gallery, "descriptor"),
        index,
        settings.neighbours,
        exclude_self_start=int(photos[0]),
    )
    return table({"photo": photos, "ids": ids, "sims": sims})
