"""The columns that every global descriptor is stored as, and what steps know of a described set of photos."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.runtime.steps import Cost, Source, Step
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import Ragged, table

__all__ = ["GRID_REGIONS", "PHOTO_REGIONS", "Described", "describe_cost", "described_table", "present"]

GRID_REGIONS = 20
"""Cells of the R-MAC grid of a 4:3 photo at three scales."""

PHOTO_REGIONS = 1 + GRID_REGIONS
"""Regions of a photo: the whole of it, and the cells."""


@dataclass(frozen=True)
class Described:
    """Photos with one global descriptor each.

    Attributes
    ----------
    source
        Has the columns `photo` and `descriptor`, and `regions` where it was made of photos.
    dimension
        Numbers in a descriptor.
    regions
        Most regions of a photo, where it has that column.
    searched_on
        Where exact searches among them run, see `Inputs.search_device`.
    """

    source: Source
    dimension: int
    regions: int = PHOTO_REGIONS
    searched_on: str = "cpu"

    @property
    def rows(self) -> int:
        """How many photos they are."""
        return self.source.rows

    @property
    def shards(self) -> int:
        """How many shards they lie in."""
        return self.source.shards

    @property
    def per_shard(self) -> int:
        """Most photos of a shard."""
        return rows_per_shard(self.source)


def describe_cost(images: Step, dimension: int, held_bytes: float) -> Cost:
    """Return the cost of describing photos: their descriptors as found and as written, and what else is held.

    Parameters
    ----------
    images
        The photos, or what was made of each.
    dimension
        Numbers in a descriptor.
    held_bytes
        What a task holds besides.
    """
    row_bytes = 12.0 + 2.0 * dimension * (1 + PHOTO_REGIONS)
    return Cost(
        rows=images.rows,
        bytes_per_row=row_bytes,
        task_bytes=held_bytes + 6.0 * row_bytes * rows_per_shard(images),
        work=images.rows,
        unit="photo",
    )


def present(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop zero rows: regions without features, photos without descriptor."""
    return vectors[np.any(vectors != 0, axis=1)]


def described_table(
    photos: NDArray[np.int32], vectors: NDArray[np.float32], regions: list[NDArray[np.float32]]
) -> pa.Table:
    """Return the rows to write: columns `photo`, `descriptor`, `regions` (a list per photo), as float16."""
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in regions])]).astype(np.int64)
    lists = Ragged(np.concatenate(regions).astype(np.float16), offsets)
    return table({"photo": photos, "descriptor": vectors.astype(np.float16), "regions": lists})
