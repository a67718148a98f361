"""Diffusion: scores spread from what a query has found along the graph's edges, f = (I - alpha S)^-1 y.

Regions of photos are the nodes, as in Iscen et al., *Efficient diffusion on region manifolds* (CVPR 2017); a
gallery with one descriptor per photo is the case of one region. Three steps: `restart` makes y from the
nearest nodes of the query's regions, `diffuse` (whole graph) or `diffuse_cut` (a part of it per query)
solves, `pool_regions` gathers the nodes' scores to photos. `after_diffusion` makes the final order.

Queries are solved eight at a time (`lmr.retrieval.diffusion._conjugate`), in threads of their own: Numba's
thread pool is left alone.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import LmrError
from lmr.retrieval.diffusion._conjugate import LANES, pack_rows, solve, solve_cuts
from lmr.retrieval.diffusion._subgraph import LONGEST_CUT
from lmr.retrieval.global_search.exact import spans

__all__ = ["after_diffusion", "diffuse", "diffuse_cut", "generalised_max_weights", "pool_regions", "restart"]

ROWS_PER_JOB = 512  # of systems that a thread solves in one go; a multiple of LANES

Scores = NDArray[np.float32] | NDArray[np.float64]


def restart(
    region_ids: NDArray[np.integer[Any]],
    region_sims: Scores,
    query_of_region: NDArray[np.integer[Any]],
    queries: int,
    *,
    gamma: float,
    nodes: int,
) -> tuple[NDArray[np.int32], Scores]:
    """Make each query's restart vector y from the nearest nodes of its regions.

    Similarities to the same node are added over the query's regions; the `nodes` largest sums are kept, to
    the power gamma.

    Parameters
    ----------
    region_ids, region_sims
        (r, kq) the nearest nodes of every query region and the similarities; -1 for none.
    query_of_region
        (r,) the query, 0 to `queries` - 1, that each region belongs to.
    queries
        Number of queries.
    gamma
        Exponent; the one of the graph. Negative sums count as 0.
    nodes
        Nodes to keep per query; the paper keeps kq.

    Returns
    -------
    ids, values : (queries, nodes)
        int32 and the precision of `region_sims`, sorted by (-value, id); -1 and 0 for none.
    """
    if region_ids.shape != region_sims.shape or len(query_of_region) != len(region_ids):
        raise LmrError(
            "the query regions' lists do not fit",
            got=f"ids {region_ids.shape}, similarities {region_sims.shape}, owners {query_of_region.shape}",
            fix="give one list and one query number per region",
        )
    ids = np.full((queries, nodes), -1, dtype=np.int32)
    values = np.zeros((queries, nodes), dtype=region_sims.dtype)
    order = np.argsort(query_of_region, kind="stable")
    bounds = np.searchsorted(query_of_region, np.arange(queries + 1), sorter=order)
    for query in range(queries):
        mine = order[bounds[query] : bounds[query + 1]]
        listed = region_ids[mine] >= 0
        found, places = np.unique(region_ids[mine][listed], return_inverse=True)
        sums = np.bincount(places, weights=region_sims[mine][listed], minlength=len(found))
        best = np.lexsort((found, -sums))[:nodes]
        best = best[sums[best] > 0]
        ids[query, : len(best)], values[query, : len(best)] = found[best], sums[best] ** gamma
    return ids, values


def diffuse(
    transition: csr_array,
    restart_ids: NDArray[np.int32],
    restart_values: Scores,
    *,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    iterations: int = 20,
    threads: int = 1,
) -> Scores:
    """Solve (I - alpha S) f = y on the whole graph by conjugate gradient from zero.

    Parameters
    ----------
    transition
        (n, n) CSR, S of `lmr.retrieval.diffusion.affinity.transition`. Sums are in float64
        (`lmr.retrieval.diffusion._conjugate`).
    restart_ids, restart_values
        (q, s) the nonzeros of each y, from `restart`.
    alpha
        How far scores spread, 0 to below 1.
    tolerance, iterations
        A query is done when its residual has shrunk to `tolerance`, and at the latest after `iterations`
        (the paper's 20 are part of its method: they usually end first).
    threads
        Threads, each with its own eight queries and at most four (n, 8) float64 arrays of work space.

    Returns
    -------
    (q, n) scores of the nodes, in the precision of `transition`.
    """
    system = _arrays(transition)
    n = transition.shape[0]
    _check(n, restart_ids, restart_values, alpha)
    scores = np.empty((len(restart_ids), n), dtype=transition.dtype)

    def part(span: tuple[int, int]) -> None:
        lo, hi = span
        y, x, image = np.zeros((n, LANES)), np.empty((n, LANES)), np.empty((n, LANES))
        directions, all_lanes = np.empty((n, LANES), dtype=transition.dtype), np.full(n, 255, dtype=np.uint8)
        query, place = np.nonzero(restart_ids[lo:hi] >= 0)
        np.add.at(y, (restart_ids[lo:hi][query, place], query), restart_values[lo:hi][query, place])
        whole = all_lanes, np.empty((0, LANES)), np.array([n])
        solve(*system, *whole, x, y, directions, image, alpha, tolerance, iterations)
        scores[lo:hi] = x[:, : hi - lo].T

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, spans(len(restart_ids), LANES)))
    return scores


def diffuse_cut(
    matrix: csr_array,
    cuts: NDArray[np.int32],
    restart_ids: NDArray[np.int32],
    restart_values: Scores,
    *,
    renormalise: bool,
    alpha: float = 0.99,
    tolerance: float = 1e-6,
    iterations: int = 20,
    threads: int = 1,
) -> Scores:
    """Solve (I - alpha S) f = y for each query on the part of the graph that it names.

    Parameters
    ----------
    matrix
        (n, n) CSR with sorted columns: the affinity if `renormalise`, else the transition.
    cuts
        (q, t) the nodes of each query's part, best first, -1 for none.
        Queries that see similar parts are solved together, whatever their order here.
    restart_ids, restart_values
        (q, s) the nonzeros of each y; nodes outside the part are left out.
    renormalise
        Whether degrees are counted within the part (Iscen et al.) or in the whole graph (Yang et al.).
    alpha, tolerance, iterations
        As in `diffuse`.
    threads
        Threads, each with 4 bytes of work space per node of the graph, and some 5 kB per node of a cut.

    Returns
    -------
    (q, t) scores of the listed nodes, in the precision of `matrix`. How queries are cut into shards changes
    the order of sums in float64, no more.
    """
    system = _arrays(matrix)
    _check(matrix.shape[0], restart_ids, restart_values, alpha)
    if cuts.ndim != 2 or len(cuts) != len(restart_ids) or (cuts.size and int(cuts.max()) >= matrix.shape[0]):
        raise LmrError(
            "the cuts do not fit the graph or the restarts",
            got=f"cuts {cuts.shape}, restarts {restart_ids.shape}, {matrix.shape[0]} nodes",
            fix="give one list of the graph's nodes per query",
        )
    if cuts.shape[1] > LONGEST_CUT:
        raise LmrError(
            "the cuts are too long", got=f"{cuts.shape[1]} nodes", fix=f"use at most {LONGEST_CUT}"
        )
    scores = np.empty(cuts.shape, dtype=matrix.dtype)
    homes = cuts[:, 0].copy() if cuts.shape[1] else np.full(len(cuts), -1, dtype=np.int32)
    order, longest_row = pack_rows(*system, homes), int(np.diff(system[0]).max(initial=0))

    def part(span: tuple[int, int]) -> None:
        rows = order[slice(*span)]
        found = np.empty((len(rows), cuts.shape[1]), dtype=matrix.dtype)
        y = restart_ids[rows], restart_values[rows]
        solve_cuts(*system, longest_row, cuts[rows], *y, renormalise, alpha, tolerance, iterations, found)
        scores[rows] = found

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, spans(len(order), ROWS_PER_JOB)))
    return scores


def generalised_max_weights(
    vectors: NDArray[np.floating[Any]], image_of_vector: NDArray[np.integer[Any]], *, regulariser: float = 1.0
) -> NDArray[np.float64]:
    """Weigh the regions of each photo so that frequent content does not drown rare content.

    Generalised max pooling: the weights w of a photo with region vectors V solve (V'V + regulariser I) w = 1.

    Parameters
    ----------
    vectors
        (m, d) region descriptors.
    image_of_vector
        (m,) the photo of each region.

    Returns
    -------
    (m,) float64 weights.
    """
    weights = np.empty(len(vectors))
    order = np.argsort(image_of_vector, kind="stable")
    _, firsts, counts = np.unique(image_of_vector[order], return_index=True, return_counts=True)
    for count in np.unique(counts):  # photos with the same number of regions are solved together
        members = order[firsts[counts == count][:, None] + np.arange(count)]
        stacked = np.asarray(vectors[members], dtype=np.float64)
        gram = stacked @ stacked.transpose(0, 2, 1) + regulariser * np.eye(count)
        weights[members] = np.linalg.solve(gram, np.ones((len(members), count, 1)))[..., 0]
    return weights


def pool_regions(
    node_scores: Scores,
    image_of_node: NDArray[np.integer[Any]],
    images: int,
    *,
    weights: NDArray[np.floating[Any]] | None = None,
) -> Scores:
    """Gather node scores to photos: the sum over a photo's regions, weighted or not.

    Parameters
    ----------
    node_scores
        (q, m).
    image_of_node
        (m,) photo numbers, 0 to `images` - 1.
    images
        Number of photos.
    weights
        (m,) from `generalised_max_weights`; without, sum pooling.

    Returns
    -------
    (q, images), in the precision of `node_scores`.
    """
    m = len(image_of_node)
    if node_scores.shape[1] != m or (
        m and not 0 <= int(image_of_node.min()) <= int(image_of_node.max()) < images
    ):
        raise LmrError(
            "node scores and photo numbers do not fit",
            got=f"scores {node_scores.shape}, {m} nodes, {images} photos",
            fix="give the photo of every node",
        )
    weight = np.ones(m) if weights is None else weights.astype(np.float64)
    gather = csr_array((weight, image_of_node, np.arange(m + 1)), shape=(m, images))
    pooled: Scores = (gather.T @ node_scores.T).T.astype(node_scores.dtype)
    return pooled


def after_diffusion(
    ids: NDArray[np.integer[Any]], scores: Scores, order_before: NDArray[np.integer[Any]], k: int
) -> NDArray[np.int32]:
    """Make one query's final list: what diffusion has reached, by (-score, id), then the order before it.

    Photos that diffusion has not reached (isolated nodes, a query without connection) thus keep their order.

    Parameters
    ----------
    ids, scores
        (n,) photos and their scores after diffusion; only positive scores count.
    order_before
        (m,) the order before diffusion; -1 is left out.
    k
        Length of the list.

    Returns
    -------
    (at most k,) int32, without repeats.
    """
    hit = (scores > 0) & (ids >= 0)
    head = ids[hit][np.lexsort((ids[hit], -scores[hit]))]
    both = np.concatenate([head, order_before]).astype(np.int32)
    both = both[both >= 0]
    _, first = np.unique(both, return_index=True)
    return both[np.sort(first)][:k]


def _arrays(matrix: csr_array) -> tuple[NDArray[np.int64], NDArray[np.int32], Scores]:
    """Return the CSR's arrays in the one form for which the kernels are compiled."""
    if matrix.shape[0] != matrix.shape[1] or matrix.dtype not in (np.float32, np.float64):
        raise LmrError(
            "the graph's matrix must be square, of float32 or float64",
            got=f"{matrix.shape} {matrix.dtype}",
            fix="build it with lmr.retrieval.diffusion.affinity",
        )
    return (
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(np.int32, copy=False),
        np.asarray(matrix.data),
    )


def _check(n: int, ids: NDArray[np.int32], values: Scores, alpha: float) -> None:
    if ids.shape != values.shape or ids.ndim != 2 or (ids.size and int(ids.max()) >= n):
        raise LmrError(
            "the restarts do not fit the graph",
            got=f"ids {ids.shape}, values {values.shape}, {n} nodes",
            fix="make them from a search of the graph's own nodes",
        )
    if not 0 <= alpha < 1:
        raise LmrError(
            "diffusion has no solution for this alpha",
            got=f"alpha = {alpha}",
            fix="use 0 <= alpha < 1, such as 0.99",
        )
