"""Nearest neighbours by faiss, where the exact search takes too long; the recall is measured, not assumed.

An inverted file is built once (`build_index`), asked to look into as many lists as the recall target needs on
a sample (`calibrate`), and searched by shard tasks (`search_index`). What it finds is scored again exactly,
so that similarities equal those of `lmr.retrieval.neighbours.top_k` to the bit. `approximate_top_k` does all
three.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.neighbours import Descriptors, clean_neighbours, similarities, spans, top_k

__all__ = ["Measured", "approximate_top_k", "build_index", "calibrate", "choose_index", "search_index"]

EXACT_BELOW = 20_000  # rows; below, the exact search takes less time than building an index
TRAIN_PER_LIST = 40  # faiss asks for 39
ADD_AT_ONCE = 65_536


@dataclass(frozen=True)
class Measured:
    """How an approximate search was set, and how well it did on a sample.

    Attributes
    ----------
    index
        faiss's name of the index, or "exact".
    probes
        Lists looked into per query.
    recall
        Share of the true `k` nearest that the sample's queries found.
    """

    index: str
    probes: int
    recall: float


def choose_index(rows: int, dimensions: int, memory_bytes: int) -> str:
    """Choose faiss's index by the gallery's size: "exact", or an inverted file whose storage fits the memory.

    About 4 sqrt(n) lists; from 4096 on an HNSW graph finds the lists. Vectors are kept whole, as
    float16 or product-quantised, the first that fits `memory_bytes`.
    """
    if rows < EXACT_BELOW:
        return "exact"
    lists = 2 ** round(np.log2(4 * np.sqrt(rows)))
    coarse = f"IVF{lists}_HNSW32" if lists >= 4096 else f"IVF{lists}"
    storage = next(
        (
            name
            for name, bytes_each in (("Flat", 4), ("SQfp16", 2))
            if rows * dimensions * bytes_each <= memory_bytes
        ),
        f"PQ{next(m for m in range(dimensions // 4, 0, -1) if dimensions % m == 0)}"
        if dimensions >= 4
        else "SQfp16",
    )
    return f"{coarse},{storage}"


def build_index(descriptors: Descriptors, name: str, *, seed: int = 0, threads: int = 1) -> Any:
    """Build faiss's index `name` over the gallery; zero rows (photos without descriptor) are left out.

    Parameters
    ----------
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`; read in blocks.
    name
        From `choose_index`, not "exact".
    seed
        Of the sample of rows on which the lists are trained.
    threads
        faiss's threads: a setting of the process.

    Returns
    -------
    A faiss index; `faiss.serialize_index` makes it storable.
    """
    faiss.omp_set_num_threads(threads)
    n, d = descriptors.shape
    index = faiss.index_factory(d, name, faiss.METRIC_INNER_PRODUCT)
    wanted = min(n, TRAIN_PER_LIST * faiss.extract_index_ivf(index).nlist)
    rows = np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))
    sample = np.asarray(descriptors[rows], dtype=np.float32)
    index.train(sample[sample.any(axis=1)])
    for start, stop in spans(n, ADD_AT_ONCE):
        block = np.asarray(descriptors[start:stop], dtype=np.float32)
        known = np.flatnonzero(block.any(axis=1))
        index.add_with_ids(block[known], known + start)
    return index


def calibrate(
    index: Any,
    descriptors: Descriptors,
    k: int,
    *,
    recall: float,
    sample: int = 500,
    seed: int = 0,
    threads: int = 1,
) -> tuple[int, float]:
    """Set the index to look into as many lists as the recall target needs on a sample, by doubling.

    `sample` gallery rows are the queries, themselves excluded, against the exact search. If the target is out
    of reach (quantised storage), all lists are looked into, and the recall says so.

    Returns
    -------
    probes, recall
        Lists looked into per query, and the share of the true `k` nearest that were found so.
    """
    if not 0 < recall <= 1:
        raise LmrError("the recall target is no share", got=str(recall), fix="use a number above 0, up to 1")
    n = len(descriptors)
    rows = np.sort(np.random.default_rng(seed).choice(n, min(sample, n), replace=False))
    queries = np.asarray(descriptors[rows], dtype=np.float32)
    blocks = ((start, descriptors[start:stop]) for start, stop in spans(n, ADD_AT_ONCE))
    _, near = top_k(queries, blocks, k + 1, threads=threads)
    true = [set(ids[ids != row][:k].tolist()) - {-1} for row, ids in zip(rows, near, strict=True)]
    inverted = faiss.extract_index_ivf(index)
    probes = 1
    while True:
        inverted.nprobe = probes
        _, found = search_index(index, queries, k + 1, descriptors, threads=threads)
        hits = sum(
            len(t & set(ids[ids != row][:k].tolist())) for t, row, ids in zip(true, rows, found, strict=True)
        )
        reached = hits / max(1, sum(map(len, true)))
        if reached >= recall or probes >= inverted.nlist:
            return probes, reached
        probes = min(2 * probes, inverted.nlist)


def search_index(
    index: Any,
    queries: NDArray[np.float32],
    k: int,
    descriptors: Descriptors,
    *,
    exclude_self_start: int | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search a built index, in the form and with the similarities of `lmr.retrieval.neighbours.top_k`.

    Parameters
    ----------
    index
        From `build_index`.
    queries
        (q, d) float32.
    k
        Neighbours per query. Twice as many are fetched from quantised storage, before the exact scoring.
    descriptors
        (n, d) the gallery, for the exact scoring.
    exclude_self_start
        As in `top_k`.
    threads
        faiss's threads: a setting of the process.

    Returns
    -------
    sims, ids : (q, k) float32, (q, k) int32
    """
    faiss.omp_set_num_threads(threads)
    quantised = isinstance(faiss.extract_index_ivf(index), faiss.IndexIVFPQ)
    _, ids = index.search(np.ascontiguousarray(queries, dtype=np.float32), (2 * k if quantised else k) + 1)
    ids = ids.astype(np.int32)
    ids[~queries.any(axis=1)] = -1
    sims, ids = clean_neighbours(ids, similarities(queries, ids, descriptors), self_start=exclude_self_start)
    return sims[:, :k], ids[:, :k]


def approximate_top_k(
    queries: NDArray[np.float32],
    descriptors: Descriptors,
    k: int,
    *,
    recall: float = 0.95,
    memory_bytes: int = 4 * 2**30,
    exclude_self_start: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32], Measured]:
    """Find about the `k` nearest gallery rows of each query, and measure how well that was done.

    Parameters
    ----------
    queries
        (q, d) float32.
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`.
    k
        Neighbours per query.
    recall
        Target, measured on a sample of gallery rows.
    memory_bytes
        What the index may take.
    exclude_self_start, threads
        As in `top_k`.
    seed
        Of the samples for training and for measuring.
    """
    rows, dimensions = descriptors.shape
    name = choose_index(rows, dimensions, memory_bytes)
    if name == "exact":
        blocks = ((start, descriptors[start:stop]) for start, stop in spans(len(descriptors), ADD_AT_ONCE))
        sims, ids = top_k(queries, blocks, k, exclude_self_start=exclude_self_start, threads=threads)
        return sims, ids, Measured("exact", 0, 1.0)
    index = build_index(descriptors, name, seed=seed, threads=threads)
    probes, reached = calibrate(index, descriptors, k, recall=recall, seed=seed, threads=threads)
    sims, ids = search_index(
        index, queries, k, descriptors, exclude_self_start=exclude_self_start, threads=threads
    )
    return sims, ids, Measured(name, probes, reached)
