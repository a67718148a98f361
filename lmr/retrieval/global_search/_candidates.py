"""Collecting the candidates of many queries, compiled, for `lmr.retrieval.global_search.lists`.

Each query has room for some candidates by their products of float32. When it is full the k-th best product
tells who can be no neighbour any more, however the products are off.
"""

from typing import Any

import numpy as np
from numba import njit

from lmr.retrieval.diffusion._lanes import prefetch
from lmr.retrieval.global_search._products import BLOCK, WIDTH, first_bit, multiply_block
from lmr.retrieval.global_search.exact import AHEAD, _dot, _load, _replace_worst, ask_for

__all__ = ["NEVER", "by_list", "choose_above", "collect", "finish", "pack", "take"]

ONE, TWO = np.uint64(1), np.uint64(2)
ALL = np.uint32(0xFFFFFFFF)
NEVER = np.int32(0x7FFFFFFF)
HALVINGS = 16


@njit(nogil=True, cache=True)
def by_list(looked: Any, lists: Any) -> Any:
    """Sort visits by list; return where each list's begin, (lists + 1,), and whose they are, (visits,) int32.

    Those of a list are in the order of the queries. `looked` is (q, p) int32, the lists that each looks into.
    """
    begin = np.zeros(lists + 2, np.int64)
    for one in looked.reshape(-1):
        begin[np.uint64(one) + TWO] += 1
    begin = np.cumsum(begin)
    whose = np.empty(looked.size, np.int32)
    for q in range(len(looked)):
        for one in looked[q]:
            whose[begin[np.uint64(one) + ONE]] = q
            begin[np.uint64(one) + ONE] += 1
    return begin[:-1], whose


@njit(nogil=True, cache=True)
def take(queries: Any, which: Any, out: Any) -> None:
    """Copy some queries to the first rows of `out`."""
    for i in range(len(which)):
        if i + AHEAD < len(which):
            ask_for(queries, which[i + AHEAD])
        out[i] = queries[which[i]]


@njit(nogil=True, cache=True)
def pack(descriptors: Any, rows: Any, scale: Any, out: Any) -> None:
    """Write some rows of the gallery to `out` as whole numbers, in pairs, as `multiply_block` reads them.

    Parameters
    ----------
    descriptors
        (n, d) float32, or float16 as its bits.
    rows
        (m,) int32 gallery rows.
    scale
        By which numbers are multiplied before they are rounded.
    out
        (groups, p, WIDTH) int32 of at least m rows and d numbers, two in each.
    """
    plain = np.empty(descriptors.shape[1], np.float32)
    pairs = np.zeros(out.shape[1], np.int32)
    whole = pairs.view(np.int16)
    for i in range(np.uint64(len(rows))):
        if i + AHEAD < len(rows):
            ask_for(descriptors, rows[i + AHEAD])
        _load(descriptors[rows[i]], plain)
        for j in range(len(plain)):
            whole[j] = np.int16(np.rint(plain[j] * scale))
        group, place = out[i // WIDTH], i % WIDTH
        for p in range(np.uint64(len(pairs))):
            group[p, place] = pairs[p]


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
def collect(asking: Any, which: Any, packed: Any, rows: Any, about: Any, kept: Any) -> None:
    """Collect for each query of a list whoever of its rows may be among the k best.

    Parameters
    ----------
    asking
        (at least m, rounded up to whole blocks, p) int32, the m queries as pairs of whole numbers.
    which
        (m,) the numbers of the queries.
    packed
        (groups, p, WIDTH) int32, from `pack`.
    rows
        (n,) int32 gallery rows.
    about
        Tuple: `queries` and `descriptors` of the gallery as they are, `k`, `scales`, (q,) what a product of
        whole numbers is to that of the descriptors, and `slack`, by which it may be off.
    kept
        Tuple: `products` (q, room) int32 and `rows` (q, room) of the candidates, their `count` (q,), and
        `bars` (q,) int32, the least product of those still to be collected.
    """
    similar, found, count, bars = kept
    room = found.shape[1]
    flat_similar, flat_found = similar.reshape(-1), found.reshape(-1)
    products, hits = np.empty((BLOCK, WIDTH), np.int32), np.empty(BLOCK, np.uint32)
    wanted = np.full(BLOCK, NEVER, np.int32)
    for begin in range(0, len(which), BLOCK):
        some = min(BLOCK, len(which) - begin)
        wanted[some:] = NEVER
        for i in range(some):
            q = which[begin + i]
            wanted[i] = bars[q]
            place = np.int64(q) * room + count[q]
            prefetch(flat_similar, place)
            prefetch(flat_found, place)
        for first in range(0, len(rows), WIDTH):
            multiply_block(asking, begin, packed, first // WIDTH, wanted, products, hits)
            there = ALL >> np.uint32(max(first + WIDTH - len(rows), 0))
            for i in range(some):
                bits = hits[i] & there
                if bits == 0:
                    continue
                q = which[begin + i]
                while bits != 0:
                    j = first_bit(bits)
                    bits &= bits - np.uint32(1)
                    if products[i, j] < wanted[i]:
                        continue
                    similar[q, count[q]], found[q, count[q]] = products[i, j], rows[first + j]
                    count[q] += 1
                    if count[q] == room:
                        _shrink(q, about, kept)
                        wanted[i] = bars[q]


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
    queries, descriptors, k, scales, slack = about
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
    for c in range(k):
        similar[q, c], found[q, c] = np.int32(sims[c] * scales[q]), best[c]
    count[q] = k
    bars[q] = np.int32(sims[0] * scales[q]) - 2 * slack


@njit(nogil=True, cache=True)
def _drop(q: Any, about: Any, kept: Any) -> None:
    """Raise a query's bar to what its k-th best product allows, and drop what lies below."""
    similar, found, count, bars = kept
    bars[q] = _whole_level(similar[q, : count[q]], about[2]) - 2 * about[4]
    left, bar = np.uint64(0), bars[q]
    for c in range(np.uint64(count[q])):
        similar[q, left], found[q, left] = similar[q, c], found[q, c]
        left += np.uint64(similar[q, c] >= bar)
    count[q] = left


@njit(nogil=True, cache=True)
def _whole_level(values: Any, wanted: Any) -> Any:
    """Return a number closely below the `wanted`-th largest of some whole numbers, or it."""
    low, high = np.int32(values.min()), np.int32(values.max())
    if _count(values, high) >= wanted:
        return high
    for _ in range(HALVINGS):
        middle = np.int32((np.int64(low) + np.int64(high)) >> 1)
        if middle == low:
            break
        if _count(values, middle) >= wanted:
            low = middle
        else:
            high = middle
    return low


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
