"""The index of local descriptors: an inverted file (faiss) kept as sub-indexes, searched as one.

The quantiser is trained once on a sample and travels as bytes. Each group of gallery shards is then encoded
alone into a sub-index, by any process, in any order; a shard added later makes one more sub-index and changes
none. All sub-indexes hold the same centroids and codes, so that searching them one after the other and
keeping the best k gives what one index over everything would give.

A descriptor costs its code and 8 bytes of photo row: 16 + 8 = 24 bytes with product quantisation at 16 bytes,
128 + 8 with 8-bit scalars at 128-d. Distances are squared L2, which on unit rows is 2 - 2 * cosine.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.descriptors import check_descriptors
from lmr.retrieval.local_search.codebook import (
    MIN_SAMPLE_PER_CENTROID,
    Sample,
    coarse_quantiser,
    faiss_threads,
    sample_rows_held,
    train_centroids,
)
from lmr.retrieval.local_search.filling import encoded_runs, merged

__all__ = [
    "LISTS_AT_ONCE",
    "default_lists",
    "train_quantiser",
    "build_sub_index",
    "build_index_of",
    "open_index",
    "search_sub_index",
    "nearest_lists",
    "first_descriptors",
    "list_distances",
    "list_sizes",
    "merge_neighbours",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Ivf = Any  # a faiss.IndexIVF; faiss's stubs know neither its members nor the Python form of its methods

MAX_LISTS = 1 << 20
LISTS_AT_ONCE = 1 << 23  # of sub-indexes that are searched together
LIST_BYTES = 260.0  # memory of a process for each list of an index that it has open
PQ_CENTROIDS = 256  # of each sub-quantiser: one byte


def default_lists(n_descriptors: int) -> int:
    """Return the number of inverted lists for a gallery of `n_descriptors`.

    It is the power of two nearest to 4 * sqrt(n), lowered until every list has 39 descriptors to be trained
    from, and raised no further than a million. A sample of 64 times as many descriptors trains it.
    """
    if n_descriptors < 1:
        raise LmrError(
            "an index needs descriptors", got="0 descriptors", fix="check that the photos have local features"
        )
    wanted = round(math.log2(4 * math.sqrt(n_descriptors)))
    trainable = math.floor(math.log2(max(n_descriptors / MIN_SAMPLE_PER_CENTROID, 1)))
    return int(min(1 << wanted, 1 << trainable, MAX_LISTS))


def train_quantiser(sample: Sample, *, lists: int, code_bytes: int | None, seed: int) -> bytes:
    """Train an empty index: coarse centroids and the code of a descriptor.

    Parameters
    ----------
    sample
        (n, d) float32 unit rows, or rows as stored (see `train_centroids`), drawn from the gallery;
        `SAMPLE_PER_CENTROID` * lists are enough, fewer are accepted.
    lists
        Number of inverted lists, see `default_lists`.
    code_bytes
        Bytes of a residual product-quantised code (it must divide d, 256 or more training descriptors), or
        None for 8-bit scalars, d bytes, nearly lossless.
    seed
        The same sample and seed give the same bytes.

    Returns
    -------
    The trained, empty faiss index, serialised.

    Raises
    ------
    LmrError
        Too few descriptors, descriptors not finite or not unit, or code_bytes that do not divide d.
    """
    if sample.dtype == np.float32:
        check_descriptors(sample.view(), unit=True)  # type: ignore[arg-type]
    d = sample.shape[1]
    if code_bytes is not None and (code_bytes < 1 or d % code_bytes):
        divisors = ", ".join(str(m) for m in range(1, d + 1) if d % m == 0)
        raise LmrError(
            f"a code of {code_bytes} bytes cannot hold descriptors of {d} dimensions: it must divide them",
            got=f"code_bytes {code_bytes}",
            fix=f"choose code_bytes from {divisors}, or none for 8-bit scalars",
        )
    if code_bytes is not None and len(sample) < PQ_CENTROIDS:
        raise LmrError(
            f"product quantisation needs at least {PQ_CENTROIDS} descriptors to train on",
            got=f"{len(sample)} descriptors",
            fix="give a larger sample, or set code_bytes to none for 8-bit scalars",
        )
    centroids = train_centroids(sample, lists, seed=seed)
    coarse = coarse_quantiser(centroids)
    index: Ivf
    if code_bytes is None:
        kind = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexIVFScalarQuantizer(coarse, d, lists, kind, faiss.METRIC_L2, False)
    else:
        index = faiss.IndexIVFPQ(coarse, d, lists, code_bytes, 8)
        index.pq.cp.seed = seed
        index.use_precomputed_table = -1  # see open_index
    index.train(sample_rows_held(sample))
    trained: bytes = faiss.serialize_index(index).tobytes()
    return trained


def build_sub_index(trained: bytes, descriptors: Floats, photo_rows: Ints) -> bytes:
    """Encode the descriptors of some gallery photos into one sub-index; see `build_index_of`."""
    return build_index_of(trained, [(descriptors, photo_rows)])


def build_index_of(trained: bytes, parts: Iterable[tuple[Floats, Ints]]) -> bytes:
    """Encode the descriptors of a group of gallery shards into one sub-index.

    Parameters
    ----------
    trained
        From `train_quantiser`.
    parts
        Of each shard the descriptors, (n, d) float32 unit rows, and the gallery row of each one's photo,
        (n,); n may be 0. Rows of zeros (broken or without texture) are left out: they would be near to each
        other. Photo rows ascend from shard to shard, so that equal distances go to the lower one.

    Returns
    -------
    The sub-index, serialised; write it to local or shared disk and open it there.

    Raises
    ------
    LmrError
        Descriptors not finite, not unit or of another dimension, or lengths that differ.

    See Also
    --------
    lmr.retrieval.local_search.filling : The same for an index that memory does not hold.
    """
    index = open_index(trained)
    return b"".join(merged(index, list(encoded_runs(index, parts))))


def open_index(source: str | Path | bytes) -> Ivf:
    """Open a sub-index: memory-mapped from a local path, or read from bytes.

    The pages of a mapped index are shared by all processes of a machine and dropped under pressure. faiss's
    precomputed tables (lists × code bytes × 1 KiB, per sub-index and process) are left out: they would be the
    larger part of the memory and are rebuilt at each opening.

    Raises
    ------
    LmrError
        The file is missing or is no faiss index.
    """
    flags = faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    try:
        if isinstance(source, bytes):
            reader = faiss.VectorIOReader()
            faiss.copy_array_to_vector(np.frombuffer(source, np.uint8), reader.data)
            return faiss.read_index(reader, flags)
        return faiss.read_index(str(source), flags | faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        name = "bytes in memory" if isinstance(source, bytes) else str(source)
        raise LmrError(
            f"cannot open the index {name}", got=str(error).splitlines()[-1], fix="build the index again"
        ) from error


def search_sub_index(
    indexes: Iterable[Ivf], queries: Floats, *, k: int, probes: int, threads: int = 1
) -> tuple[Floats, NDArray[np.int32]]:
    """Find the k nearest gallery descriptors of each query descriptor over all sub-indexes.

    Parameters
    ----------
    indexes
        Sub-indexes of one trained quantiser, in order of their photo rows; an iterable, so that they can be
        opened a few at a time.
    queries
        (q, d) float32 unit rows; q may be 0. A row of zeros finds nothing.
    k
        Neighbours per query.
    probes
        Inverted lists to visit; more is slower and finds more.
    threads
        Threads of faiss.

    Returns
    -------
    distances
        (q, k) float32, squared L2, ascending; equal distances in order of photo row; inf where there is none.
    photo_rows
        (q, k) int32, the photo of each neighbour (a photo may come several times); -1 where there is none.

    Raises
    ------
    LmrError
        Queries not finite, not unit or of another dimension; sub-indexes of different quantisers.
    """
    distances = np.full((len(queries), k), np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int32)
    first: Ivf | None = None
    with faiss_threads(threads):
        for group in _groups(indexes):
            if first is None:
                first = group[0]
                check_descriptors(queries, dimension=first.d, unit=True)
                probes = min(probes, first.nlist)
                # The lists to visit are the same in every sub-index: found once.
                list_distances, list_numbers = first.quantizer.search(queries, probes)
            if not all(_same_quantiser(first, index) for index in group):
                raise LmrError(
                    "sub-indexes of different quantisers cannot be searched together",
                    fix="build all sub-indexes from one trained quantiser",
                )
            filled = [index for index in group if index.ntotal]
            if not filled or len(queries) == 0:
                continue
            with _stacked(filled) as index:
                index.nprobe = probes
                more, more_rows = index.search_preassigned(queries, k, list_numbers, list_distances)
            more[more_rows < 0] = np.inf
            distances, rows = merge_neighbours(distances, rows, more, more_rows.astype(np.int32))
    void = ~queries.any(axis=1)
    distances[void], rows[void] = np.inf, -1
    return distances, rows


def _groups(indexes: Iterable[Ivf]) -> Iterator[list[Ivf]]:
    """Yield sub-indexes that are searched together: of product-quantised codes up to LISTS_AT_ONCE lists.

    Scalar codes need no table, so that each sub-index is searched alone.
    """
    group: list[Ivf] = []
    for index in indexes:
        tables = isinstance(index, faiss.IndexIVFPQ)
        if group and not (tables and (len(group) + 1) * index.nlist <= LISTS_AT_ONCE):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


@contextmanager
def _stacked(group: Sequence[Ivf]) -> Iterator[Ivf]:
    """Make the lists of several sub-indexes one, list by list, for as long as they are searched.

    What a search computes for a list, of product-quantised codes a table of distances, then serves all of
    them: where lists are short it takes several times as long as looking through their codes.
    """
    first = group[0]
    if len(group) == 1:
        yield first
        return
    lists = [index.invlists for index in group]
    pointers = faiss.InvertedListsPtrVector()  # type: ignore[attr-defined]  # its stubs lack it
    for one in lists:
        pointers.push_back(one)
    stack = faiss.HStackInvertedLists(len(lists), pointers.data())
    owned, entries = first.own_invlists, first.ntotal
    first.own_invlists = False
    first.replace_invlists(stack, False)
    first.ntotal = sum(index.ntotal for index in group)
    try:
        yield first
    finally:
        first.replace_invlists(lists[0], owned)
        first.ntotal = entries


def nearest_lists(index: Ivf, queries: Floats, *, threads: int = 1) -> NDArray[np.int32]:
    """Return the inverted list, (q,) int32, nearest to each query descriptor: its visual word when voting."""
    check_descriptors(queries, dimension=index.d, unit=True)
    with faiss_threads(threads):
        lists: NDArray[np.int32] = index.quantizer.search(queries, 1)[1][:, 0].astype(np.int32)
    return lists


def list_distances(index: Ivf, queries: Floats, rank: int, *, threads: int = 1) -> Floats:
    """Return the squared L2 distance, (q,) float32, of each descriptor to the `rank`-th nearest centroid.

    Centroids are a sample of what the gallery has: the distance says how crowded the descriptor's
    surroundings are. An index of fewer lists gives the farthest of them.
    """
    check_descriptors(queries, dimension=index.d, unit=True)
    with faiss_threads(threads):
        distances, lists = index.quantizer.search(queries, min(rank, index.nlist))
    found: Floats = np.where(lists >= 0, distances, 0).max(axis=1)
    return np.maximum(found, 0)


def first_descriptors(indexes: Iterable[Ivf], count: int) -> Floats:
    """Return the first descriptor of up to `count` lists, (n, d) float32 unit rows as the codes keep them.

    The lists lie evenly among all; empty ones are passed over. The first of a list is that of the lowest
    photo row: how the gallery is divided into sub-indexes makes no difference.
    """
    found: dict[int, Floats] = {}
    dimension = 0
    for index in indexes:
        dimension = index.d
        for number in np.unique(np.linspace(0, index.nlist - 1, min(count, index.nlist)).round().astype(int)):
            if number not in found and index.invlists.list_size(int(number)):
                row = found[number] = np.empty(dimension, np.float32)
                index.reconstruct_from_offset(int(number), 0, faiss.swig_ptr(row))
    rows = np.array([found[number] for number in sorted(found)], np.float32).reshape(-1, dimension)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((rows / np.maximum(lengths, 1e-12))[lengths[:, 0] > 0], np.float32)


def list_sizes(index: Ivf) -> Ints:
    """Return the number of descriptors in each inverted list, (lists,) int64."""
    return np.array([index.invlists.list_size(i) for i in range(index.nlist)], np.int64)


def merge_neighbours(
    a: Floats, a_rows: NDArray[np.int32], b: Floats, b_rows: NDArray[np.int32]
) -> tuple[Floats, NDArray[np.int32]]:
    """Keep the best columns of two lists of neighbours, ties by photo row."""
    distances, rows = np.concatenate([a, b], axis=1), np.concatenate([a_rows, b_rows], axis=1)
    order = np.lexsort((rows, distances), axis=1)[:, : a.shape[1]]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _same_quantiser(a: Ivf, b: Ivf) -> bool:
    if (a.d, a.nlist, a.code_size) != (b.d, b.nlist, b.code_size):
        return False
    # Two trainings differ in every centroid: comparing one tells them apart.
    return bool(np.array_equal(a.quantizer.reconstruct(0), b.quantizer.reconstruct(0)))
