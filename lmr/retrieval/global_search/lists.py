"""Nearest neighbours in inverted lists of the descriptors themselves: whole lists against all their queries.

The gallery's rows lie in lists by their nearest centroid (Sivic & Zisserman, *Video Google*, ICCV 2003;
Jégou et al., *Product quantization for nearest neighbor search*, PAMI 2011). A query looks into the lists of
its nearest centroids. Here the queries of a block are sorted by list: each list is read once, and compared
with all queries that look into it. Products are of whole numbers of 16 bits, of which a processor makes more
than of float32 (`lmr.retrieval.global_search._products`).

Within the lists the search is exact, by the rule of `lmr.retrieval.global_search.exact`: products only tell
who is worth a closer look, however rounding has moved them, and who is kept is decided in float64. Which
lists are looked into is decided so, too. So the result is the same to the bit, however queries are cut into
blocks.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.global_search._candidates import NEVER, by_list, choose_above, collect, finish, pack, take
from lmr.retrieval.global_search._products import BLOCK, WIDTH
from lmr.retrieval.global_search.exact import Descriptors, _plain_or_bits, spans

__all__ = ["Lists", "build_lists", "nearest_lists", "search_lists"]

QUERIES_AT_ONCE = 32_768  # the more there are, the fewer times a list is read
VISITS_AT_ONCE = 1 << 22  # of lists by queries: each is sorted, and takes 8 bytes
QUERY_TILE, ROW_TILE = 516, 1024  # 400 kB at 128 dimensions, however long a list is
LARGEST = 32766  # the length of a descriptor in whole numbers: products and their sums fit 32 bits
LEAST_NORM = 1e-12  # shorter ones are as good as zero: the product of two scales fits float32
COARSE_TILE = 256  # queries compared with all centroids at a time
GROUP = 8  # centroids of which the best is looked at first
ADD_AT_ONCE = 65_536
ROOM = 4  # candidates that are collected for each neighbour, before the worst are dropped
LEAST_ROOM = 64
EPSILON = 1.2e-7  # of float32; a sum of d products is off by d times as much at the most


@dataclass
class Lists:
    """Rows of a gallery in lists.

    Attributes
    ----------
    centroids
        (l, d) float32.
    starts
        (l + 1,) int64, where each list begins in `rows`.
    rows
        (m,) int32 gallery rows, list by list, ascending in each. Zero rows are left out.
    longest
        The largest norm of a row.
    probes
        How many lists a query looks into.
    """

    centroids: NDArray[np.float32]
    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    longest: float
    probes: int = 1


def build_lists(
    descriptors: Descriptors, sample: NDArray[np.float32], lists: int, *, rounds: int, threads: int = 1
) -> Lists:
    """Train centroids on a sample, and put each row of the gallery into the list of its nearest one.

    Parameters
    ----------
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`; read in blocks.
    sample
        (s, d) float32, at least as many as lists.
    lists
        How many.
    rounds
        Of k-means.
    threads
        faiss's threads: a setting of the process.
    """
    faiss.omp_set_num_threads(threads)
    n, d = descriptors.shape
    clustering = faiss.Clustering(d, lists)
    clustering.niter, clustering.spherical = rounds, True
    clustering.min_points_per_centroid = 1
    coarse = faiss.IndexFlatIP(d)
    clustering.train(sample, coarse)
    centroids = np.ascontiguousarray(coarse.reconstruct_n(0, lists))
    nearest = np.full(n, lists, dtype=np.int32)  # a zero row belongs to no list
    longest = 0.0
    for start, stop in spans(n, ADD_AT_ONCE):
        block = np.asarray(descriptors[start:stop], dtype=np.float32)
        norms = np.linalg.norm(block, axis=1)
        longest = max(longest, float(norms.max()))
        if len(known := np.flatnonzero(norms)):
            nearest[known + start] = coarse.search(block[known], 1)[1][:, 0]
    counts = np.bincount(nearest, minlength=lists + 1)[:lists]
    rows = np.argsort(nearest, kind="stable")[: counts.sum()].astype(np.int32)
    return Lists(centroids, np.concatenate(([0], np.cumsum(counts))), rows, longest)


def search_lists(
    lists: Lists,
    queries: NDArray[np.float32],
    k: int,
    descriptors: Descriptors,
    *,
    threads: int = 1,
) -> NDArray[np.int32]:
    """Find candidates for the `k` nearest rows of each query in the lists of its nearest centroids.

    Parameters
    ----------
    lists
        From `build_lists`.
    queries
        (q, d) float32. A zero row gets no candidates.
    k
        Neighbours per query.
    descriptors
        (n, d) float16 or float32 of the gallery, possibly a `np.memmap`.
    threads
        Threads over blocks of queries. BLAS should then run on one thread.

    Returns
    -------
    (q, c) int32
        All rows that may be among the `k` nearest in these lists, -1 for none, in no order:
        `lmr.retrieval.global_search.exact.best_listed` tells which of them are.
    """
    plain = np.ascontiguousarray(queries, dtype=np.float32)
    room = max(ROOM * k, LEAST_ROOM)
    found = np.full((len(plain), room), -1, dtype=np.int32)
    bits = _plain_or_bits(descriptors)
    most = max(1, min(QUERIES_AT_ONCE, VISITS_AT_ONCE // lists.probes))
    blocks = max(-(-len(plain) // most), threads)
    at_once = max(1, -(-len(plain) // blocks))  # blocks of one size, each of which reads every list

    def part(span: tuple[int, int]) -> None:
        lo, hi = span
        looked = nearest_lists(lists.centroids, plain[lo:hi], lists.probes)
        _search_block(lists, looked, plain[lo:hi], k, bits, found[lo:hi])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, spans(len(plain), at_once)))
    return found


def nearest_lists(
    centroids: NDArray[np.float32], queries: NDArray[np.float32], probes: int
) -> NDArray[np.int32]:
    """Find the `probes` nearest centroids of each query, exactly, in no order.

    Parameters
    ----------
    centroids
        (l, d) float32.
    queries
        (q, d) float32.
    probes
        How many, up to `l`.

    Returns
    -------
    (q, probes) int32. Of centroids at the same similarity those with the lowest numbers are taken.
    """
    found = np.empty((len(queries), probes), dtype=np.int32)
    longest = float(np.linalg.norm(centroids, axis=1).max(initial=0))
    slack = _slack(queries, longest)
    for lo, hi in spans(len(queries), COARSE_TILE):
        products = queries[lo:hi] @ centroids.T
        # The p-th largest of the best of groups is no larger than that of all, and found sooner.
        groups = max(len(centroids) // GROUP, probes)
        whole = products[:, : len(centroids) // groups * groups].reshape(hi - lo, -1, groups)
        best = np.ascontiguousarray(whole.max(axis=1))
        choose_above(queries[lo:hi], centroids, products, best, slack[lo:hi], found[lo:hi])
    return found


def _slack(queries: NDArray[np.float32], longest: float) -> NDArray[np.float32]:
    """Return by how much a product of float32 may be off, for each query and rows up to so long."""
    norms = np.linalg.norm(queries, axis=1)
    return np.asarray(norms * longest * queries.shape[1] * EPSILON, dtype=np.float32)


def _search_block(
    lists: Lists,
    looked: NDArray[np.int32],
    queries: NDArray[np.float32],
    k: int,
    bits: NDArray[Any],
    found: NDArray[np.int32],
) -> None:
    """Write to `found`, (q, room) of -1, the candidates of a block of queries."""
    sizes = np.diff(lists.starts)
    begin, which = by_list(looked, len(sizes))
    whole, scales = _whole_numbers(queries)
    row_scale = np.float32(LARGEST / max(lists.longest, LEAST_NORM))
    pairs = whole.shape[1] // 2
    asking = np.zeros((-(-QUERY_TILE // BLOCK) * BLOCK, pairs), np.int32)
    tile = np.empty((-(-ROW_TILE // WIDTH), pairs, WIDTH), np.int32)
    bars = np.where(queries.any(axis=1), -NEVER, NEVER)
    kept = np.empty(found.shape, np.int32), found, np.zeros(len(queries), np.int32), bars
    # Each number is rounded by half at the most, and float32 adds a hundredth to that; the rest is for sums
    # that float32 cannot tell apart.
    slack = np.int32(1.02 * np.sqrt(pairs * 2) * (LARGEST + pairs) + 256)
    about = queries, bits, k, scales * row_scale, slack
    for place in np.flatnonzero(np.diff(begin)):
        for first, end in spans(int(sizes[place]), ROW_TILE):
            rows = lists.rows[lists.starts[place] + first : lists.starts[place] + end]
            pack(bits, rows, row_scale, tile)
            for lo, hi in spans(int(begin[place + 1] - begin[place]), QUERY_TILE):
                mine = which[begin[place] + lo : begin[place] + hi]
                take(whole.view(np.int32), mine, asking)
                collect(asking, mine, tile, rows, about, kept)
    finish(about, kept)


def _whole_numbers(queries: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Return queries as whole numbers, each of one length, (q, d rounded up to even), and their scales."""
    norms = np.linalg.norm(queries, axis=1)
    scales = np.divide(LARGEST, norms, out=np.zeros_like(norms), where=norms > LEAST_NORM)
    whole = np.zeros((len(queries), queries.shape[1] + queries.shape[1] % 2), np.int16)
    product = queries * scales[:, None]
    whole[:, : queries.shape[1]] = np.rint(product, out=product)
    return whole, scales
