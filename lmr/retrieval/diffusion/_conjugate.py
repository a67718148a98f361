"""Conjugate gradient for (I - alpha S) f = y, several right-hand sides at a time, on a graph or cuts of it.

The right-hand sides sit in the lanes of one register (`lmr.retrieval.diffusion._lanes`) and share every load
of an edge. Each may have a cut of the graph of its own: a lane's `scale` is zero at the nodes that it must
not see. Who sits beside it changes the order of a lane's sums, no more. Sums are in float64; the directions,
which each edge reads, are in the precision of the matrix.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval.diffusion._lanes import LANES, add_product, keep, load, splat, store
from lmr.retrieval.diffusion._subgraph import MARK, PLACE, degrees, label_nodes, spread

__all__ = ["LANES", "pack_rows", "solve", "solve_cuts"]


@njit(nogil=True, cache=True)
def solve(
    indptr: Any,
    indices: Any,
    data: Any,
    lanes_of: Any,
    scale: Any,
    reach: Any,
    x: Any,
    r: Any,
    z: Any,
    image: Any,
    alpha: Any,
    tolerance: Any,
    iterations: Any,
) -> Any:
    """Solve (I - alpha * scale * M * scale) x = r for each lane, from zero.

    Parameters
    ----------
    indptr, indices, data
        CSR of the symmetric matrix M, (m, m), float32 or float64.
    lanes_of
        (m,) uint8, one bit per lane: whether it sees the node. `r` is zero where it does not.
    scale
        (m, LANES) float64, the diagonal matrix on both sides of M, one for each lane, zero where `lanes_of`
        is. Or (0, LANES): ones where `lanes_of` is set.
    reach
        (at least 1,) rows that the right-hand sides reach in 0, 1, 2 ... steps along edges; they come first.
    x
        (m, LANES) float64, receives the solutions.
    r
        (m, LANES) float64, the right-hand sides; overwritten by the residuals.
    z
        (m, LANES), work space for the directions, which are rounded to its precision: float32 halves the
        traffic. A step along the rounded direction is exact, so no error adds up (without `scale`).
    image
        (m, LANES) float64, work space.
    alpha, tolerance, iterations
        A lane stops when its residual's norm is at most `tolerance` times that of its right-hand side.

    Returns
    -------
    int64, edges times iterations, as far as they were reached.
    """
    plain = len(scale) == 0
    p = z if plain else np.zeros_like(z)  # without `scale`, the directions are the scaled ones
    zero, one, minus_alpha = splat(0.0), splat(1.0), splat(-alpha)
    row = np.empty((1, LANES))  # the way between lanes and an array
    work = 0

    x[:], z[:] = 0, 0
    total = zero
    for i in range(reach[0]):
        residual = load(r, i)
        total = add_product(total, residual, residual)
        store(p, i, residual)
        if not plain:
            store(z, i, add_product(zero, load(scale, i), residual))
    store(row, 0, total)
    squares = row[0].copy()
    goal = np.sqrt(squares) * tolerance

    for step in range(iterations):
        going = np.sqrt(squares) > goal
        if not going.any():
            break
        # Beyond these rows, directions and their images are still zero.
        rows = reach[min(step + 1, len(reach) - 1)]
        work += indptr[rows]

        total = zero
        for i in range(rows):
            # Two sums at a time, because one alone waits for its own last addition. Unsigned, so that Numba
            # need not ask whether an index counts from the end: a third of the time.
            start, stop = np.uint64(indptr[i]), np.uint64(indptr[i + 1])
            half = (stop - start) >> np.uint64(1)
            front, back = zero, zero
            for e in range(start, start + half):
                front = add_product(front, splat(data[e]), load(z, indices[e]))
                back = add_product(back, splat(data[e + half]), load(z, indices[e + half]))
            for e in range(start + half + half, stop):
                front = add_product(front, splat(data[e]), load(z, indices[e]))
            spread = add_product(front, one, back)
            spread = keep(lanes_of[i], spread) if plain else add_product(zero, load(scale, i), spread)
            direction = load(p, i)
            changed = add_product(direction, minus_alpha, spread)
            total = add_product(total, direction, changed)
            store(image, i, changed)
        store(row, 0, total)

        # A lane that has arrived takes steps of length zero.
        for lane in range(LANES):
            row[0, lane] = squares[lane] / row[0, lane] if going[lane] else 0.0
        forward = load(row, 0)
        row *= -1
        backward = load(row, 0)
        total = zero
        for i in range(rows):
            residual = add_product(load(r, i), backward, load(image, i))
            total = add_product(total, residual, residual)
            store(r, i, residual)
        store(row, 0, total)

        for lane in range(LANES):
            before, squares[lane] = squares[lane], row[0, lane]
            row[0, lane] = squares[lane] / before if going[lane] else 0.0
        turn = load(row, 0)
        for i in range(rows):
            direction = load(p, i)
            store(x, i, add_product(load(x, i), forward, direction))
            direction = add_product(load(r, i), turn, direction)
            store(p, i, direction)
            if not plain:
                store(z, i, add_product(zero, load(scale, i), direction))
    return work


@njit(nogil=True, cache=True)
def solve_cuts(
    indptr: Any,
    indices: Any,
    data: Any,
    longest_row: Any,
    cuts: Any,
    restart_ids: Any,
    restart_values: Any,
    renormalise: Any,
    alpha: Any,
    tolerance: Any,
    iterations: Any,
    scores: Any,
) -> Any:
    """Solve one system per row of `cuts`, each on its own cut of the graph, `LANES` rows at a time.

    Of each cut only what can be reached from its restart is solved: elsewhere the solution is zero.

    Parameters
    ----------
    indptr, indices, data
        CSR of the whole graph, (n, n).
    longest_row
        The most edges of a node.
    cuts
        (rows, t) nodes of each cut, -1 for none. `LANES` rows after one another share lanes, so rows with
        similar cuts belong together (`pack_rows`).
    restart_ids, restart_values
        (rows, s) the nonzeros of each right-hand side; -1 for none, nodes outside the cut are left out.
    renormalise
        True: the matrix is an affinity, and is normalised within each cut. False: it is used as it is.
    alpha, tolerance, iterations
        As in `solve`.
    scores
        (rows, t), receives the solution at each node of the cut; 0 for -1.

    Returns
    -------
    (3,) int64, to judge how well the rows share: nodes and edges of the packs' systems, and edges times
    iterations.
    """
    n, most = len(indptr) - 1, LANES * cuts.shape[1] + 1  # the most nodes in a pack, and 0 for none
    room = min(most * longest_row, len(indices)) + most  # what is never written costs no memory
    label, nodes = np.zeros(n, dtype=np.uint32), np.empty(most, dtype=np.int32)
    places = np.empty((LANES, cuts.shape[1]), dtype=np.int32)
    order, number = np.empty(most + 1, dtype=np.int32), np.empty(most, dtype=np.int32)
    starts = np.empty(most + 1, dtype=np.int64)
    cut = starts, np.empty(room, dtype=np.uint32), np.empty(room), order, number
    lanes_of, reach = np.empty(most, dtype=np.uint8), np.empty(iterations + 1, dtype=np.int64)
    x, r, image = np.empty((most, LANES)), np.empty((most, LANES)), np.empty((most, LANES))
    x[0] = 0  # the solution at what is not reached
    z, scale = np.empty((most, LANES), dtype=data.dtype), np.empty((most if renormalise else 0, LANES))
    graph, work = (indptr, indices, data), np.zeros(3, dtype=np.int64)

    for start in range(0, len(cuts), LANES):
        pack = slice(start, min(start + LANES, len(cuts)))
        listed = label_nodes(cuts[pack], label, nodes, places)
        number[: listed + 1] = 0
        m, edges, levels = spread(graph, restart_ids[pack], label, nodes, cut, lanes_of, reach)
        if renormalise:
            degrees(m, cut, lanes_of, scale)

        r[:m] = 0
        for lane in range(pack.stop - start):
            for s in range(restart_ids.shape[1]):
                node = restart_ids[start + lane, s]
                if node >= 0 and label[node] >> (MARK + np.uint32(lane)) & 1:
                    r[number[label[node] & PLACE] - 1, lane] += restart_values[start + lane, s]
        system = starts, cut[1], cut[2], lanes_of, scale[:m]
        space, limits = (x[1 : m + 1], r[:m], z[:m], image[:m]), (alpha, tolerance, iterations)
        work += np.array([m, edges, solve(*system, reach[:levels], *space, *limits)])

        for lane in range(pack.stop - start):
            for c in range(cuts.shape[1]):
                scores[start + lane, c] = x[number[places[lane, c]], lane]
        for i in range(1, listed + 1):
            label[nodes[i]] = 0
    return work


@njit(nogil=True, cache=True)
def pack_rows(indptr: Any, indices: Any, data: Any, homes: Any) -> Any:
    """Order systems so that those with similar cuts share lanes; each has a home, the node nearest to it.

    From a home, the next one is always the home most strongly joined to those already in the pack.

    Parameters
    ----------
    indptr, indices, data
        CSR of the whole graph, (n, n).
    homes
        (rows,) nodes, -1 for none.

    Returns
    -------
    (rows,) int64, a permutation.
    """
    n, rows = len(indptr) - 1, len(homes)
    first, following = np.full(n, -1, dtype=np.int32), np.full(rows, -1, dtype=np.int32)
    for row in range(rows - 1, -1, -1):
        if homes[row] >= 0:
            following[row] = first[homes[row]]
            first[homes[row]] = row
    order, count = np.empty(rows, dtype=np.int64), 0
    strength = np.zeros(n)
    waiting = np.empty(n, dtype=np.int32)
    for root in range(rows):
        if homes[root] < 0:
            order[count] = root
            count += 1
        node, waits = homes[root], 0
        while node >= 0 and first[node] >= 0:
            pack = count // LANES
            row, first[node] = first[node], -1  # its rows are taken
            while row >= 0:
                order[count] = row
                count += 1
                row = following[row]
            for e in range(indptr[node], indptr[node + 1]):
                if first[indices[e]] >= 0:
                    if strength[indices[e]] == 0:
                        waiting[waits] = indices[e]
                        waits += 1
                    strength[indices[e]] += data[e]
            node, best = -1, 0.0
            for w in range(waits):
                if first[waiting[w]] >= 0 and strength[waiting[w]] > best:
                    node, best = waiting[w], strength[waiting[w]]
            if count // LANES != pack or node < 0:
                strength[waiting[:waits]] = 0
                waits = 0
    return order
