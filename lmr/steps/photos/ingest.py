"""Ingest: photos of a folder into shards, each photo checked by decoding it once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError, PhotoError, StorageError
from lmr.features.decoding.decode import MAX_PIXELS, MAX_SCANS, MOST_PIXELS, MOST_SCANS
from lmr.features.decoding.process import MAX_SECONDS, inspect_apart
from lmr.runtime.settings import ADDED_LATER, Settings
from lmr.runtime.steps import Cost, Source, Step, concat
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, Photos
from lmr.steps.photos.names import piece_of
from lmr.storage.arrow import column, table, with_note
from lmr.storage.datasets import Dataset

__all__ = [
    "DECODED_BYTES",
    "IngestSettings",
    "UsablePhotos",
    "ingest",
    "ingest_one",
    "ingest_shard",
    "read_usable",
]

DECODED_BYTES = 4.0 * MAX_PIXELS
"""What the largest photo takes that is decoded at all."""


_BLOCK_BYTES = 128_000_000
_FEW = 3


@dataclass(frozen=True, kw_only=True)
class IngestSettings(Settings):
    """Settings of `ingest`."""

    photos_per_shard: Annotated[int, Ge(1), Le(1_000_000)] = PHOTOS_PER_SHARD
    """Photos in a shard; 128 keeps two workers busy on a thousand photos, 1000 suits a million."""

    max_bytes: Annotated[int, Ge(1_000), Le(2_000_000_000)] = field(default=256_000_000, metadata=ADDED_LATER)
    """Largest file that is read, bytes; larger ones are told and not used."""

    max_pixels: Annotated[int, Ge(1_000), Le(MOST_PIXELS)] = field(default=MAX_PIXELS, metadata=ADDED_LATER)
    """Largest photo that is decoded, pixels; larger ones are told and not used."""

    max_scans: Annotated[int, Ge(1), Le(MOST_SCANS)] = field(default=MAX_SCANS, metadata=ADDED_LATER)
    """Most scans of a progressive JPEG; cameras and web sites write 1 to 12."""

    max_seconds: Annotated[float, Ge(0.1), Le(3600)] = field(default=MAX_SECONDS, metadata=ADDED_LATER)
    """Most processor time that one photo's decoding may take, s."""


def ingest(photos: Photos, settings: IngestSettings) -> Source:
    """Declare the step that reads photos into the dataset `images`, one per generation of photos.

    Each row is a photo: `photo` (its row), `id` (its short name), `image` (the file's bytes, as they are),
    `width` and `height` (upright, pixels), `reason` (empty, or why the photo cannot be used; such a row has
    no image) and `note` (empty for most; what is not as it should be with a photo that is used, such as a
    missing end).

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
        placement={"url": photos.url, "moved": photos.moved},
        check=partial(_check_reachable, photos.piece(0).url),
    )


class _Row(NamedTuple):
    image: bytes = b""
    width: int = 0
    height: int = 0
    reason: str = ""
    note: str = ""


def ingest_shard(
    shard: int,
    settings: IngestSettings,
    *,
    photos: Dataset,
    url: str,
    moved: Mapping[str, str] = MappingProxyType({}),
) -> pa.Table:
    """Read and check the photos of one shard.

    Raises
    ------
    StorageError
        If photos cannot be read now: only what a file holds becomes a row.
    """
    count = settings.photos_per_shard
    listed = photos.read(0, rows=range(shard * count, (shard + 1) * count)).to_pydict()
    rows: list[_Row] = []
    unread: list[tuple[str, StorageError]] = []
    paths = [moved.get(path, path) for path in listed["path"]]
    for block in _blocks(listed["stamp"]):
        pieces = [piece_of(url, paths[i], listed["stamp"][i]) for i in block]
        contents = storage.read_outside(pieces, most_bytes=settings.max_bytes)
        for path, content in zip(paths[block.start : block.stop], contents, strict=True):
            if isinstance(content, StorageError):
                unread.append((path, content))
            elif not unread:  # a shard that fails needs no more rows
                rows.append(_checked(content, settings))
    if unread:
        raise _unread(unread, len(listed["path"]), url)
    return _photo_table(np.asarray(listed["photo"], np.int32), listed["id"], rows)


def ingest_one(content: bytes, settings: IngestSettings, *, name: str = "") -> pa.Table:
    """Check one photo that is given as bytes, and return it as the only row of a shard; as `ingest_shard`."""
    if len(content) > settings.max_bytes:
        row = _Row(reason=f"too large: {len(content):,} bytes, more than {settings.max_bytes:,}")
    else:
        row = _checked(content, settings)
    return _photo_table(np.zeros(1, np.int32), [name], [row])


def _photo_table(photos: NDArray[np.int32], ids: Sequence[str], rows: Sequence[_Row]) -> pa.Table:
    made = table(
        {
            "photo": photos,
            "id": ids,
            "image": pa.array([row.image for row in rows], pa.large_binary()),
            "width": np.array([row.width for row in rows], np.int32),
            "height": np.array([row.height for row in rows], np.int32),
            "reason": [row.reason for row in rows],
            "note": [row.note for row in rows],
        }
    )
    noted = sum(bool(row.note) for row in rows)
    # One sentence for all shards, so that it is told once.
    return with_note(made, "some photos lack their last rows; they are used (see `note`)") if noted else made


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


def _blocks(stamps: Sequence[str]) -> Iterator[range]:
    """Yield the photos' places in blocks of bounded size: so much is read at once, whatever a shard holds."""
    start, total = 0, 0
    for i, stamp in enumerate(stamps):
        size = _size(stamp)
        if i > start and total + size > _BLOCK_BYTES:
            yield range(start, i)
            start, total = i, 0
        total += size
    yield range(start, len(stamps))


def _checked(content: bytes | PhotoError, settings: IngestSettings) -> _Row:
    if isinstance(content, PhotoError):
        return _Row(reason=content.what)
    try:
        found = inspect_apart(
            content,
            max_pixels=settings.max_pixels,
            max_scans=settings.max_scans,
            max_seconds=settings.max_seconds,
        )
    except PhotoError as error:
        return _Row(reason=error.what)
    return _Row(content, found.width, found.height, note=found.note)


def _unread(unread: Sequence[tuple[str, StorageError]], count: int, url: str) -> StorageError:
    """Say which photos cannot be read now: how many, and the first five."""
    first = "; ".join(f"{path!r}: {error.got}" for path, error in unread[:5])
    fix = "make them readable, or take them out of the folder; then run the same command again"
    if len(unread) > _FEW:
        fix = f"is the folder mounted, and readable on every machine? {fix}"
    return StorageError(
        f"{len(unread)} of {count} photos of a shard cannot be read in {url}", got=first, fix=fix
    )


def _check_reachable(url: str) -> None:
    """Refuse a worker that does not see the photos."""
    if not storage.exists(url):
        raise StorageError(
            "the photos are not where this worker looks for them",
            got=f"no file {url}",
            fix="give --gallery and --queries as every machine sees them: a mounted folder, or s3://bucket/prefix",
        )


def _ingest_cost(photos: Photos) -> Cost:
    sizes = np.array([_size(stamp) for stamp in photos.stamps])
    per_shard = np.add.reduceat(sizes, np.arange(0, len(sizes), photos.per_shard))
    return Cost(
        rows=len(photos),
        bytes_per_row=float(sizes.mean()) + 40.0,
        # The files as they are read, in the table, in the shard and in what is sent; photos are decoded in a
        # process of their own.
        task_bytes=4.0 * float(per_shard.max()) + DECODED_BYTES,
        work=len(photos),
        unit="photo",
    )


def _size(stamp: str) -> int:
    return int(stamp.split(" ")[0])
