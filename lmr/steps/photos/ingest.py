"""Ingest: photos of a folder into shards, each photo checked by decoding it once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
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
from lmr.steps.photos.digests import OtherBytes, check_digests
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, Photos
from lmr.steps.photos.names import piece_of, url_of
from lmr.steps.photos.web import WebSettings
from lmr.storage.arrow import column, table, with_note
from lmr.storage.datasets import Dataset
from lmr.storage.web import MayPass, fetch, is_web
from lmr.text import printable

__all__ = [
    "DECODED_BYTES",
    "MAY_PASS",
    "IngestSettings",
    "UsablePhotos",
    "checked",
    "contents",
    "ingest",
    "ingest_one",
    "ingest_shard",
    "read_usable",
    "with_notes",
]

DECODED_BYTES = 4.0 * MAX_PIXELS
"""What the largest photo takes that is decoded at all."""

WEB_SHARD_BYTES = 256_000_000
"""Most bytes of photos from the web in a shard unless `ingest.shard_bytes` says otherwise.

Their sizes are not known before, and a task must keep the memory that it states.
"""

MAY_PASS = "another try may succeed: lmr retry"
"""The note of a photo that is not used for a reason that may pass."""

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

    web_max_bytes: Annotated[int, Ge(1_000), Le(256_000_000)] = field(
        default=16_000_000, metadata=ADDED_LATER
    )
    """Largest photo that is fetched from a web address, bytes; larger ones are told and not used."""

    shard_bytes: Annotated[int, Ge(0), Le(100_000_000_000)] = field(default=0, metadata=ADDED_LATER)
    """Most bytes of photos in a shard, so that large ones lie in smaller shards; 0: any number of bytes."""

    max_side_px: Annotated[int, Ge(0), Le(100_000)] = field(default=0, metadata=ADDED_LATER)
    """Shrink larger photos to this long side and keep them as JPEG, which saves storage; 0: as they are."""


def ingest(photos: Photos, settings: IngestSettings, web: WebSettings | None = None) -> Source:
    """Declare the step that reads photos into the dataset `images`, one per generation of photos.

    Each row is a photo: `photo` (its row), `id` (its short name), `image` (the file's bytes, as they are),
    `width` and `height` (upright, pixels), `reason` (empty, or why the photo cannot be used; such a row has
    no image) and `note` (empty for most; what is not as it should be with a photo that is used, such as a
    missing end; or that another try may succeed with one that is not used).

    Parameters
    ----------
    photos
        The photos.
    settings
        Settings of the step.
    web
        How photos at web addresses are fetched; None: as the defaults say.

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
    photos = photos.in_shards_of(settings.photos_per_shard, settings.shard_bytes)
    return concat(_ingest(generation, settings, web or WebSettings()) for generation in photos.generations())


def _ingest(photos: Photos, settings: IngestSettings, web: WebSettings) -> Step:
    settings = replace(settings, photos_per_shard=photos.per_shard)  # less where shards are bounded by bytes
    pieces = (photos.piece(row).url for row in range(len(photos)))
    first = next((url for url in pieces if not is_web(url)), None)
    on_web = any(_is_on_web(photos.url, path) for path in photos.paths)
    return Step(
        name="ingest" if photos.role == "gallery" else f"ingest_{photos.role}",
        folder=f"images/{photos.role}",
        role=photos.role,
        make=ingest_shard,
        settings=settings,
        inputs={"photos": photos.given()},
        shards=photos.shards,
        cost=_ingest_cost(photos, settings, web),
        placement={"url": photos.url, "moved": photos.moved, **({"web": web} if on_web else {})},
        check=None if first is None else partial(_check_reachable, first),
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
    web: WebSettings | None = None,
) -> pa.Table:
    """Read and check the photos of one shard.

    Raises
    ------
    StorageError
        If photos cannot be read now: only what a file holds becomes a row.
    """
    count = settings.photos_per_shard
    listed = photos.read(0, rows=range(shard * count, (shard + 1) * count)).to_pydict()
    paths = [moved.get(path, path) for path in listed["path"]]
    rows: list[_Row] = []
    unread: list[tuple[str, StorageError]] = []
    for i, content in contents(url, paths, listed["stamp"], settings, web or WebSettings()):
        if isinstance(content, StorageError):
            unread.append((paths[i], content))
        elif not unread:  # a shard that fails needs no more rows
            rows.append(checked(content, listed["stamp"][i], settings))
    if unread:
        raise _unread(unread, len(paths), url)
    if web is not None:
        rows = _within(
            settings.shard_bytes or WEB_SHARD_BYTES, rows, [_is_on_web(url, path) for path in paths]
        )
    return _photo_table(np.asarray(listed["photo"], np.int32), listed["id"], rows)


def ingest_one(content: bytes, settings: IngestSettings, *, name: str = "") -> pa.Table:
    """Check one photo that is given as bytes, and return it as the only row of a shard; as `ingest_shard`."""
    if len(content) > settings.max_bytes:
        row = _Row(reason=f"too large: {len(content):,} bytes, more than {settings.max_bytes:,}")
    else:
        row = checked(content, "", settings)
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
    return with_notes(made, [row.reason for row in rows], [row.note for row in rows])


def with_notes(made: pa.Table, reasons: Sequence[str], notes: Sequence[str]) -> pa.Table:
    """Return a shard of photos with the sentences that its rows give rise to."""
    # One sentence for all shards, so that it is told once.
    pairs = list(zip(reasons, notes, strict=True))
    told = []
    if any(note and not reason for reason, note in pairs):
        told.append("some photos lack their last rows; they are used (see `note`)")
    if MAY_PASS in notes:
        told.append("some photos could not be had, and another try may succeed: lmr retry RUN")
    return with_note(made, "; ".join(told)) if told else made


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


def contents(
    url: str, paths: Sequence[str], stamps: Sequence[str], settings: IngestSettings, web: WebSettings
) -> Iterator[tuple[int, bytes | PhotoError | StorageError]]:
    """Yield each photo's place and bytes, or why they cannot be had; the next come in meanwhile."""
    pieces = [piece_of(url, path, stamp) for path, stamp in zip(paths, stamps, strict=True)]
    on_web = [is_web(piece.url) and piece.size is None for piece in pieces]
    addresses = [piece.url for piece, far in zip(pieces, on_web, strict=True) if far]
    with closing(fetch(addresses, most_bytes=settings.web_max_bytes, limits=web.limits())) as fetched:
        for block in _blocks(stamps):
            near = [pieces[i] for i in block if not on_web[i]]
            read = iter(storage.read_outside(near, most_bytes=settings.max_bytes))
            for i in block:
                yield i, next(fetched) if on_web[i] else next(read)


def _is_on_web(url: str, path: str) -> bool:
    """Tell whether a photo is fetched from a web address, of the folder and its path."""
    return is_web(url_of(url, path))


def _within(most_bytes: int, rows: Sequence[_Row], on_web: Sequence[bool]) -> list[_Row]:
    """Return rows without the photos from the web that are beyond what a task may hold."""
    kept, total = [], 0
    for row, far in zip(rows, on_web, strict=True):
        total += len(row.image) * far
        if far and row.image and total > most_bytes:
            total -= len(row.image)
            row = _Row(
                reason=f"no room in its shard: {most_bytes:,} bytes of photos from the web; "
                "choose a smaller ingest.photos_per_shard"
            )
        kept.append(row)
    return kept


def checked(content: bytes | PhotoError, stamp: str, settings: IngestSettings) -> _Row:
    """Return what a photo's row holds: of its bytes, or of why they cannot be had."""
    if isinstance(content, PhotoError):
        return _Row(reason=printable(content.what), note=MAY_PASS if isinstance(content, MayPass) else "")
    try:
        check_digests(content, stamp)
    except OtherBytes as error:
        return _Row(reason=error.what, note=MAY_PASS)
    try:
        found = inspect_apart(
            content,
            max_pixels=settings.max_pixels,
            max_scans=settings.max_scans,
            max_seconds=settings.max_seconds,
            max_side_px=settings.max_side_px,
        )
    except PhotoError as error:
        return _Row(reason=error.what)
    return _Row(found.shrunk or content, found.width, found.height, note=found.note)


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


def _ingest_cost(photos: Photos, settings: IngestSettings, web: WebSettings) -> Cost:
    sizes = np.array([_size(stamp) for stamp in photos.stamps], np.float64)
    on_web = np.array([_is_on_web(photos.url, path) for path in photos.paths])
    # Of a shard's photos from the web no more is kept than this, whatever they turn out to be.
    far = (settings.shard_bytes or WEB_SHARD_BYTES) / photos.per_shard
    sizes[on_web] = min(far, float(settings.web_max_bytes))
    per_shard = np.add.reduceat(sizes, np.arange(0, len(sizes), photos.per_shard))
    on_the_way = min(web.connections, int(on_web.sum())) * float(settings.web_max_bytes)
    return Cost(
        rows=len(photos),
        bytes_per_row=float(sizes.mean()) + 40.0,
        # The files as they are read, in the table, in the shard and in what is sent; photos are decoded in a
        # process of their own.
        task_bytes=4.0 * float(per_shard.max()) + on_the_way + DECODED_BYTES,
        work=len(photos),
        unit="photo",
    )


def _size(stamp: str) -> int:
    return int(stamp.split(" ")[0])
