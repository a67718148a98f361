"""Conjugate gradient for (I - alpha S) f = y, several right-hand sides at a time, on a graph or cuts of it.

The right-hand sides sit in the lanes of one register (`lmr.retrieval._lanes`) and share every load of an
edge. Each may have a cut of the graph of its own: a lane's `scale` is zero at the nodes that it must not see.
Who sits beside it changes the order of a lane's sums, no more.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval._lanes import LANES, add_product, load, splat, store

__all__ = ["LANES", "pack_rows", "solve", "solve_cuts"]


@njit(nogil=True, cache=True)
def solve(
    indptr: Any,
    indices: Any,
    data: Any,
    scale: Any,
    plain: Any,
    reach: Any,
    x: Any,
    r: Any,
    alpha: Any,
    tolerance: Any,
    iterations: Any,
) -> Any:
    """Solve (I - alpha * scale * M * scale) x = r for each lane, from zero, in float64.

    Parameters
    ----------
    indptr, indices, data
        CSR of the symmetric matrix M, (m, m), float32 or float64.
    scale
        (m, LANES) float64, the diagonal matrix on both sides of M, one for each lane.
    plain
        True if `scale` holds only zeros and ones, and `r` is zero where it is.
    reach
        (at least 1,) rows that the right-hand sides reach in 0, 1, 2 ... steps along edges; they come first.
    x
        (m, LANES) float64, receives the solutions.
    r
        (m, LANES) float64, the right-hand sides; overwritten by the residuals.
    alpha, tolerance, iterations
        A lane stops when its residual's norm is at most `tolerance` times that of its right-hand side.

    Returns
    -------
    int64, edges times iterations, as far as they were reached.
    """
    p, image = r.copy(), np.empty_like(r)
    z = p if plain else scale * p  # the scaled directions
    x[:] = 0
    zero, one, minus_alpha = splat(0.0), splat(1.0), splat(-alpha)
    row = np.empty((1, LANES))  # the way between lanes and an array
    work = 0

    total = zero
    for i in range(reach[0]):
        total = add_product(total, load(r, i), load(r, i))
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
            spread = add_product(zero, load(scale, i), add_product(front, one, back))
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
    n = len(indptr) - 1
    # One bit per lane: nodes of its cut still ahead, nodes that it has reached, nodes that it has left.
    ahead, reached = np.zeros(n, dtype=np.uint8), np.zeros(n, dtype=np.uint8)
    left = np.zeros(n, dtype=np.uint8)
    place = np.zeros(n, dtype=np.int32)  # in the pack's system, counted from 1; 0 for all nodes outside
    # A node enters the queue once for each lane at most.
    queue = np.empty(LANES * cuts.shape[1], dtype=np.int32)
    nodes = np.empty(LANES * cuts.shape[1], dtype=np.int32)
    reach = np.empty(iterations + 1, dtype=np.int64)
    cut_indices, cut_data = np.empty(0, dtype=np.int32), np.empty(0)
    work = np.zeros(3, dtype=np.int64)

    for start in range(0, len(cuts), LANES):
        rows = np.arange(start, min(start + LANES, len(cuts)))
        for lane in range(len(rows)):
            for node in cuts[rows[lane]]:
                if node >= 0:
                    ahead[node] |= np.uint8(1 << lane)
        graph = (indptr, indices)
        levels = _spread(graph, restart_ids, rows, ahead, reached, left, place, queue, nodes, reach)
        m = reach[levels - 1]

        lanes_of = np.zeros(m + 1, dtype=np.uint8)
        room = 1
        for i in range(m):
            lanes_of[i + 1] = reached[nodes[i]]
            room += indptr[nodes[i] + 1] - indptr[nodes[i]] + 1
        if room > len(cut_data):
            cut_indices, cut_data = np.empty(room, dtype=np.int32), np.empty(room)
        cut_indptr = np.zeros(m + 1, dtype=np.int64)
        scale, x, r = np.empty((m, LANES)), np.empty((m + 1, LANES)), np.zeros((m, LANES))
        # Every edge is written, and stays if its ends share a lane: a branch would often be guessed wrongly.
        edges = np.uint64(0)
        for i in range(m):
            lanes = lanes_of[i + 1]
            for lane in range(LANES):
                scale[i, lane] = lanes >> lane & 1
            for e in range(np.uint64(indptr[nodes[i]]), np.uint64(indptr[nodes[i] + 1])):
                j = np.uint64(place[np.uint64(indices[e])])
                cut_indices[edges] = np.int32(j) - 1
                cut_data[edges] = data[e]
                edges += np.uint64((lanes & lanes_of[j]) != 0)
            # An even number of edges per row, so that `solve` has no odd one to handle.
            cut_indices[edges], cut_data[edges] = i, 0.0
            edges += edges & np.uint64(1)
            cut_indptr[i + 1] = edges
        if renormalise:
            _degrees(cut_indptr, cut_indices, cut_data, lanes_of[1:], scale)

        for lane in range(len(rows)):
            for s in range(restart_ids.shape[1]):
                node = restart_ids[rows[lane], s]
                if node >= 0 and reached[node] >> lane & 1:
                    r[place[node] - 1, lane] += restart_values[rows[lane], s]
        x[0] = 0
        system = (cut_indptr, cut_indices, cut_data, scale)
        limits = (alpha, tolerance, iterations)
        work[0] += m
        work[1] += np.int64(edges)
        work[2] += solve(*system, not renormalise, reach[:levels], x[1:], r, *limits)

        for lane in range(len(rows)):
            for c in range(cuts.shape[1]):
                node = cuts[rows[lane], c]
                scores[rows[lane], c] = x[place[node], lane] if node >= 0 else 0.0
        for lane in range(len(rows)):
            for node in cuts[rows[lane]]:
                if node >= 0:
                    ahead[node], reached[node], left[node], place[node] = 0, 0, 0, 0
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


@njit(nogil=True, cache=True)
def _spread(
    graph: Any,
    restart_ids: Any,
    rows: Any,
    ahead: Any,
    reached: Any,
    left: Any,
    place: Any,
    queue: Any,
    nodes: Any,
    reach: Any,
) -> Any:
    """Spread from the restarts through each lane's cut, all lanes at once, breadth first.

    Give the nodes their places in the order in which they are reached, and to `reach` their number after 0,
    1, 2 ... steps, the last one for all further steps; return the length of `reach`.
    """
    indptr, indices = graph
    count, head, tail = 0, 0, 0
    for lane in range(len(rows)):
        bit = np.uint8(1 << lane)
        for node in restart_ids[rows[lane]]:
            if node >= 0 and ahead[node] & bit:
                ahead[node] ^= bit
                if reached[node] == 0:
                    nodes[count] = node
                    count += 1
                    place[node] = count
                reached[node] |= bit
                queue[tail] = node
                tail += 1
    reach[0] = count
    levels, level_end = 1, tail
    while head < tail:
        if head == level_end:
            levels = min(levels + 1, len(reach))
            reach[levels - 1] = count
            level_end = tail
        node = queue[head]
        head += 1
        # A node comes back into the queue when it gains a lane, and may have passed it on by then.
        lanes = reached[node] & ~left[node]
        if lanes == 0:
            continue
        left[node] |= lanes
        for e in range(np.uint64(indptr[node]), np.uint64(indptr[node + 1])):
            other = np.uint64(indices[e])
            new = lanes & ahead[other]
            if new:
                ahead[other] ^= new
                if reached[other] == 0:
                    nodes[count] = other
                    count += 1
                    place[other] = count
                reached[other] |= new
                queue[tail] = other
                tail += 1
    reach[levels - 1] = count
    return levels


@njit(nogil=True, cache=True)
def _degrees(indptr: Any, indices: Any, data: Any, lanes_of: Any, scale: Any) -> None:
    """Replace the ones in `scale` by degree^-1/2, each lane's degrees counted within its own cut."""
    for i in range(len(indptr) - 1):
        for lane in range(LANES):
            degree = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                if (lanes_of[i] & lanes_of[indices[e]]) >> lane & 1:
                    degree += data[e]
            scale[i, lane] = degree**-0.5 if degree > 0 else 0.0
