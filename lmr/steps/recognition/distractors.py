"""What photos without a landmark tell: which photos look like them, and which landmarks attract them."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.recognition import Evidence, background_similarity, landmark_frequency, name_landmarks
from lmr.runtime.settings import Seed, Settings
from lmr.runtime.steps import Cost, Each, Step, Whole, of_role
from lmr.steps.features.columns import Described
from lmr.steps.global_search.knn_graph import KnnGraph
from lmr.steps.recognition.labels import Labels, landmarks_of
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = [
    "BackgroundSettings",
    "FrequencySettings",
    "background",
    "background_shard",
    "frequency",
    "frequency_shard",
]

QUERIES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class BackgroundSettings(Settings):
    """Settings of `background`: how much a photo looks like those without a landmark."""

    nearest: Annotated[int, Ge(1), Le(1_000)] = 5
    """The mean is taken over so many of the most similar photos without a landmark."""
    sample: Annotated[int, Ge(1), Le(1_000_000)] = 10_000
    """Photos without a landmark that are looked at; of more, so many are drawn."""
    seed: Seed = 0
    """Of the draw."""


@dataclass(frozen=True, kw_only=True)
class FrequencySettings(Settings):
    """Settings of `frequency`: which landmarks attract photos that show none."""

    neighbours: Annotated[int, Ge(1), Le(1_000)] = 10
    """Neighbours of a photo without a landmark that may name one."""


def background(
    described: Described, gallery: Described, labels: Labels, settings: BackgroundSettings
) -> Step:
    """Declare how much photos look like those without a landmark: columns `photo` and `background`.

    Parameters
    ----------
    described
        The photos: those of the gallery, or the queries.
    gallery
        Where the photos without a landmark are.
    labels
        Which photos these are.
    settings
        The settings.
    """
    sample = min(settings.sample, gallery.rows)
    return Step(
        name=of_role("background", described.source),
        folder=f"background/{described.source.role}",
        make=background_shard,
        settings=settings,
        inputs={
            "described": Each(described.source),
            "gallery": Whole(gallery.source),
            "labels": labels.rows,
        },
        shards=described.shards,
        role=described.source.role,
        cost=Cost(
            rows=described.rows,
            bytes_per_row=12.0,
            # The sample as stored and as floats; the photos the same; a block of similarities, sorted.
            task_bytes=(sample + 2.0 * described.per_shard) * gallery.dimension * 6.0
            + 20.0 * sample * min(described.per_shard, QUERIES_AT_ONCE)
            + 12.0 * gallery.rows,
            work=described.rows,
            unit="vector",
            mapped_bytes=2.0 * gallery.rows * gallery.dimension,
        ),
    )


def background_shard(
    shard: int, settings: BackgroundSettings, *, described: Dataset, gallery: Dataset, labels: Dataset
) -> pa.Table:
    """Compare the photos of one shard with photos without a landmark."""
    rows = described.read(shard, ["photo", "descriptor"])
    photos, descriptors = column(rows, "photo"), to_float(column(rows, "descriptor"))
    plain = np.flatnonzero(landmarks_of(labels) < 0)
    if len(plain) > settings.sample:
        drawn = np.random.default_rng(settings.seed).choice(plain, settings.sample, replace=False)
        plain = np.sort(drawn)
    others = to_float(np.asarray(stack(gallery, "descriptor")[plain]))
    found = np.zeros(len(photos))
    for start in range(0, len(photos), QUERIES_AT_ONCE):
        block = slice(start, start + QUERIES_AT_ONCE)
        found[block] = background_similarity(descriptors[block] @ others.T, nearest=settings.nearest)
    return table({"photo": photos.astype(np.int32), "background": found})


def frequency(neighbours: KnnGraph, labels: Labels, settings: FrequencySettings) -> Step:
    """Declare which share of the photos without a landmark each landmark attracts: column `share`.

    Every photo without a landmark is named by its neighbours, as a query is; a row per landmark.
    """
    per_shard = rows_per_shard(neighbours.step)
    return Step(
        name="frequency",
        folder="frequency",
        make=frequency_shard,
        settings=settings,
        inputs={"neighbours": Whole(neighbours.step), "labels": labels.rows},
        shards=1,
        implied={"landmarks": labels.count},
        role="gallery",
        cost=Cost(
            rows=labels.count,
            bytes_per_row=16.0,
            # A shard of the graph, and its pairs as evidence, sorted.
            task_bytes=per_shard * (24.0 * neighbours.neighbours + 120.0 * settings.neighbours)
            + 12.0 * neighbours.step.rows
            + 32.0 * labels.count,
            work=neighbours.step.rows,
            unit="vector",
        ),
    )


def frequency_shard(
    shard: int, settings: FrequencySettings, *, neighbours: Dataset, labels: Dataset, landmarks: int
) -> pa.Table:
    """Name all photos without a landmark and count the names."""
    of_photo = landmarks_of(labels)
    counts, plain = np.zeros(landmarks), 0
    for i in range(neighbours.shards):
        rows = neighbours.read(i, ["photo", "ids", "sims"])
        kept = of_photo[column(rows, "photo")] < 0
        ids = column(rows, "ids")[kept][:, : settings.neighbours]
        sims = column(rows, "sims")[kept][:, : settings.neighbours]
        some = int(kept.sum())
        named = name_landmarks([_evidence(ids, sims)], of_photo, some)
        counts += landmark_frequency(named, landmarks) * some
        plain += some
    return table({"share": counts / max(plain, 1)})


def _evidence(ids: NDArray[np.int32], sims: NDArray[np.float32]) -> Evidence:
    rows, places = np.nonzero((ids >= 0) & (sims > 0))
    return Evidence(rows, ids[rows, places].astype(np.int64), sims[rows, places].astype(np.float64))
