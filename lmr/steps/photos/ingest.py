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
from lmr.errors import LmrError, PhotoError, StorageError
from lmr.features.decode import MAX_PIXELS, probe_photo
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Source, Step, concat
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, Photos
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset

__all__ = ["DECODED_BYTES", "IngestSettings", "UsablePhotos", "ingest", "ingest_shard", "read_usable"]

DECODED_BYTES = 4.0 * MAX_PIXELS
"""What the largest photo takes that is decoded at all."""


@dataclass(frozen=True, kw_only=True)
class IngestSettings(Settings):
    """Settings of `ingest`."""

    photos_per_shard: Annotated[int, Ge(1)] = PHOTOS_PER_SHARD
    """Photos in a shard; 128 keeps two workers busy on a thousand photos, 1000 suits a million."""


def ingest(photos: Photos, settings: IngestSettings) -> Source:
    """Declare the step that reads photos into the dataset `images`, one per generation of photos.

    Each row is a photo: `photo` (its row), `id`, `image` (the file's bytes, as they are), `width` and
    `height` (upright, pixels), `reason` (empty, or why the photo cannot be used; such a row has no image).

    Raises
    ------
    LmrError
        If only descriptors of the photos are known.
    """
    if not all(photos.paths):
        raise LmrError(
            "this workflow needs photos",
            got=f"descriptors of the {photos.role}",
            fix="give --gallery and --queries, or run the workflow descriptors on them",
        )
    photos = photos.in_shards_of(settings.photos_per_shard)
    return concat(_ingest(generation, settings) for generation in photos.generations())


def _ingest(photos: Photos, settings: IngestSettings) -> Step:
    return Step(
        name="ingest" if photos.role == "gallery" else f"ingest_{photos.role}",
        folder=f"images/{photos.role}",
        role=photos.role,
        make=ingest_shard,
        settings=settings,
        inputs={"photos": photos.given()},
        shards=photos.shards,
        cost=_ingest_cost(photos),
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


def _ingest_cost(photos: Photos) -> Cost:
    sizes = np.array([int(stamp.split(" ")[0]) for stamp in photos.stamps])
    per_shard = np.add.reduceat(sizes, np.arange(0, len(sizes), photos.per_shard))
    return Cost(
        rows=len(photos),
        bytes_per_row=float(sizes.mean()) + 40.0,
        # The files as they are read, in the table, in the shard and in what is sent; one photo decoded.
        task_bytes=4.0 * float(per_shard.max()) + DECODED_BYTES,
        work=len(photos),
        unit="photo",
    )
