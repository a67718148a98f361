"""Diffusion ahead of time: one truncated column of (I - alpha S)^-1 per node, queries a sparse product.

Yang et al., *Efficient image retrieval via decoupling diffusion into online and offline processing* (AAAI
2019). Each node's column is solved on the cut of the graph that its nearest `t` nodes make; it serves every
later query. Columns of different nodes are independent, so shard tasks each make some. Nodes that are close
to one another share the work if they are in the same shard: `neighbourly_order` says how to cut.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import LmrError
from lmr.retrieval.diffusion.online import Scores, diffuse_cut
from lmr.retrieval.global_search.exact import spans

__all__ = [
    "columns_matrix",
    "compare_columns",
    "neighbourhoods",
    "neighbourly_order",
    "offline_columns",
    "search_columns",
]


def offline_columns(
    transition: csr_array,
    nodes: NDArray[np.integer[Any]],
    lists: NDArray[np.integer[Any]],
    *,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    iterations: int = 20,
    threads: int = 1,
) -> tuple[NDArray[np.int32], Scores]:
    """Solve the truncated columns of some nodes.

    Parameters
    ----------
    transition
        (n, n) CSR with sorted columns, S of `lmr.retrieval.diffusion.affinity.transition`, float32 or
        float64.
    nodes
        (b,) the nodes.
    lists
        (b, t) each one's nearest nodes, best first. It may hold the node itself or lack it (then the node
        takes the place of the last), and may hold -1 and repeats.
    alpha, tolerance, iterations
        As in `lmr.retrieval.diffusion.online.diffuse`.
    threads
        Threads, each with 4 bytes of work space per node of the graph.

    Returns
    -------
    ids, scores : (b, t) int32, (b, t) in the precision of `transition`
        The cut, its own node first, and the column's values there. Where diffusion does not reach, the score
        is 0.
    """
    if lists.ndim != 2 or len(lists) != len(nodes) or lists.shape[1] == 0:
        raise LmrError(
            "nodes and lists do not fit",
            got=f"{len(nodes)} nodes, lists {lists.shape}",
            fix="give one list per node",
        )
    if len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < transition.shape[0]:
        raise LmrError(
            "a node lies outside the graph",
            got=f"{int(nodes.min())} to {int(nodes.max())} of {transition.shape[0]}",
            fix="make the lists and the graph from the same gallery",
        )
    if lists.size and int(lists.max()) >= transition.shape[0]:
        raise LmrError(
            "a listed node lies outside the graph",
            got=f"{int(lists.max())} of {transition.shape[0]}",
            fix="make the lists and the graph from the same gallery",
        )
    nodes, lists = nodes.astype(np.int32), np.ascontiguousarray(lists, dtype=np.int32)
    cuts = np.full(lists.shape, -1, dtype=np.int32)

    def part(span: tuple[int, int]) -> None:
        rows = slice(*span)
        _own_node_first(nodes[rows], lists[rows], transition.shape[0], cuts[rows])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, spans(len(nodes), -(-len(nodes) // threads) or 1)))
    one = np.ones((len(nodes), 1), dtype=transition.dtype)
    scores = diffuse_cut(
        transition,
        cuts,
        cuts[:, :1],
        one,
        renormalise=False,
        alpha=alpha,
        tolerance=tolerance,
        iterations=iterations,
        threads=threads,
    )
    return cuts, scores


def neighbourhoods(graph: csr_array, nodes: NDArray[np.integer[Any]], size: int) -> NDArray[np.int32]:
    """List the nodes around each node, for `offline_columns`, by the graph's own edges: no further search.

    A list grows by whole steps along edges; of the step that no longer fits, the nodes most strongly joined
    to what is listed stay. Mass comes to nodes along edges only, so a list that holds all that can be reached
    loses nothing, however short it is.

    Parameters
    ----------
    graph
        (n, n) CSR, symmetric: the affinity or the transition.
    nodes
        (b,) the nodes.
    size
        Length of the lists.

    Returns
    -------
    (b, size) int32, its own node first, padded with -1.
    """
    args = graph.indptr.astype(np.int64), np.asarray(graph.indices), np.asarray(graph.data)
    return np.asarray(_neighbourhoods(*args, nodes.astype(np.int32), size))


def columns_matrix(ids: NDArray[np.int32], scores: Scores, n: int) -> csr_array:
    """Arrange truncated columns as the rows of a (b, n) CSR with sorted indices, without zeros."""
    hit = (ids >= 0) & (scores != 0)
    starts = np.concatenate(([0], np.cumsum(hit.sum(axis=1))))
    matrix = csr_array((scores[hit], ids[hit], starts), shape=(len(ids), n))
    matrix.sort_indices()
    return matrix


def search_columns(
    restart_ids: NDArray[np.int32], restart_values: Scores, columns: csr_array, first_node: int = 0
) -> csr_array:
    """Score the gallery for queries outside the graph: the mix of the columns of each query's nearest nodes.

    Parameters
    ----------
    restart_ids, restart_values
        (q, s) nearest nodes and weights, from `lmr.retrieval.diffusion.online.restart`; -1 for none.
    columns
        (b, n) CSR from `columns_matrix`, the columns of nodes `first_node` to `first_node + b`.
    first_node
        The first node of this shard of columns. The scores of all shards add up to those of the whole.

    Returns
    -------
    (q, n) CSR of scores.
    """
    mine = (restart_ids >= first_node) & (restart_ids < first_node + columns.shape[0])
    starts = np.concatenate(([0], np.cumsum(mine.sum(axis=1))))
    mix = csr_array(
        (restart_values[mine], restart_ids[mine] - first_node, starts),
        shape=(len(restart_ids), columns.shape[0]),
    )
    return csr_array(mix @ columns)


def compare_columns(query_columns: csr_array, gallery_columns: csr_array) -> csr_array:
    """Score the gallery for queries that are nodes of the graph: the cosine of two nodes' columns.

    Parameters
    ----------
    query_columns, gallery_columns
        (q, n) and (g, n) CSR from `columns_matrix`, over the same graph of queries and gallery.

    Returns
    -------
    (q, g) CSR of scores.
    """
    if query_columns.shape[1] != gallery_columns.shape[1]:
        raise LmrError(
            "the columns are of different graphs",
            got=f"{query_columns.shape[1]} and {gallery_columns.shape[1]} nodes",
            fix="diffuse queries and gallery on one graph",
        )
    return csr_array(_unit_rows(query_columns) @ _unit_rows(gallery_columns).T)


def neighbourly_order(ids: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Order all nodes so that neighbours stand together; spans of it make good shards for `offline_columns`.

    Parameters
    ----------
    ids
        (n, k) int32 neighbour lists, -1 for none.

    Returns
    -------
    (n,) int32, a permutation: from each node not yet taken, its neighbours' neighbourhood is walked breadth
    first.
    """
    return np.asarray(_walk(np.asarray(ids)), dtype=np.int32)


def _unit_rows(matrix: csr_array) -> csr_array:
    norms = np.sqrt(matrix.multiply(matrix).sum(axis=1, dtype=np.float64))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    data = (matrix.data * np.repeat(scale, np.diff(matrix.indptr))).astype(matrix.dtype)
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


@njit(nogil=True, cache=True)
def _own_node_first(nodes: Any, lists: Any, n: Any, cuts: Any) -> None:
    """Write to `cuts`, all -1, the lists without repeats, each with its own node at the head."""
    b, t = lists.shape
    seen = np.full(n, -1, dtype=np.int32)
    for row in range(b):
        cuts[row, 0] = nodes[row]
        seen[nodes[row]] = row
        place = 1
        for node in lists[row]:
            if place < t and node >= 0 and seen[node] != row:
                cuts[row, place] = node
                seen[node] = row
                place += 1


@njit(nogil=True, cache=True)
def _walk(ids: Any) -> Any:
    n = len(ids)
    order, taken = np.empty(n, dtype=np.int32), np.zeros(n, dtype=np.bool_)
    count = 0
    for root in range(n):
        if taken[root]:
            continue
        taken[root] = True
        order[count] = root
        head, count = count, count + 1
        while head < count:
            for node in ids[order[head]]:
                if node >= 0 and not taken[node]:
                    taken[node] = True
                    order[count] = node
                    count += 1
            head += 1
    return order


@njit(nogil=True, cache=True)
def _neighbourhoods(indptr: Any, indices: Any, data: Any, nodes: Any, size: Any) -> Any:
    n = len(indptr) - 1
    lists = np.full((len(nodes), size), -1, dtype=np.int32)
    # The row that a node was last listed, or considered, for, counted from 1; what joins it to the list.
    listed, considered = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.int32)
    strength, waiting = np.zeros(n, dtype=np.float32), np.empty(n, dtype=np.int32)
    for row in range(len(nodes)):
        mark, count, begin = np.int32(row + 1), 1, 0
        lists[row, 0] = nodes[row]
        listed[nodes[row]] = mark
        while begin < count < size:
            waits = 0
            for place in range(begin, count):
                node = lists[row, place]
                for e in range(np.uint64(indptr[node]), np.uint64(indptr[node + 1])):
                    other = np.uint64(indices[e])
                    if listed[other] == mark:
                        continue
                    if considered[other] != mark:
                        considered[other] = mark
                        strength[other] = 0
                        waiting[waits] = other
                        waits += 1
                    strength[other] += data[e]
            begin = count
            bar, room = np.float32(0), size - count
            if waits > room:
                bar = -np.partition(-strength[waiting[:waits]], room - 1)[room - 1]
            # First all above the bar, then as many as fit of those that are level with it.
            for above in (True, False):
                for w in range(waits):
                    other = waiting[w]
                    if count < size and (strength[other] > bar if above else strength[other] == bar):
                        lists[row, count] = other
                        listed[other] = mark
                        count += 1
    return lists
