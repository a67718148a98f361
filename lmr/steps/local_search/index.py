"""Step 1a, the local index: a quantiser trained on a sample, then a sub-index per group of gallery shards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Annotated, Any

import faiss
import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.local_search.codebook import SAMPLE_HELD, SAMPLE_PER_CENTROID, Sample
from lmr.retrieval.local_search.filling import RUN_ROWS, encoded_runs, merged
from lmr.retrieval.local_search.inverted_file import (
    LIST_BYTES,
    default_lists,
    open_index,
    train_quantiser,
)
from lmr.runtime.settings import Seed, Settings
from lmr.runtime.steps import Cost, Source, Step, Whole, per_part
from lmr.steps.features.local import Extracted
from lmr.steps.photos.generations import learned_from
from lmr.steps.sizes import FEATURES_AT_ONCE, blocks, in_pieces, rows_per_shard
from lmr.storage.arrow import array_table, column, with_note
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays, spilled, spilled_rows

__all__ = [
    "IndexSettings",
    "LocalIndex",
    "at_least",
    "descriptors_of",
    "feature_count",
    "index_local",
    "index_features_shard",
    "sample_descriptors",
    "sample_rows",
    "training_bytes",
    "train_shard",
    "with_few",
    "write_index",
]


@dataclass(frozen=True, kw_only=True)
class IndexSettings(Settings):
    """Settings of the local index."""

    lists: Annotated[int, Ge(0), Le(16_777_216)] = 0
    """Inverted lists; 0: the power of two nearest to 4 sqrt(descriptors)."""
    code_bytes: Annotated[int, Ge(0), Le(256)] = 0
    """Bytes of a product-quantised code; 0: 8-bit scalars below `pq_above` descriptors, 16 bytes above."""
    pq_above: Annotated[int, Ge(0), Le(1_000_000_000_000)] = 50_000_000
    """Descriptors above which codes are product-quantised when `code_bytes` is 0."""
    gallery_shards_per_index: Annotated[int, Ge(1), Le(1_000_000)] = 16
    """Gallery shards in a sub-index."""
    seed: Seed = 0
    """Of the sample and the k-means."""


@dataclass(frozen=True)
class LocalIndex:
    """The gallery's local features, indexed.

    Attributes
    ----------
    parts
        A shard is a sub-index over a group of gallery shards; they are searched together.
    trained
        The step of one shard that all parts share: a quantiser, or a codebook.
    lists
        Inverted lists of each part.
    scalar
        Codes are scalars, so that parts are searched one after the other; else they are searched together.
    entry_bytes
        Of a feature in a part: its code and its number.
    """

    parts: Source
    trained: Step
    lists: int = 0
    scalar: bool = False
    entry_bytes: float = 0.0


def index_local(local: Extracted, settings: IndexSettings) -> LocalIndex:
    """Declare the steps that index the gallery's local features.

    The dataset `quantiser` holds a trained, empty index; each shard of `index` a sub-index that is searched
    together with the others. Both are named arrays, see `lmr.storage.arrow.array_table`.
    """
    learned = learned_from(local.source)
    lists = settings.lists or default_lists(max(learned.rows, 1))
    sample = min(_sample_size(lists), learned.rows)
    trained = Step(
        name="train_quantiser",
        folder="quantiser",
        make=train_shard,
        settings=settings,
        inputs={"local": Whole(learned)},
        implied={"dimension": local.dimension},
        shards=1,
        cost=Cost(
            rows=1,
            bytes_per_row=4.0 * lists * local.dimension,
            task_bytes=training_bytes(local, sample, lists),
            work=sample,
            unit="feature",
            # The sample lies in a file, as stored.
            mapped_bytes=1.0 * sample * local.dimension * local.itemsize,
        ),
    )
    code_bytes = settings.code_bytes or (local.dimension if learned.rows <= settings.pq_above else 16)

    def indexed(part: Step) -> Step:
        group = min(settings.gallery_shards_per_index * rows_per_shard(part), part.rows)
        return Step(
            name="index",
            folder="index",
            make=index_features_shard,
            settings=settings,
            inputs={"local": Whole(part, shared_out=True), "trained": Whole(trained)},
            shards=-(-part.shards // settings.gallery_shards_per_index),
            cost=Cost(
                rows=part.rows,
                # Each sub-index has the quantiser.
                bytes_per_row=8.0 + code_bytes + 4.0 * lists * local.dimension / max(group, 1),
                # The quantiser three times, and its lists. First a shard's descriptors as fetched and as
                # stored; a block's as floats and in order of photos, while the next one is made. Then the
                # lists of all features; then the shard as it is written. Two runs of codes are held as they
                # are sorted; others lie in files.
                task_bytes=12.0 * lists * local.dimension
                + LIST_BYTES * lists
                + 4.0 * min(group, RUN_ROWS) * (12.0 + code_bytes)
                + max(
                    rows_per_shard(part) * (2.0 * local.dimension * local.itemsize + 8.0)
                    + 16.0 * min(rows_per_shard(part), FEATURES_AT_ONCE + local.per_photo) * local.dimension,
                    4.0 * group,
                    in_pieces(group * (8.0 + code_bytes)),
                ),
                work=part.rows,
                unit="feature",
                # Codes before and after they are in order of lists.
                mapped_bytes=group * (20.0 + 2.0 * code_bytes),
            ),
        )

    parts = per_part(indexed, local.source)
    scalar = not settings.code_bytes and learned.rows <= settings.pq_above
    return LocalIndex(parts, trained, lists=lists, scalar=scalar, entry_bytes=8.0 + code_bytes)


def training_bytes(local: Extracted, sample: int, centroids: int) -> float:
    """Return what training so many centroids on so large a sample holds; see `train_centroids`.

    That is a shard as fetched, as stored and as it was before; the part of the sample that is held as floats,
    with what is left of some rows for their code; the number and the cell of each row; the centroids as
    found, joined, indexed and stored.
    """
    held = min(sample, SAMPLE_HELD)
    return (
        3.0 * local.per_shard * local.dimension * local.itemsize
        + held * local.dimension * (local.itemsize + 8.0)
        + 20.0 * sample
        + 16.0 * centroids * local.dimension
    )


def _sample_size(lists: int) -> int:
    return max(SAMPLE_PER_CENTROID * lists, 65_536)


def train_shard(shard: int, settings: IndexSettings, *, local: Dataset, dimension: int) -> pa.Table:
    """Train the quantiser on a sample of the gallery's descriptors."""
    total = feature_count(local)
    lists = settings.lists or default_lists(max(total, 1))
    code_bytes = settings.code_bytes or (16 if total > settings.pq_above else None)
    drawn = sample_descriptors(local, _sample_size(lists), total, settings.seed)
    sample = at_least(drawn, lists, dimension, settings.seed)
    trained = train_quantiser(sample, lists=lists, code_bytes=code_bytes, seed=settings.seed)
    return with_few(array_table({"trained": trained}), total)


def feature_count(local: Dataset) -> int:
    """Count the gallery's local features."""
    return sum(int(local.facts(i)["rows"]) for i in range(local.shards))


def with_few(rows: pa.Table, total: int) -> pa.Table:
    """Say of a gallery without a local feature that nothing can be found in it."""
    if total:
        return rows
    return with_note(
        rows, "no gallery photo has local features: what is ranked, is ranked by descriptors alone"
    )


def at_least(sample: Sample, count: int, dimension: int, seed: int) -> Sample:
    """Return a sample of unit rows (n, d) with random ones added where it has too few of use to learn from.

    A gallery of plain walls has hardly a feature; what it has is indexed as that of any other.
    """
    missing = count - int(np.count_nonzero(sample.any(axis=1))) if sample.size else count
    if missing <= 0:
        return sample
    more = np.random.default_rng(seed).random((missing, dimension), np.float32)
    more /= np.linalg.norm(more, axis=1, keepdims=True)
    plain = sample if sample.dtype == np.float32 else to_float(sample)
    return np.concatenate([plain.reshape(-1, dimension), more])


def sample_descriptors(local: Dataset, count: int, total: int, seed: int) -> Sample:
    """Draw about `count` of the gallery's `total` descriptors, as stored, without those of no use.

    They lie in a file of this machine's disk: those that train an index over a billion take a gigabyte.
    """
    drawn = _drawn(local, "descriptor", count, total, seed)
    return spilled_rows(rows[to_float(rows).any(axis=1)] for rows in drawn)


def sample_rows(dataset: Dataset, name: str, count: int, total: int, seed: int) -> NDArray[np.generic]:
    """Draw about `count` of a column's `total` rows evenly from all shards, reading one shard at a time."""
    parts = list(_drawn(dataset, name, count, total, seed))
    # A shard without a feature does not know the descriptors' width.
    return np.concatenate([part for part in parts if len(part)] or parts[:1])


def _drawn(dataset: Dataset, name: str, count: int, total: int, seed: int) -> Iterator[NDArray[np.generic]]:
    """Yield what is drawn from each shard."""
    rng = np.random.default_rng(seed)
    for shard in range(dataset.shards):
        rows = column(dataset.read(shard, [name]), name)
        share = min(len(rows), -(-count * len(rows) // max(total, 1)))
        yield rows[np.sort(rng.choice(len(rows), share, replace=False))]


def index_features_shard(
    shard: int, settings: IndexSettings, *, local: Dataset, trained: Dataset
) -> pa.Table:
    """Encode the descriptors of one group of gallery shards."""
    index = open_index(named_arrays(trained)["trained"].tobytes())
    lengths: list[int] = []

    def encoded() -> Iterator[NDArray[np.void]]:
        for run in encoded_runs(index, descriptors_of(local, shard, settings.gallery_shards_per_index)):
            lengths.append(len(run))
            yield run

    # By way of files: neither the codes nor the index that is made of them lies in memory.
    codes = spilled_rows(encoded())
    runs = np.split(codes, np.cumsum(lengths)[:-1])
    return array_table({"index": spilled(lambda file: file.writelines(merged(index, runs)))})


def write_index(index: faiss.Index, file: IO[bytes]) -> None:
    """Write an index into an open file."""
    library: Any = faiss  # its stubs do not know the writer
    library.write_index(index, library.PyCallbackIOWriter(file.write))


def descriptors_of(
    local: Dataset, group: int, shards_per_group: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Read a group of shards in blocks of whole photos: descriptors as unit rows, and the photo of each."""
    first = group * shards_per_group
    for shard in range(first, min(first + shards_per_group, local.shards)):
        rows = local.read(shard, ["photo", "descriptor"])
        photos, stored = column(rows, "photo").astype(np.int64), column(rows, "descriptor")
        del rows  # else it is held beside the next one
        _, starts, counts = np.unique(photos, return_index=True, return_counts=True)
        if (np.diff(photos) < 0).any():
            starts, counts = np.zeros(1, np.int64), np.array([len(photos)])  # in no order: all at once
        bounds = [*starts.tolist(), len(photos)]
        for lo, hi in blocks(counts.tolist(), FEATURES_AT_ONCE):
            part = slice(bounds[lo], bounds[hi])
            yield to_float(stored[part]), photos[part]
        del photos, stored
