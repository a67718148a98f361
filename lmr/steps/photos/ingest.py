"""Ingest: photos of a folder into shards, each photo checked by decoding it once."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import PhotoError, StorageError
from lmr.features.decode import probe_photo
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Source, Step, concat
from lmr.steps.photos.listing import Photos
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset

__all__ = ["IngestSettings", "UsablePhotos", "ingest", "ingest_shard", "read_usable"]


@dataclass(frozen=True, kw_only=True)
class IngestSettings(Settings):
    """Settings of `ingest`."""

    photos_per_shard: Annotated[int, Ge(1)] = 128
    """Photos in a shard; 128 keeps two workers busy on a thousand photos, 1000 suits a million."""


def ingest(photos: Photos, settings: IngestSettings) -> Source:
    """Declare the step that reads photos into the dataset `images`, one per generation of photos.

    Each row is a photo: `photo` (its row), `id`, `image` (the file's bytes, as they are), `width` and
    `height` (upright, pixels), `reason` (empty, or why the photo cannot be used; such a row has no image).
    """
    return concat(_ingest(generation, settings) for generation in photos.generations())


def _ingest(photos: Photos, settings: IngestSettings) -> Step:
    return Step(
        name="ingest" if photos.name == "gallery" else f"ingest_{photos.name}",
        folder=f"images/{photos.name}",
        make=ingest_shard,
        settings=settings,
        inputs={"photos": photos.given(settings.photos_per_shard)},
        shards=-(-len(photos) // settings.photos_per_shard),
        rows=len(photos),
        bytes_per_row=_mean_size(photos),
        placement={"url": photos.url},
        check=partial(_check_reachable, storage.join(photos.url, photos.paths[0])),
    )


def ingest_shard(shard: int, settings: IngestSettings, *, photos: Dataset, url: str) -> pa.Table:
    """Read and check the photos of one shard."""
    count = settings.photos_per_shard
    listed = photos.read(0, rows=range(shard * count, (shard + 1) * count)).to_pydict()
    contents = storage.read_many([storage.join(url, path) for path in listed["path"]])
    rows = [_checked(content) for content in contents]
    return table(
        {
            "photo": np.asarray(listed["photo"], np.int32),
            "id": listed["id"],
            "image": pa.array([r[0] for r in rows], pa.large_binary()),
            "width": np.array([r[1] for r in rows], np.int32),
            "height": np.array([r[2] for r in rows], np.int32),
            "reason": [r[3] for r in rows],
        }
    )


@dataclass(frozen=True)
class UsablePhotos:
    """The photos of a shard that can be decoded.

    Attributes
    ----------
    photos
        (n,) int32 rows.
    images
        The bytes of each.
    sizes
        (height, width) of each, pixels, upright.
    """

    photos: NDArray[np.int32]
    images: list[bytes]
    sizes: list[tuple[int, int]]


def read_usable(images: Dataset, shard: int) -> UsablePhotos:
    """Read the photos of one shard of a dataset `images`, without those that have a reason against them."""
    rows = images.read(shard)
    good = rows.filter(pc.equal(rows.column("reason"), ""))
    sizes = zip(column(good, "height").tolist(), column(good, "width").tolist(), strict=True)
    return UsablePhotos(column(good, "photo"), good.column("image").to_pylist(), list(sizes))


def _checked(content: bytes | Exception) -> tuple[bytes, int, int, str]:
    if isinstance(content, Exception):
        return b"", 0, 0, f"cannot be read: {type(content).__name__}"
    try:
        width, height = probe_photo(content)
    except PhotoError as error:
        return b"", 0, 0, error.what
    return content, width, height, ""


def _check_reachable(url: str) -> None:
    """Refuse a worker that does not see the photos."""
    if not storage.exists(url):
        raise StorageError(
            "the photos are not where this worker looks for them",
            got=f"no file {url}",
            fix="give --gallery and --queries as every machine sees them: a mounted folder, or s3://bucket/prefix",
        )


def _mean_size(photos: Photos) -> float:
    return float(np.mean([int(stamp.split(" ")[0]) for stamp in photos.stamps]))
