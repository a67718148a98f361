"""Cutting one small system for eight cuts of a graph, for `lmr.retrieval.diffusion._conjugate`.

Two passes: `label_nodes` marks what the cuts list, `spread` walks from the restarts and copies what is needed
of the rows that it meets. It goes to each row of the whole graph once. They lie anywhere in memory, so it
asks for them some steps before it comes to them.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval.diffusion._lanes import LANES, prefetch

__all__ = ["LONGEST_CUT", "MARK", "PLACE", "degrees", "label_nodes", "spread"]

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
def spread(graph: Any, restart_ids: Any, label: Any, nodes: Any, cut: Any, lanes_of: Any, reach: Any) -> Any:
    """Walk breadth first from the restarts along edges whose ends have a lane in common, and copy the rows.

    Lanes are not followed one by one. So some rows, or lanes of a row, may come along that no restart of
    their lane reaches: the solution there is zero, as it is where nothing is copied.

    Parameters
    ----------
    graph
        CSR arrays of the whole graph.
    restart_ids
        (lanes, s) int32, -1 for none; nodes outside a lane's cut are left out.
    label, nodes
        From `label_nodes`.
    cut
        Tuple: `starts` of the rows copied, `columns` and `values` of their edges, `order` (the place of each
        row), `number` (by place, counted from 1, the row; all 0 before). A row of an odd number of edges
        gets one more, of no weight, so that `solve` has no odd one to handle.
    lanes_of
        (rows,) uint8, receives the lanes of each row.
    reach
        (at least 1,) int64, receives the number of rows within 0, 1, 2 ... steps, the last one for all
        further steps.

    Returns
    -------
    Number of rows, of edges, and of entries used of `reach`.
    """
    indptr, indices, data = graph
    starts, columns, values, order, number = cut
    count = _begin(restart_ids, label, order, number)
    row, kept, starts[0] = np.uint64(0), np.uint64(0), 0
    levels, level_end, reach[0] = 1, count, count
    ahead, far_ahead = np.uint64(AHEAD), np.uint64(2 * AHEAD)
    while row < count:
        if row == level_end:
            levels, level_end = min(levels + 1, len(reach)), count
            reach[levels - 1] = count
        if row + far_ahead < count:
            prefetch(indptr, nodes[order[row + far_ahead]])
        if row + ahead < count:
            soon = np.uint64(nodes[order[row + ahead]])
            for e in range(indptr[soon], indptr[soon + ONE], LINE):
                prefetch(indices, e)
                prefetch(data, e)
        node = np.uint64(nodes[order[row]])
        lanes = label[node] & ~PLACE
        lanes_of[row] = np.uint8(lanes >> MARK)
        first = kept
        kept = _copy_row(graph, node, label, columns, values, kept)
        count = _number_row(columns, first, kept, order, number, count)
        columns[kept], values[kept] = row, 0.0
        kept += kept & ONE
        row += ONE
        starts[row] = kept
    reach[levels - 1] = count
    return np.int64(count), np.int64(kept), levels


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
def _begin(restart_ids: Any, label: Any, order: Any, number: Any) -> Any:
    """List the restarts, each once; return their number."""
    count = np.uint64(0)
    for lane in range(len(restart_ids)):
        for node in restart_ids[lane]:
            if node < 0 or not label[node] >> (MARK + np.uint32(lane)) & 1:
                continue
            place = label[node] & PLACE
            if number[place] == 0:
                order[count] = place
                count += ONE
                number[place] = count
    return count


@njit(nogil=True, cache=True)
def _copy_row(graph: Any, node: Any, label: Any, columns: Any, values: Any, kept: Any) -> Any:
    """Copy a node's edges to what one of its lanes lists, with places as columns; return where they end."""
    indptr, indices, data = graph
    lanes = label[node] & ~PLACE
    # Everything is written, and stays if it was needed: a branch would often be guessed wrongly.
    for e in range(np.uint64(indptr[node]), np.uint64(indptr[node + ONE])):
        other = label[np.uint64(indices[e])]
        columns[kept], values[kept] = other & PLACE, data[e]
        kept += np.uint64((lanes & other) != 0)
    return kept


@njit(nogil=True, cache=True)
def _number_row(columns: Any, first: Any, last: Any, order: Any, number: Any, count: Any) -> Any:
    """Turn places into columns, and number those that are new; return how many have a number by now."""
    for e in range(first, last):
        place = np.uint64(columns[e])
        if number[place] == 0:
            order[count] = place
            count += ONE
            number[place] = count
        columns[e] = number[place] - 1
    return count
