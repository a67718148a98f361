"""Cutting one small system for eight cuts of a graph, for `lmr.retrieval.diffusion._conjugate`.

Three passes: `label_nodes` marks what the cuts list, `spread` walks from the restarts and copies the rows
that it meets, `trim` keeps of them what is needed. Only `spread` goes to the rows of the whole graph, once to
each. They lie anywhere in memory, so it asks for them some steps before it comes to them.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval.diffusion._lanes import LANES, prefetch

__all__ = ["LONGEST_CUT", "MARK", "PLACE", "degrees", "label_nodes", "spread", "trim"]

# A label: a node's place in the pack's list, counted from 1, and from bit MARK on the lanes that list it.
MARK = np.uint32(24)
PLACE = np.uint32((1 << 24) - 1)
LONGEST_CUT = (1 << 24) // LANES - 1

AHEAD = 8  # rows asked for before their turn
LINE = 16  # int32 or float32 in a cache line
ONE = np.uint64(1)


@njit(nogil=True, cache=True)
def label_nodes(cuts: Any, label: Any, nodes: Any, places: Any) -> Any:
    """List the nodes of up to `LANES` cuts, each once; return their number.

    Parameters
    ----------
    cuts
        (lanes, t) int32, -1 for none.
    label
        (n,) uint32, all 0; receives the labels of the listed nodes.
    nodes
        (at least 1 + distinct nodes,) int32, receives the node at each place.
    places
        (lanes, t) int32, receives the place of each entry, 0 for none.
    """
    count = np.uint32(0)
    for lane in range(len(cuts)):
        bit = np.uint32(1) << (MARK + np.uint32(lane))
        for c in range(cuts.shape[1]):
            node, place = cuts[lane, c], np.uint32(0)
            if node >= 0:
                place = label[node] & PLACE
                if place == 0:
                    count += np.uint32(1)
                    place = count
                    nodes[place] = node
                label[node] |= place | bit
            places[lane, c] = place
    return count


@njit(nogil=True, cache=True)
def spread(graph: Any, restart_ids: Any, label: Any, nodes: Any, reached: Any, cut: Any, reach: Any) -> Any:
    """Walk breadth first from the restarts, each lane within its cut, and copy the rows met.

    Parameters
    ----------
    graph
        CSR arrays of the whole graph.
    restart_ids
        (lanes, s) int32, -1 for none; nodes outside a lane's cut are left out.
    label, nodes
        From `label_nodes`.
    reached
        (as `nodes`,) uint8, receives by place the lanes that have come there.
    cut
        Tuple: `starts` of the rows copied, `labels` and `values` of their edges, `order` (the place of each
        row), `number` (by place, counted from 1, the row; 0 for none), `done` and `queue`, work space. Each
        row ends with an empty slot.
    reach
        (at least 1,) int64, receives the number of rows within 0, 1, 2 ... steps, the last one for all
        further steps.

    Returns
    -------
    Number of rows, and of entries used of `reach`.
    """
    indptr, indices, data = graph
    starts, labels, values, order, number, done, queue = cut
    count, tail = _begin(restart_ids, label, reached, order, queue)
    head, visited, edges, starts[0] = np.uint64(0), np.uint64(0), np.uint64(0), 0
    levels, level_end, reach[0] = 1, tail, count
    ahead, far_ahead = np.uint64(AHEAD), np.uint64(2 * AHEAD)
    while head < tail:
        if head == level_end:
            levels, level_end = min(levels + 1, len(reach)), tail
            reach[levels - 1] = count
        if head + far_ahead < tail:
            prefetch(indptr, nodes[queue[head + far_ahead]])
        if head + ahead < tail and done[queue[head + ahead]] == 0:
            node = np.uint64(nodes[queue[head + ahead]])
            for e in range(indptr[node], indptr[node + ONE], LINE):
                prefetch(indices, e)
                prefetch(data, e)
        place = np.uint64(queue[head])
        head += ONE
        # A node comes back into the queue when it gains a lane, and may have passed it on by then.
        lanes = reached[place] & ~done[place]
        if lanes == 0:
            continue
        if done[place] == 0:
            node = np.uint64(nodes[place])
            edges = _copy_row(graph, node, label, labels, values, edges)
            visited += ONE
            number[place], starts[visited] = visited, edges
        done[place] |= lanes
        row = np.uint64(number[place])
        # Everything is written, and stays if it was needed: a branch would often be guessed wrongly.
        for e in range(np.uint64(starts[row - ONE]), np.uint64(starts[row]) - ONE):
            other = np.uint64(labels[e] & PLACE)
            before = reached[other]
            new = lanes & np.uint8(labels[e] >> MARK) & ~before
            reached[other] = before | new
            queue[tail] = other
            tail += np.uint64(new != 0)
            order[count] = other
            count += np.uint64((new != 0) & (before == 0))
    reach[levels - 1] = count
    return np.int64(count), levels


@njit(nogil=True, cache=True)
def trim(rows: Any, reached: Any, cut: Any, lanes_of: Any) -> Any:
    """Keep of the copied rows, in place, the edges whose ends have a lane in common; return their number.

    `labels` becomes the column of each edge, and `lanes_of` (rows,) receives the lanes of each row. A row of
    an odd number of edges gets one more, of no weight, so that `solve` has no odd one to handle.
    """
    starts, columns, values, order, number, _, _ = cut
    kept, stop = np.uint64(0), np.uint64(0)
    for i in range(rows):
        lanes_of[i] = lanes = reached[order[i]]
        start, stop = stop, np.uint64(starts[i + 1])
        for e in range(start, stop - ONE):
            place = np.uint64(columns[e] & PLACE)
            columns[kept] = number[place] - 1
            values[kept] = values[e]
            kept += np.uint64((lanes & reached[place]) != 0)
        columns[kept], values[kept] = i, 0.0
        kept += kept & ONE
        starts[i + 1] = kept
    return np.int64(kept)


@njit(nogil=True, cache=True)
def degrees(rows: Any, cut: Any, lanes_of: Any, scale: Any) -> None:
    """Write degree^-1/2 to `scale`, (rows, LANES), each lane's degrees counted within its own cut."""
    starts, columns, values = cut[:3]
    for i in range(rows):
        for lane in range(LANES):
            degree = 0.0
            for e in range(starts[i], starts[i + 1]):
                if (lanes_of[i] & lanes_of[columns[e]]) >> lane & 1:
                    degree += values[e]
            scale[i, lane] = degree**-0.5 if degree > 0 else 0.0


@njit(nogil=True, cache=True)
def _begin(restart_ids: Any, label: Any, reached: Any, order: Any, queue: Any) -> Any:
    count, tail = np.uint64(0), np.uint64(0)
    for lane in range(len(restart_ids)):
        for node in restart_ids[lane]:
            if node < 0 or not label[node] >> (MARK + np.uint32(lane)) & 1:
                continue
            place = label[node] & PLACE
            if reached[place] >> lane & 1:
                continue
            if reached[place] == 0:
                order[count] = place
                count += ONE
            reached[place] |= np.uint8(1 << lane)
            queue[tail] = place
            tail += ONE
    return count, tail


@njit(nogil=True, cache=True)
def _copy_row(graph: Any, node: Any, label: Any, labels: Any, values: Any, edges: Any) -> Any:
    """Copy a node's edges to what one of its lanes lists; return where the next row begins."""
    indptr, indices, data = graph
    lanes = label[node] & ~PLACE
    for e in range(np.uint64(indptr[node]), np.uint64(indptr[node + ONE])):
        other = label[np.uint64(indices[e])]
        labels[edges], values[edges] = other, data[e]
        edges += np.uint64((lanes & other) != 0)
    return edges + ONE
