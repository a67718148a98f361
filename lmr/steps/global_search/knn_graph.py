"""The gallery's kNN graph, searched once and read by augmentation and diffusion."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Cost, Each, Step
from lmr.steps.features.columns import Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.global_search.search import KnnSettings, search_gallery, searchable
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["KnnGraph", "NeighbourSettings", "find_neighbours", "neighbours_shard"]


@dataclass(frozen=True, kw_only=True)
class NeighbourSettings(KnnSettings):
    """Settings of the kNN graph."""

    neighbours: Annotated[int, Ge(1), Le(10_000)] = 50
    """Neighbours per gallery photo, itself not counted."""


@dataclass(frozen=True)
class KnnGraph:
    """The nearest gallery photos of every gallery photo.

    Attributes
    ----------
    step
        Columns `photo`, `ids` (gallery rows, -1 padded), `sims`.
    neighbours
        Length of a photo's list.
    searched
        What was searched for them, and how: a larger graph is searched in the same way.
    """

    step: Step
    neighbours: int
    searched: "NeighbourSettings"


def find_neighbours(described: Described, settings: NeighbourSettings) -> KnnGraph:
    """Declare the step that finds the nearest gallery photos of every gallery photo."""
    gallery = searchable(described, settings)
    found = gallery.cost(described.per_shard, settings.neighbours)
    step = Step(
        name="neighbours",
        folder="neighbours",
        make=neighbours_shard,
        settings=settings,
        inputs={"described": Each(described.source), **gallery.inputs()},
        **gallery.where(),
        shards=described.shards,
        role="gallery",
        cost=Cost(
            rows=described.rows,
            bytes_per_row=4.0 + 8.0 * settings.neighbours,
            task_bytes=found.task_bytes,
            work=described.rows,
            unit="vector",
            mapped_bytes=found.mapped_bytes,
        ),
    )
    return KnnGraph(step, settings.neighbours, settings)


def neighbours_shard(
    shard: int,
    settings: NeighbourSettings,
    *,
    described: Dataset,
    gallery: Dataset,
    index: Dataset | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Find the neighbours of the photos of one gallery shard."""
    rows = described.read(shard, ["photo", "descriptor"])
    photos = column(rows, "photo")
    exact = ExactSearch(device)
    sims, ids = search_gallery(
        to_float(column(rows, "descriptor")),
        stack(gallery, "descriptor"),
        index,
        settings.neighbours,
        exact,
        exclude_self_start=int(photos[0]),
    )
    return exact.told(table({"photo": photos, "ids": ids, "sims": sims}))
