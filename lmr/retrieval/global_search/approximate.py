"""Nearest neighbours in lists, where the exact search takes too long; the recall is measured, not assumed.

An inverted file is chosen by size (`choose_index`), built once (`build_ann_index`), asked to look into as
many lists as the recall target needs on a sample (`choose_probes`), and searched by shard tasks
(`search_ann_index`). Where the descriptors fit the memory they are compared themselves
(`lmr.retrieval.global_search.lists`). Where they do not, faiss holds codes of 4 bits per dimension, whose
distances are looked up in registers (André et al., *Cache locality is not enough: high-performance nearest
neighbor search with product quantization fast scan*, VLDB 2015). Either way the best are scored again
exactly, so that similarities equal those of `lmr.retrieval.global_search.exact.top_k` to the bit.
"""

from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from lmr.errors import LmrError
from lmr.retrieval.global_search.exact import Descriptors, best_listed, spans, top_k
from lmr.retrieval.global_search.lists import Lists, build_lists, search_lists

__all__ = [
    "SAMPLE",
    "build_ann_index",
    "choose_probes",
    "choose_index",
    "choose_lists",
    "compares_descriptors",
    "look_into",
    "search_ann_index",
    "search_ann_indexes",
]

SAMPLE = 500  # gallery rows on which the recall is measured
LEAST_GAIN = 0.005  # of recall by looking into twice as many lists; less than it, quantisation is the limit
TRAIN_PER_LIST = 40  # faiss asks for 39
GRAPH_FROM_LISTS = 1 << 16  # below, comparing with every centroid is as fast, and misses no list
TRAIN_ROUNDS = 10  # of k-means; more gain no recall that can be measured
CODE_WORDS = 16  # that a code of 4 bits tells apart
ADD_AT_ONCE = 65_536
FETCHED = 4  # candidates by codes for each neighbour by descriptors
QUERIES_AT_ONCE = 4096  # each has tables of distances of its own
MEANINGFUL = 0.2  # of the way from the nearest of random vectors to a copy
PROBES_OF_NOISE = 16
PLAIN = "Flat"  # descriptors as they are, in faiss's words
FEW = 1000  # rows that are compared whatever the memory: codes lose some of so few, and save nothing
CODED = (1, 2, 4, 8)  # dimensions that share a code of 4 bits


def choose_index(rows: int, dimensions: int, memory_bytes: int) -> str:
    """Choose an index by the gallery's size, in faiss's words: "IVF4096,Flat".

    The power of two nearest to 4 sqrt(n) lists, or the next lower one that leaves each list enough rows to be
    trained on. Descriptors are compared as they are where they are few, or `memory_bytes` holds them as
    float16. Else they have codes of 4 bits per dimension. Where these do not fit either, two, four or eight
    dimensions share a code. From 65,536 lists on an HNSW graph finds the lists of codes.
    """
    lists = choose_lists(rows)
    if compares_descriptors(rows, dimensions, memory_bytes):
        return f"IVF{lists},{PLAIN}"
    coarse = f"IVF{lists}_HNSW32" if lists >= GRAPH_FROM_LISTS else f"IVF{lists}"
    codes = [dimensions // shared for shared in CODED if dimensions % shared == 0]
    fitting = [m for m in codes if rows * m / 2 <= memory_bytes]
    return f"{coarse},PQ{fitting[0] if fitting else codes[-1]}x4fs"


def compares_descriptors(rows: int, dimensions: int, memory_bytes: int) -> bool:
    """Tell whether descriptors are compared as they are: few, or as many as the memory holds as float16."""
    return rows <= FEW or 2.0 * rows * dimensions <= memory_bytes


def choose_lists(rows: int) -> int:
    """Return how many lists `choose_index` asks for; an index is trained on `TRAIN_PER_LIST` rows of each."""
    trainable = np.floor(np.log2(max(rows / TRAIN_PER_LIST, 1)))
    return int(2 ** min(round(np.log2(4 * np.sqrt(max(rows, 1)))), trainable))


def build_ann_index(descriptors: Descriptors, name: str, *, seed: int = 0, threads: int = 1) -> Any:
    """Build the index `name` over the gallery; zero rows (photos without descriptor) are left out.

    Parameters
    ----------
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`; read in blocks.
    name
        From `choose_index`.
    seed
        Of the sample of rows on which the lists are trained.
    threads
        faiss's threads: a setting of the process.

    Returns
    -------
    `Lists` for a name of plain descriptors, such as "IVF4096,Flat"; else a faiss index, which
    `faiss.serialize_index` makes storable.
    """
    faiss.omp_set_num_threads(threads)
    n, d = descriptors.shape
    if name.endswith(f",{PLAIN}"):
        lists = int(name.removeprefix("IVF").removesuffix(f",{PLAIN}"))
        return build_lists(
            descriptors, _sample(descriptors, lists, seed), lists, rounds=TRAIN_ROUNDS, threads=threads
        )
    index = faiss.index_factory(d, name, faiss.METRIC_INNER_PRODUCT)
    inverted: Any = faiss.downcast_index(faiss.extract_index_ivf(index))
    inverted.cp.niter = TRAIN_ROUNDS
    for clustering in (inverted.cp, *([inverted.pq.cp] if hasattr(inverted, "pq") else [])):
        clustering.min_points_per_centroid = 1  # of a small gallery faiss would warn for every centroid
    index.train(_sample(descriptors, inverted.nlist, seed))
    for start, stop in spans(n, ADD_AT_ONCE):
        block = np.asarray(descriptors[start:stop], dtype=np.float32)
        known = np.flatnonzero(block.any(axis=1))
        index.add_with_ids(block[known], known + start)
    return index


def _sample(descriptors: Descriptors, lists: int, seed: int) -> NDArray[np.float32]:
    """Draw the rows on which so many lists are trained."""
    n = len(descriptors)
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, TRAIN_PER_LIST * lists), replace=False))
    sample = np.asarray(descriptors[rows], dtype=np.float32)
    return _enough(sample[sample.any(axis=1)], lists, seed)


def _enough(sample: NDArray[np.float32], lists: int, seed: int) -> NDArray[np.float32]:
    """Return a sample with random rows added where faiss refuses to learn from so few.

    A gallery may hold next to nothing that has a descriptor.
    """
    missing = max(lists, CODE_WORDS) - len(sample)
    if missing <= 0:
        return sample
    more = np.random.default_rng(seed).standard_normal((missing, sample.shape[1]), np.float32)
    return np.concatenate([sample, more / np.linalg.norm(more, axis=1, keepdims=True)])


def choose_probes(
    index: Any,
    descriptors: Descriptors,
    k: int,
    *,
    recall: float,
    sample: int = SAMPLE,
    seed: int = 0,
    threads: int = 1,
) -> tuple[int, float]:
    """Set the index to look into as many lists as the recall target needs on a sample, by doubling.

    Of plain descriptors the last doubling is tried in quarters, since there the recall tells of lists alone.

    `sample` gallery rows are the queries, themselves excluded, against the exact search. With codes
    the target may be out of reach: then doubling ends where it gains less than `LEAST_GAIN`. Only rows whose
    neighbours mean something are asked: the nearest of random vectors lie in all lists alike, and to find
    them takes all of them. Where no row has such neighbours, `PROBES_OF_NOISE` lists are looked into.

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
    sims, near = top_k(queries, blocks, k + 1, threads=threads)
    telling = _telling(queries, rows, sims, near, k, n)
    noise = not telling.any()
    if not noise:
        rows, queries, near = rows[telling], queries[telling], near[telling]
    true = [set(ids[ids != row][:k].tolist()) - {-1} for row, ids in zip(rows, near, strict=True)]
    coded, lists = _coded(index), _lists(index)

    def reached(probes: int) -> float:
        look_into(index, probes)
        _, found = search_ann_index(index, queries, k + 1, descriptors, threads=threads)
        hits = sum(
            len(t & set(ids[ids != row][:k].tolist())) for t, row, ids in zip(true, rows, found, strict=True)
        )
        total = sum(map(len, true))
        return hits / total if total else 1.0  # where there is nothing to find, nothing is lost

    probes, before = min(PROBES_OF_NOISE, lists) if noise else 1, 0.0
    while True:
        share = reached(probes)
        stuck = coded and 0 < share < before + LEAST_GAIN
        if share >= recall or probes >= lists or stuck or noise:
            break
        probes, before = min(2 * probes, lists), share
    if not coded and not noise and share >= recall:
        for fewer in range(max(1, 5 * probes // 8), probes, max(1, probes // 8)):
            if (less := reached(fewer)) >= recall:
                return fewer, less
        look_into(index, probes)
    return probes, share


def _telling(
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    sims: NDArray[np.float32],
    near: NDArray[np.int32],
    k: int,
    n: int,
) -> NDArray[np.bool_]:
    """Mark the queries whose k nearest are farther above the usual similarity than those of noise would be.

    In a gallery of which a tenth or more is asked for nothing can be told, and all are marked.
    """
    known = queries.any(axis=1)
    if n < 10 * k or known.sum() < 10:
        return np.ones(len(queries), np.bool_)
    others = (queries[known] @ queries[known].T)[~np.eye(int(known.sum()), dtype=bool)]
    # Of random unit vectors of d dimensions, similarities vary by 1 / d and follow a beta law.
    usual, freedom = float(others.mean()), max(1 / max(float(others.var()), 1e-6) - 1, 1.0) / 2
    nearest = float(2 * beta.isf((np.arange(k) + 0.5) / n, freedom, freedom).mean() - 1)
    bar = usual + (1 - usual) * (nearest + MEANINGFUL * (1 - nearest))
    listed = (near != rows[:, None]) & (near >= 0)
    mean = np.where(listed, sims, 0).sum(axis=1) / np.maximum(listed.sum(axis=1), 1)
    return np.asarray(known & (mean > bar))


def look_into(index: Any, probes: int) -> None:
    """Set how many lists a search looks into; a graph over the centroids must be walked as widely."""
    if isinstance(index, Lists):
        index.probes = min(probes, _lists(index))
        return
    inverted = faiss.extract_index_ivf(index)
    inverted.nprobe = probes
    coarse = faiss.downcast_index(inverted.quantizer)
    if isinstance(coarse, faiss.IndexHNSW):
        coarse.hnsw.efSearch = max(16, 2 * probes)


def search_ann_index(
    index: Any,
    queries: NDArray[np.float32],
    k: int,
    descriptors: Descriptors,
    *,
    exclude_self_start: int | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search a built index, in the form and with the similarities of `top_k`.

    Parameters
    ----------
    index
        From `build_ann_index`.
    queries
        (q, d) float32.
    k
        Neighbours per query. `FETCHED` times as many are fetched by their codes and scored exactly.
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
    parts = [(0, index)]
    return search_ann_indexes(
        parts, queries, k, descriptors, exclude_self_start=exclude_self_start, threads=threads
    )


def search_ann_indexes(
    parts: Iterable[tuple[int, Any]],
    queries: NDArray[np.float32],
    k: int,
    descriptors: Descriptors,
    *,
    exclude_self_start: int | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search a gallery whose rows are cut into several indexes, opened one after the other.

    What all of them find is scored exactly, so that the best of all are those of the whole gallery.

    Parameters
    ----------
    parts
        Of each index its first gallery row and the index, which numbers its rows from 0.
    queries, k, descriptors, exclude_self_start, threads
        As of `search_ann_index`; `descriptors` are those of the whole gallery.

    Returns
    -------
    sims, ids : (q, k) float32, (q, k) int32
    """
    faiss.omp_set_num_threads(threads)
    plain = np.ascontiguousarray(queries, dtype=np.float32)
    listed = []
    for first, index in parts:
        if isinstance(index, Lists):
            more = k if exclude_self_start is None else k + 1  # of which a query itself may be one
            ids = search_lists(index, plain, more, descriptors[first:], threads=threads)
        else:
            ids = _coded_candidates(index, plain, k)
        ids[ids >= 0] += first
        listed.append(ids)
        del index  # else it is held beside the next one
    ids = listed[0] if len(listed) == 1 else np.concatenate(listed, axis=1)
    ids[~plain.any(axis=1)] = -1
    return best_listed(plain, ids, descriptors, k, exclude_self_start=exclude_self_start)


def _coded_candidates(index: Any, queries: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """Return the best of each query by codes, (q, c) int32, -1 for none."""
    fetched = FETCHED * k + 1
    ids = np.empty((len(queries), fetched), np.int32)
    for lo, hi in spans(len(queries), QUERIES_AT_ONCE):
        ids[lo:hi] = index.search(queries[lo:hi], fetched)[1]
    return ids


def _coded(index: Any) -> bool:
    return not isinstance(index, Lists)


def _lists(index: Any) -> int:
    return len(index.centroids) if isinstance(index, Lists) else int(faiss.extract_index_ivf(index).nlist)
