"""Own descriptors in place of extracted ones: what a run was given, as every later step reads it."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.errors import LmrError
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Step
from lmr.steps.both import Both
from lmr.steps.features.columns import Described, described_table
from lmr.steps.features.own_files import Vectors
from lmr.steps.inputs import Inputs
from lmr.storage.arrow import column, ragged
from lmr.storage.datasets import Dataset

__all__ = ["OwnSettings", "own_descriptors", "own_shard"]


@dataclass(frozen=True, kw_only=True)
class OwnSettings(Settings):
    """Settings of own descriptors."""

    photos_per_shard: Annotated[int, Ge(1)] = 2_000
    """Photos whose vectors lie in a shard."""


def own_descriptors(inputs: Inputs, settings: OwnSettings) -> Both[Described]:
    """Declare the steps that bring own descriptors into shards.

    Columns: `photo`, `descriptor` (float16, unit; the first vector of the photo), `regions` (all of them).

    Raises
    ------
    LmrError
        If the run was given photos.
    """
    if inputs.vectors is None:
        raise LmrError(
            "this workflow searches descriptors, and there are none",
            got="photos",
            fix="give --gallery-descriptors and --query-descriptors, or run the workflow retrieval on photos",
        )
    return inputs.vectors.map(lambda side: _own(side, settings, inputs.search_device))


def _own(vectors: Vectors, settings: OwnSettings, searched_on: str) -> Described:
    each, dimension = vectors.most_per_photo, vectors.dimension
    step = Step(
        name="own_descriptors" if vectors.role == "gallery" else f"own_descriptors_{vectors.role}",
        folder=f"global/{vectors.role}",
        role=vectors.role,
        make=own_shard,
        settings=settings,
        inputs={"vectors": vectors.given(settings.photos_per_shard)},
        shards=-(-len(vectors) // settings.photos_per_shard),
        cost=Cost(
            rows=len(vectors),
            bytes_per_row=12.0 + 2.0 * dimension * (1 + each),
            # Vectors as read, cut by photo, joined again and as written.
            task_bytes=16.0 * min(settings.photos_per_shard, len(vectors)) * dimension * (1 + each),
            work=len(vectors),
            unit="vector",
        ),
    )
    return Described(step, dimension, each, searched_on)


def own_shard(shard: int, settings: OwnSettings, *, vectors: Dataset) -> pa.Table:
    """Copy the vectors of one shard's photos."""
    count = settings.photos_per_shard
    rows = vectors.read(0, rows=range(shard * count, (shard + 1) * count))
    regions = ragged(rows, "regions")
    values = regions.values.astype(np.float32)
    return described_table(
        column(rows, "photo"), values[regions.offsets[:-1]], [regions[i] for i in range(len(regions))]
    )
