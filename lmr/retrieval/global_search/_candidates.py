"""Collecting the candidates of many queries, compiled, for `lmr.retrieval.global_search.lists`.

Each query has room for some candidates by their products of float32. When it is full the k-th best product
tells who can be no neighbour any more, however the products are off.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval.diffusion._lanes import prefetch
from lmr.retrieval.global_search.exact import AHEAD, _dot, _load, _replace_worst, ask_for

__all__ = ["choose_above", "collect", "finish", "gather", "take"]

STRETCH = np.uint64(32)  # products looked at together: most stretches hold nothing
SOON = 4
HALVINGS = 16


@njit(nogil=True, cache=True)
def take(queries: Any, which: Any, out: Any) -> None:
    """Copy some queries to the first rows of `out`."""
    for i in range(len(which)):
        if i + AHEAD < len(which):
            ask_for(queries, which[i + AHEAD])
        out[i] = queries[which[i]]


@njit(nogil=True, cache=True)
def gather(descriptors: Any, rows: Any, out: Any) -> None:
    """Copy some rows of the gallery to the first rows of `out`, as float32."""
    for i in range(len(rows)):
        if i + AHEAD < len(rows):
            ask_for(descriptors, rows[i + AHEAD])
        _load(descriptors[rows[i]], out[i])


@njit(nogil=True, cache=True)
def choose_above(queries: Any, centroids: Any, products: Any, best: Any, slack: Any, found: Any) -> None:
    """Write to `found`, (q, p), the p best of each query; `best` (q, at least p) are some of its products."""
    lists, probes = products.shape[1], found.shape[1]
    places, above, sims = np.empty(lists + 1, np.int32), np.empty(lists + 1, np.float32), np.empty(lists)
    for q in range(len(queries)):
        row, many = products[q], np.uint64(0)
        floor = _level(best[q], probes)[0] - 2 * slack[q]
        for place in range(np.uint64(lists)):  # everything is written, and stays if it was needed
            places[many], above[many] = place, row[place]
            many += np.uint64(row[place] >= floor)
        low, high = _level(above[:many], probes)
        low, high = low - 2 * slack[q], high + 2 * slack[q]
        count, level = 0, 0
        for i in range(many):
            if above[i] > high:
                found[q, count] = places[i]
                count += 1
            elif above[i] >= low:
                places[level] = places[i]
                level += 1
        for i in range(level):
            sims[i] = _dot(queries[q], centroids[places[i]])
        while count < probes:  # in ascending order, so that the first of equals has the lowest number
            nearest = 0
            for i in range(1, level):
                if sims[i] > sims[nearest]:
                    nearest = i
            found[q, count], sims[nearest] = places[nearest], -np.inf
            count += 1


@njit(nogil=True, cache=True)
def collect(products: Any, which: Any, rows: Any, about: Any, kept: Any) -> None:
    """Collect for each query of a list whoever of its rows may be among the k best.

    Parameters
    ----------
    products
        (m, n) float32 of the m queries and n rows of a list.
    which
        (m,) the numbers of the queries.
    rows
        (n,) int32 gallery rows.
    about
        Tuple: `queries`, `descriptors` of the gallery, `k` and `slack`, (q,) by which a product may be off.
    kept
        Tuple: `products` (q, room) and `rows` (q, room) of the candidates, their `count` (q,), and `bars`
        (q,), the least product of those still to be collected.
    """
    similar, found, count, bars = kept
    n, room = np.uint64(products.shape[1]), found.shape[1]
    flat_similar, flat_found = similar.reshape(-1), found.reshape(-1)
    for i in range(len(which)):
        q = which[i]
        if i + SOON < len(which):
            soon = which[i + SOON]
            place = np.int64(soon) * room + count[soon]
            prefetch(flat_similar, place)
            prefetch(flat_found, place)
        row, start = products[i], np.uint64(0)
        while start < n:
            # Unsigned, so that Numba need not ask whether an index counts from the end: five times as fast.
            stop, bar, hits = min(start + STRETCH, n), bars[q], np.int32(0)
            for j in range(start, stop):
                hits += np.int32(row[j] >= bar)
            if hits:
                for j in range(start, stop):
                    if row[j] < bars[q]:
                        continue
                    similar[q, count[q]], found[q, count[q]] = row[j], rows[j]
                    count[q] += 1
                    if count[q] == room:
                        _shrink(q, about, kept)
            start = stop


@njit(nogil=True, cache=True)
def finish(about: Any, kept: Any) -> None:
    """Drop what is not needed of all queries, and write -1 behind the candidates."""
    _, found, count, _ = kept
    for q in range(len(count)):
        if count[q] > about[2]:
            _drop(q, about, kept)
        found[q, count[q] :] = -1


@njit(nogil=True, cache=True)
def _shrink(q: Any, about: Any, kept: Any) -> None:
    """Drop candidates of a query that can be no neighbours; where too many are level, settle it exactly."""
    similar, found, count, bars = kept
    queries, descriptors, k, slack = about
    _drop(q, about, kept)
    if count[q] <= (k + found.shape[1]) // 2:
        return
    sims, best = np.full(k, -np.inf, np.float32), np.full(k, -1, np.int32)
    plain = np.empty(queries.shape[1], np.float32)
    for c in range(count[q]):
        row = found[q, c]
        _load(descriptors[row], plain)
        s = _dot(queries[q], plain)
        if s > sims[0] or (s == sims[0] and row < best[0]):
            _replace_worst(sims, best, s, row)
    similar[q, :k], found[q, :k], count[q] = sims, best, k
    bars[q] = sims[0] - 2 * slack[q]


@njit(nogil=True, cache=True)
def _drop(q: Any, about: Any, kept: Any) -> None:
    """Raise a query's bar to what its k-th best product allows, and drop what lies below."""
    similar, found, count, bars = kept
    bars[q] = _level(similar[q, : count[q]], about[2])[0] - 2 * about[3][q]
    left, bar = np.uint64(0), bars[q]
    for c in range(np.uint64(count[q])):
        similar[q, left], found[q, left] = similar[q, c], found[q, c]
        left += np.uint64(similar[q, c] >= bar)
    count[q] = left


@njit(nogil=True, cache=True)
def _level(values: Any, wanted: Any) -> Any:
    """Return two numbers between which the `wanted`-th largest of some values lies, or is the first.

    By halving, because to count is a matter of a few instructions where to sort is not.
    """
    low, high = values.min(), values.max()
    if _count(values, high) >= wanted:
        return high, np.float32(np.inf)
    for _ in range(HALVINGS):
        middle = np.float32(0.5) * (low + high)
        if middle <= low or middle >= high:
            break
        if _count(values, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low, high


@njit(nogil=True, cache=True)
def _count(values: Any, bar: Any) -> Any:
    count = np.int32(0)
    for i in range(np.uint64(len(values))):
        count += np.int32(values[i] >= bar)
    return count
