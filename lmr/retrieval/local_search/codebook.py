"""Centroids of descriptors, trained in two levels, and the nearest of them to a descriptor.

The words of a codebook and the lists of an inverted file are both such centroids. Up to some thousands each
descriptor is compared with all of them; above, with those in the few cells nearest to it, which finds the
nearest centroid of 998 in 1000 descriptors at a fourth of the cost (16,384 centroids of RootSIFT).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.descriptors import check_descriptors, to_float

__all__ = [
    "SAMPLE_HELD",
    "SAMPLE_PER_CENTROID",
    "Codebook",
    "Sample",
    "coarse_quantiser",
    "default_words",
    "faiss_threads",
    "open_codebook",
    "probe_cells",
    "sample_rows_held",
    "train_centroids",
    "train_codebook",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Sample = NDArray[np.generic]
"""Descriptors to train from: (n, d) unit rows of float32, or as stored, possibly a `np.memmap`."""
Codebook = Any  # a faiss index of centroids; faiss's stubs do not know its members

SAMPLE_PER_CENTROID = 64  # k-means gains little beyond, and faiss warns below 39
MIN_SAMPLE_PER_CENTROID = 39
SAMPLE_HELD = 1 << 19
"""Descriptors of a sample that are held as floats at a time; larger samples stay where they lie."""
PUBLISHED_WORDS = 1 << 16
FLAT_CENTROIDS = 1 << 12
CELL_PROBES = 16


def default_words(n_descriptors: int) -> int:
    """Return the size of a codebook for a gallery: the published 65,536, or what can be trained.

    Fewer than 39 descriptors per word train no word: then it is the largest power of two that has them.
    """
    trainable = max(n_descriptors // MIN_SAMPLE_PER_CENTROID, 1)
    return min(PUBLISHED_WORDS, 1 << (trainable.bit_length() - 1))


def train_codebook(sample: Sample, words: int, *, seed: int) -> bytes:
    """Train a codebook: `train_centroids` as a searchable structure, serialised for `open_codebook`."""
    trained: bytes = faiss.serialize_index(
        coarse_quantiser(train_centroids(sample, words, seed=seed))
    ).tobytes()
    return trained


def open_codebook(trained: bytes) -> Codebook:
    """Open what `train_codebook` returned."""
    return faiss.deserialize_index(np.frombuffer(trained, np.uint8))


def coarse_quantiser(centroids: Floats) -> Codebook:
    """Return centroids as a faiss index that finds the nearest of them to a descriptor.

    Parameters
    ----------
    centroids
        (count, d) float32. Up to 4096 are all compared; of more only those in the 16 nearest of about
        sqrt(count) cells.
    """
    count, d = centroids.shape
    flat = faiss.IndexFlatL2(d)
    if count <= FLAT_CENTROIDS:
        flat.add(centroids)
        return flat
    cells = faiss.IndexIVFFlat(flat, d, math.isqrt(count))
    cells.cp.min_points_per_centroid, cells.cp.max_points_per_centroid = 1, count
    with faiss_threads(1):  # sums of several threads would differ from run to run
        cells.train(centroids)
        cells.add(centroids)
    cells.nprobe = CELL_PROBES
    cells.make_direct_map()  # a residual needs the centroid back
    return cells


def probe_cells(quantiser: Codebook, cells: int = CELL_PROBES) -> None:
    """Let a large quantiser look into so many cells; a small one compares with all centroids anyway."""
    quantiser = faiss.downcast_index(quantiser)
    if isinstance(quantiser, faiss.IndexIVFFlat):
        quantiser.nprobe = cells


def train_centroids(sample: Sample, count: int, *, seed: int) -> Floats:
    """Cluster descriptors in two levels: about sqrt(count) cells, each divided by its own k-means.

    Plain k-means costs sample × count distances per round, which at 131,072 centroids is hours; two levels
    cost sample × 2 sqrt(count). A cell gets centroids in proportion to its descriptors.

    Of a sample above `SAMPLE_HELD` the cells are trained on so many of its rows, drawn by the seed. The
    centroids of a cell are trained on all rows of the cell.

    Parameters
    ----------
    sample
        (n, d) float32, or uint8, int8 or float16 as stored, of which unit rows are made where they are used.
        At most `SAMPLE_PER_CENTROID` * count of them are used, chosen by the seed.
    count
        Number of centroids, at most n.
    seed
        The same sample and seed give the same centroids.

    Returns
    -------
    (count, d) float32 centroids.

    Raises
    ------
    LmrError
        Fewer descriptors than centroids, or descriptors that are not finite.
    """
    if sample.dtype == np.float32:
        check_descriptors(sample.view())  # type: ignore[arg-type]
    if count < 1 or len(sample) < count:
        raise LmrError(
            f"{count} centroids cannot be trained from {len(sample)} descriptors",
            got=f"{len(sample)} descriptors",
            fix=f"give {SAMPLE_PER_CENTROID * max(count, 1)} descriptors, or ask for fewer centroids",
        )
    rng = np.random.default_rng(seed)
    rows = np.arange(len(sample))
    if len(sample) > SAMPLE_PER_CENTROID * count:
        rows = np.sort(rng.choice(len(sample), SAMPLE_PER_CENTROID * count, replace=False))
    if count < 256:
        return _kmeans(_floats(sample, rows), count, seed)
    held = rows
    if len(rows) > SAMPLE_HELD:
        held = np.sort(rng.choice(rows, SAMPLE_HELD, replace=False))
    cells = _kmeans(_floats(sample, held), round(math.sqrt(count)), seed)
    cell = np.concatenate(
        [
            faiss.knn(_floats(sample, rows[start : start + SAMPLE_HELD]), cells, 1)[1][:, 0].astype(np.int32)
            for start in range(0, len(rows), SAMPLE_HELD)
        ]
    )
    sizes = np.bincount(cell, minlength=len(cells))
    shares = _shares(sizes, count)
    parts = [_kmeans(_floats(sample, rows[cell == c]), int(shares[c]), seed) for c in np.flatnonzero(shares)]
    return np.concatenate(parts)


def sample_rows_held(sample: Sample) -> Floats:
    """Return a sample's rows as unit floats, evenly thinned to `SAMPLE_HELD` where there are more."""
    count = min(len(sample), SAMPLE_HELD)
    return _floats(sample, np.linspace(0, len(sample), count, endpoint=False).astype(np.int64))


def _floats(sample: Sample, rows: Ints) -> Floats:
    """Return some rows of a sample, ascending, as float32; stored ones become unit rows."""
    chosen = sample if len(rows) == len(sample) else sample[rows]
    plain: Floats = np.asarray(chosen) if sample.dtype == np.float32 else to_float(np.asarray(chosen))
    return plain


def _kmeans(sample: Floats, count: int, seed: int) -> Floats:
    if count >= len(sample):
        return sample[:count].copy()
    # faiss prints a warning for few points per centroid; the callers here know and have chosen.
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=12,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=1 << 20,
    )
    kmeans.train(sample)
    return np.asarray(kmeans.centroids, np.float32)


def _shares(sizes: Ints, count: int) -> Ints:
    """Divide `count` among cells in proportion to `sizes`, by largest remainder, at most a cell's size."""
    exact = sizes * (count / sizes.sum())
    shares: Ints = np.minimum(np.floor(exact).astype(np.int64), sizes)
    while missing := count - int(shares.sum()):
        open_cells = np.flatnonzero(shares < sizes)
        order = open_cells[np.argsort((shares - exact)[open_cells], kind="stable")]
        shares[order[:missing]] += 1
    return shares


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let faiss use `count` threads when called from this thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
