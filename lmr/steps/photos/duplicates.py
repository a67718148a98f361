"""Duplicates: photos that are the same file, or the same picture in another size or encoding."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.features.decoding.decode import decode_photo
from lmr.features.perceptual import HASH_BYTES, HASH_SIDE_PX, need_imagehash, perceptual_hash
from lmr.retrieval.duplicates import first_of_each, near_pairs, same_rows, with_copies
from lmr.runtime.settings import Part, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, Whole, concat, of_role, per_part
from lmr.steps.both import Both
from lmr.steps.photos.ingest import DECODED_BYTES, read_usable
from lmr.steps.ranking import Ranked, ranking_bytes, read_ranking
from lmr.steps.ranking import Ranking as Lists
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import column, table, with_note
from lmr.storage.datasets import Dataset
from lmr.text import counted

__all__ = ["Copies", "DuplicateSettings", "find_copies", "group_copies", "keep_one"]

_DIGEST_BYTES = 16
_ROW_BYTES = 120.0
_INDEX_BYTES = 3000.0
"""Of one hash in the index of 16 bands, and of its pairs."""


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings(Settings):
    """Settings of the search for duplicates."""

    action: Literal["off", "mark", "group", "keep"] = "off"
    """`mark` lists copies, `group` puts them together in the results, `keep` leaves one in the gallery."""

    max_bits: Annotated[int, Ge(0), Le(47)] = 24
    """Most of 256 bits in which perceptual hashes of a copy differ; chosen on development photos."""


@dataclass(frozen=True)
class Copies:
    """Which photos are copies.

    Attributes
    ----------
    source
        Of the gallery's: `photo`, `first` (the gallery photo that it is a copy of), `kind` ("exact": the
        files are the same; "near": the pictures are), `bits` (in which perceptual hashes differ).
    queries
        The same of queries that lie in the gallery too.
    """

    source: Source
    queries: Step


def find_copies(images: Both[Source], settings: DuplicateSettings) -> Copies | None:
    """Declare the steps that find copies in the gallery, and queries that lie there too; None if that is off.

    A copy is *exact* if its file has the same bytes (SHA-256) as another, and *near* if its perceptual hash
    differs in few bits. Of photos that are copies of each other, the first stands for all. Plain photos,
    such as of a wall, have no near copies.
    """
    if settings.action == "off":
        return None
    hashes = images.map(lambda side: per_part(_hash, side))
    wanted = settings.only("max_bits", kind="Duplicates")
    parts = hashes.gallery.parts
    # A photo that was added later is compared with those before it, and changes nothing for them.
    source = concat(_find(concat(parts[: i + 1]), parts[i], wanted) for i in range(len(parts)))
    return Copies(source, _find_queries(hashes, source, wanted))


def keep_one(images: Both[Source], copies: Copies | None, settings: DuplicateSettings) -> Both[Source]:
    """Return the images with one of each group of copies in the gallery; others get a reason, and no image.

    The steps store the gallery's photos once more.
    """
    if copies is None or settings.action != "keep":
        return images
    return Both(per_part(_keep, images.gallery, copies.source), images.queries)


def group_copies(ranked: Ranked, copies: Copies, gallery: int) -> Ranked:
    """Declare the step that puts copies beside each other in every list.

    Parameters
    ----------
    ranked
        The lists.
    copies
        Which photos are copies.
    gallery
        Photos of the gallery.
    """
    step = Step(
        name="group_copies",
        folder="grouped",
        role="queries",
        make=group_shard,
        settings=Settings(),
        inputs={"ranked": Each(ranked.step), "copies": Whole(copies.source)},
        shards=ranked.step.shards,
        implied={"gallery": gallery},
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=ranking_bytes(ranked.depth),
            task_bytes=40.0 * gallery + 20.0 * ranked.per_shard * ranking_bytes(ranked.depth),
            work=ranked.queries,
            unit="vector",
        ),
    )
    return Ranked(step, ranked.depth)


def _hash(images: Step) -> Step:
    return Step(
        name=of_role("hash_photos", images),
        folder=f"hashes/{images.role}",
        role=images.role,
        make=hash_shard,
        settings=Settings(),
        inputs={"images": Each(images)},
        shards=images.shards,
        check=need_imagehash,
        cost=Cost(
            rows=images.rows,
            bytes_per_row=_ROW_BYTES,
            task_bytes=DECODED_BYTES + rows_per_shard(images) * (2.0 * images.bytes_per_row + _ROW_BYTES),
            work=images.rows,
            unit="photo",
        ),
    )


def hash_shard(shard: int, settings: Settings, *, images: Dataset) -> pa.Table:
    """Hash the photos of one shard: `photo`, `digest` (of the file), `hash` (of the picture), `plain`."""
    usable = read_usable(images, shard)
    digests = np.zeros((len(usable.photos), _DIGEST_BYTES), np.uint8)
    hashes = np.zeros((len(usable.photos), HASH_BYTES), np.uint8)
    plain = np.zeros(len(usable.photos), bool)
    for i, data in enumerate(usable.images):
        digests[i] = np.frombuffer(hashlib.sha256(data).digest()[:_DIGEST_BYTES], np.uint8)
        found = perceptual_hash(decode_photo(data, max_side_px=HASH_SIDE_PX))
        plain[i] = found is None
        if found is not None:
            hashes[i] = found
    return table({"photo": usable.photos, "digest": digests, "hash": hashes, "plain": plain})


def _find(before: Source, part: Step, settings: Part) -> Step:
    return Step(
        name="find_copies",
        folder="copies/gallery",
        role="gallery",
        make=find_shard,
        settings=settings,
        inputs={"hashes": Whole(before)},
        shards=1,
        implied={"new_shards": part.shards},
        cost=_find_cost(before, part.rows),
    )


def find_shard(shard: int, settings: Part, *, hashes: Dataset, new_shards: int) -> pa.Table:
    """Find the copies among the photos of the last generation, of it and all before."""
    known = _read(hashes, range(hashes.shards))
    start = len(_read(hashes, range(hashes.shards - new_shards)).photos)
    first, bits = _copies(known, settings.max_bits)
    copy = np.flatnonzero(first != np.arange(len(first)))
    copy = copy[copy >= start]
    return _table(known.photos[copy], known.photos[first[copy]], bits[copy])


def _find_queries(hashes: Both[Source], copies: Source, settings: Part) -> Step:
    return Step(
        name="find_copies_queries",
        folder="copies/queries",
        role="queries",
        make=find_queries_shard,
        settings=settings,
        inputs={"hashes": Whole(hashes.gallery), "queries": Whole(hashes.queries), "copies": Whole(copies)},
        shards=1,
        cost=_find_cost(hashes.gallery, hashes.queries.rows),
    )


def find_queries_shard(
    shard: int, settings: Part, *, hashes: Dataset, queries: Dataset, copies: Dataset
) -> pa.Table:
    """Find the queries that lie in the gallery too: of each the gallery photo that is nearest."""
    known, asked = _read(hashes, range(hashes.shards)), _read(queries, range(queries.shards))
    of_digest = {digest.tobytes(): i for i, digest in reversed(list(enumerate(known.digests)))}
    first = np.array([of_digest.get(digest.tobytes(), -1) for digest in asked.digests], np.int64)
    bits = np.where(first >= 0, -1, 0)
    rich, poor = np.flatnonzero(~known.plain), np.flatnonzero(~asked.plain)
    row, other, far = near_pairs(asked.hashes[poor], known.hashes[rich], settings.max_bits)
    for q, g, b in zip(poor[row].tolist(), rich[other].tolist(), far.tolist(), strict=True):
        if first[q] < 0:  # pairs come nearest first
            first[q], bits[q] = g, b
    there = np.flatnonzero(first >= 0)
    found = _table(asked.photos[there], known.photos[first[there]], bits[there])
    said = [
        (sum(copies.read(i).num_rows for i in range(copies.shards)), "gallery photo", "a copy", "copies"),
        (len(there), "query", "in the gallery too", "in the gallery too"),
    ]
    told = [_told(*one) for one in said if one[0]]
    return with_note(found, f"{'; '.join(told)}: see duplicates.csv") if told else found


def _told(count: int, noun: str, one: str, many: str) -> str:
    plural = "queries" if noun == "query" else f"{noun}s"
    return counted(count, f"{noun} is {one}", f"{plural} are {many}")


def _keep(images: Step, copies: Step) -> Step:
    return Step(
        name="keep_one",
        folder="images/kept",
        role="gallery",
        make=keep_shard,
        settings=Settings(),
        inputs={"images": Each(images), "copies": Whole(copies)},
        shards=images.shards,
        cost=Cost(
            rows=images.rows,
            bytes_per_row=images.bytes_per_row + 20.0,
            task_bytes=4.0 * rows_per_shard(images) * images.bytes_per_row + _ROW_BYTES * copies.rows,
            work=images.rows,
            unit="photo",
        ),
    )


def keep_shard(shard: int, settings: Settings, *, images: Dataset, copies: Dataset) -> pa.Table:
    """Give copies a reason and no image."""
    rows, found = images.read(shard), copies.read(0)
    copy = pc.is_in(rows.column("photo"), value_set=found.column("photo").combine_chunks())
    changed = {
        "image": pc.if_else(copy, pa.scalar(b"", pa.large_binary()), rows.column("image")),
        "width": pc.if_else(copy, pa.scalar(0, pa.int32()), rows.column("width")),
        "height": pc.if_else(copy, pa.scalar(0, pa.int32()), rows.column("height")),
        "reason": pc.if_else(copy, pa.scalar("copy of another photo"), rows.column("reason")),
    }
    for name, values in changed.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


def group_shard(
    shard: int, settings: Settings, *, ranked: Dataset, copies: Dataset, gallery: int
) -> pa.Table:
    """Put copies beside each other in the lists of one shard."""
    lists = read_ranking(ranked, shard)
    first = np.arange(gallery)
    for i in range(copies.shards):
        rows = copies.read(i, ["photo", "first"])
        first[column(rows, "photo")] = column(rows, "first")
    photos, scores = with_copies(lists.photos, lists.scores, first)
    return Lists(lists.queries, photos, scores).table()


@dataclass(frozen=True, eq=False)
class _Hashes:
    photos: NDArray[np.int32]
    digests: NDArray[np.uint8]
    hashes: NDArray[np.uint8]
    plain: NDArray[np.bool_]


def _read(dataset: Dataset, shards: range) -> _Hashes:
    names = ("photo", "digest", "hash", "plain")
    parts = [[column(rows, name) for name in names] for rows in (dataset.read(i, names) for i in shards)]
    empty = [
        np.empty(0, np.int32),
        np.empty((0, _DIGEST_BYTES), np.uint8),
        np.empty((0, HASH_BYTES), np.uint8),
        np.empty(0, bool),
    ]
    return _Hashes(*(np.concatenate(one) for one in zip(empty, *parts, strict=True)))


def _copies(known: _Hashes, max_bits: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first photo of each, and the bits between them: -1 where the files are the same."""
    same = same_rows(known.digests)
    alone = np.flatnonzero((same == np.arange(len(same))) & ~known.plain)
    row, other, _ = near_pairs(known.hashes[alone], known.hashes[alone], max_bits)
    first = first_of_each(len(same), alone[row], alone[other])
    whole = first[same]
    far = np.bitwise_count(known.hashes ^ known.hashes[whole]).sum(axis=1, dtype=np.int64)
    exact = (known.digests == known.digests[whole]).all(axis=1)
    return whole, np.where(exact, -1, far)


def _table(photo: NDArray[np.int32], first: NDArray[np.int32], bits: NDArray[np.int64]) -> pa.Table:
    return table(
        {
            "photo": photo.astype(np.int32),
            "first": first.astype(np.int32),
            "kind": pa.array(np.where(bits < 0, "exact", "near").astype(object), pa.string()),
            "bits": np.maximum(bits, 0).astype(np.int32),
        }
    )


def _find_cost(known: Source, rows: int) -> Cost:
    return Cost(
        rows=rows,
        bytes_per_row=_ROW_BYTES,
        task_bytes=20e6 + _INDEX_BYTES * (known.rows + rows),
        work=known.rows + rows,
        unit="photo",
    )
