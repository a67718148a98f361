"""The mutual kNN graph: from neighbour lists to the normalised affinity on which ranks diffuse.

Photos (or regions) i and j are joined if each is in the other's list, with weight similarity^gamma, as in
Iscen et al., *Efficient diffusion on region manifolds* (CVPR 2017). Rows are made from lists alone, so that
shard tasks can each make some: `affinity_rows`, then, once all degrees are known, `transition_rows`.
`affinity` and `transition` make all.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from lmr.errors import LmrError
from lmr.retrieval.global_search.exact import spans

__all__ = ["affinity", "affinity_rows", "graph_of_edges", "transition", "transition_rows"]

ROWS_AT_ONCE = 16384

Similarities = NDArray[np.float32] | NDArray[np.float64]


def affinity(
    ids: NDArray[np.integer[Any]], sims: Similarities, *, gamma: float, threads: int = 1
) -> csr_array:
    """Build the affinity of the mutual kNN graph, all rows.

    Parameters
    ----------
    ids
        (n, k) integer neighbour lists, possibly `np.memmap`. A list may hold its own node or lack it, and may
        hold -1 (none) and repeats (the first one counts).
    sims
        (n, k) float32 or float64 similarities; the result has their precision.
    gamma
        Exponent of the similarity. Negative similarities give no edge.
    threads
        Threads over rows.

    Returns
    -------
    (n, n) CSR, symmetric, sorted columns, empty diagonal.
    """
    parts = spans(len(ids), ROWS_AT_ONCE)
    with ThreadPoolExecutor(threads) as pool:
        rows = list(pool.map(lambda part: affinity_rows(ids, sims, *part, gamma=gamma), parts))
    return csr_array(vstack(rows, format="csr"))


def affinity_rows(
    ids: NDArray[np.integer[Any]], sims: Similarities, start: int, stop: int, *, gamma: float
) -> csr_array:
    """Build rows `start` to `stop` (exclusive) of `affinity`, as (stop - start, n) CSR.

    `ids` and `sims` are the lists of all nodes; of a `np.memmap` only the lists of these rows and of their
    neighbours are read.
    """
    _check_lists(ids, sims, start, stop)
    if gamma < 0:
        raise LmrError(
            "the exponent of the similarity is negative", got=f"gamma = {gamma}", fix="use 0 or more"
        )
    size = (stop - start) * ids.shape[1]
    counts = np.zeros(stop - start + 1, dtype=np.int64)
    columns, values = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float64)
    # np.asarray: Numba takes plain arrays; of a memory map this is a view.
    edges = _mutual(np.asarray(ids), np.asarray(sims), start, stop, counts, columns, values)
    data = (values[:edges] ** gamma).astype(sims.dtype)
    rows = csr_array((data, columns[:edges], np.cumsum(counts)), shape=(stop - start, len(ids)))
    rows.sort_indices()
    return rows


def graph_of_edges(
    values: NDArray[np.floating[Any]], columns: NDArray[np.int32], offsets: NDArray[np.integer[Any]]
) -> csr_array:
    """View edges, possibly those of a `np.memmap`, as an (n, n) CSR without copying them.

    SciPy widens int32 columns to int64, in memory, where the offsets of the rows are int64.
    """
    fits = len(columns) <= np.iinfo(np.int32).max
    nodes = len(offsets) - 1
    return csr_array(
        (values, columns, offsets.astype(np.int32 if fits else np.int64)), shape=(nodes, nodes), copy=False
    )


def transition(affinity: csr_array) -> csr_array:
    """Normalise an affinity A to S = D^-1/2 A D^-1/2; a node without edges keeps an empty row."""
    return transition_rows(affinity, 0, affinity.sum(axis=1, dtype=np.float64))


def transition_rows(affinity_rows: csr_array, start: int, degrees: NDArray[np.floating[Any]]) -> csr_array:
    """Normalise some rows of an affinity.

    Parameters
    ----------
    affinity_rows
        (b, n) CSR, rows `start` to `start + b` of the affinity.
    degrees
        (n,) the row sums of the whole affinity.

    Returns
    -------
    (b, n) CSR of the same precision.
    """
    b, n = affinity_rows.shape
    if len(degrees) != n or start + b > n:
        raise LmrError(
            "degrees and affinity rows do not fit",
            got=f"{len(degrees)} degrees, rows {start} to {start + b} of {n}",
            fix="give the row sums of the whole affinity",
        )
    sums = np.asarray(degrees, dtype=np.float64)
    scale = np.divide(1.0, np.sqrt(sums), out=np.zeros(n), where=sums > 0)
    per_edge = (
        np.repeat(scale[start : start + b], np.diff(affinity_rows.indptr)) * scale[affinity_rows.indices]
    )
    data = (affinity_rows.data * per_edge).astype(affinity_rows.dtype)
    return csr_array((data, affinity_rows.indices, affinity_rows.indptr), shape=(b, n))


def _check_lists(ids: NDArray[np.integer[Any]], sims: Similarities, start: int, stop: int) -> None:
    if ids.ndim != 2 or ids.shape != sims.shape:
        raise LmrError(
            "neighbour ids and similarities do not fit",
            got=f"{ids.shape} and {sims.shape}",
            fix="give two (n, k) arrays",
        )
    if not 0 <= start <= stop <= len(ids):
        raise LmrError(
            "rows outside the graph",
            got=f"{start} to {stop} of {len(ids)}",
            fix="give lists for all nodes of the graph",
        )
    if stop > start and ids.shape[1] > 0 and int(ids[start:stop].max()) >= len(ids):
        raise LmrError(
            "a neighbour lies outside the graph",
            got=f"node {int(ids[start:stop].max())} of {len(ids)}",
            fix="make the lists and the graph from the same gallery",
        )


@njit(nogil=True, cache=True)
def _mutual(ids: Any, sims: Any, start: Any, stop: Any, counts: Any, columns: Any, values: Any) -> Any:
    """Write the mutual edges of rows start..stop, and their counts to `counts[1:]`; return their number."""
    k = ids.shape[1]
    edges = 0
    for i in range(start, stop):
        before = edges
        for a in range(k):
            j = ids[i, a]
            if j < 0 or j == i or not sims[i, a] > 0:
                continue
            repeat = False
            for e in range(before, edges):
                repeat = repeat or columns[e] == j
            if repeat:
                continue
            for b in range(k):
                if ids[j, b] == i:
                    # The two directions may differ in the last bits; their mean is symmetric.
                    both = 0.5 * (np.float64(sims[i, a]) + np.float64(sims[j, b]))
                    if sims[j, b] > 0:
                        columns[edges] = j
                        values[edges] = both
                        edges += 1
                    break
        counts[i - start + 1] = edges - before
    return edges
