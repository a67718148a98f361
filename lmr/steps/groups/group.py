"""Groups of gallery photos that show the same place, from the pairs that were verified."""

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.grouping import group_photos
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Step, Whole
from lmr.steps.groups.candidates import PairSettings
from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["GroupSettings", "GroupsSettings", "group", "group_shard"]


@dataclass(frozen=True, kw_only=True)
class GroupSettings(Settings):
    """Settings of `group`; the default is chosen on development photos, for RootSIFT."""

    min_inliers: Annotated[int, Ge(0), Le(65_535)] = 20
    """A pair with more inliers shows the same place."""
    support: bool = True
    """Whether groups are joined only by pairs that a third photo supports; else one wrong pair joins two
    places."""


@dataclass(frozen=True, kw_only=True)
class GroupsSettings:
    """Settings of the steps that `lmr group` adds to a run."""

    gallery_pairs: PairSettings = field(default_factory=PairSettings)
    group: GroupSettings = field(default_factory=GroupSettings)


def group(pairs: Step, photos: int, settings: GroupSettings) -> Step:
    """Declare the step that groups the gallery's photos; a row per photo, in one shard.

    Columns: `photo` (its row), `group` (0 is the largest; -1: the photo is alone), `links` (pairs with photos
    of its group), `inliers` (the most of them).

    Parameters
    ----------
    pairs
        Verified pairs of gallery photos.
    photos
        How many there are.
    settings
        The settings.
    """
    return Step(
        name="group",
        folder="grouped",
        make=group_shard,
        settings=settings,
        inputs={"pairs": Whole(pairs)},
        implied={"photos": photos},
        shards=1,
        role="gallery",
        cost=Cost(
            rows=photos,
            bytes_per_row=16.0,
            # Pairs as found, sorted, as a graph in both directions, and the square of a block of its rows.
            task_bytes=200.0 * pairs.rows + 100.0 * photos,
            work=pairs.rows,
            unit="pair",
            mapped_bytes=12.0 * pairs.rows,
        ),
    )


def group_shard(shard: int, settings: GroupSettings, *, pairs: Dataset, photos: int) -> pa.Table:
    """Group all photos."""
    sure = np.flatnonzero(np.asarray(stack(pairs, "inliers")) > settings.min_inliers)
    first, second, inliers = (np.asarray(stack(pairs, n))[sure] for n in ("query", "photo", "inliers"))
    groups = group_photos(first, second, inliers, photos, support=settings.support)
    inside = (groups[first] == groups[second]) & (groups[first] >= 0)
    ends = np.concatenate([first[inside], second[inside]])
    most = np.zeros(photos, np.int32)
    np.maximum.at(most, ends, np.concatenate([inliers[inside]] * 2).astype(np.int32))
    return table(
        {
            "photo": np.arange(photos, dtype=np.int32),
            "group": groups,
            "links": np.bincount(ends, minlength=photos).astype(np.int32),
            "inliers": most,
        }
    )
