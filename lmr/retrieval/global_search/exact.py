"""Nearest neighbours by inner product, exactly: gallery blocks stream past, the k best of each query stay.

Every similarity that is kept is computed a second time, with a fixed order of summation in float64. So the
result is a function of the descriptors alone: the same to the last bit however gallery and queries are cut
into blocks.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.diffusion._lanes import prefetch

__all__ = ["best_listed", "similarities", "spans", "top_k"]

QUERY_TILE = 256
AHEAD = 8  # listed rows asked for before their turn: they lie anywhere in memory
LINE_BYTES = 64
GALLERY_TILE = 4096  # with the query tile: 4 MB of similarities per thread at a time

Descriptors = NDArray[np.float32] | NDArray[np.float16]


def top_k(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[int, Descriptors]],
    k: int,
    *,
    valid: NDArray[np.bool_] | None = None,
    exclude_self_start: int | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Find the `k` gallery rows with the largest inner product for each query.

    The work space is `QUERY_TILE * GALLERY_TILE` floats per thread and one gallery tile, whatever the sizes.

    Parameters
    ----------
    queries
        (q, d) float32. A zero row (a photo without descriptor) gets no neighbours.
    blocks
        Pairs of a block's first row number in the gallery and its descriptors, (n_b, d) float16 or float32,
        possibly a `np.memmap`, in any order. Zero rows (photos without descriptor) are never returned.
    k
        Neighbours per query.
    valid
        (n,) bool over gallery row numbers; rows marked False are never returned.
    exclude_self_start
        If given, query i is gallery row `exclude_self_start + i` and is not its own neighbour.
    threads
        Threads over query tiles. BLAS should then run on one thread.

    Returns
    -------
    sims : (q, k) float32
        Inner products, rounded once from float64; -inf where there is no neighbour.
    ids : (q, k) int32
        Gallery row numbers, sorted by (-similarity, id); -1 where there is no neighbour.

    Raises
    ------
    LmrError
        If shapes disagree, or a descriptor is not finite.
    """
    queries = _checked(queries, "queries")
    if k < 1:
        raise LmrError(
            "the number of neighbours must be positive", got=f"k = {k}", fix="ask for k of 1 or more"
        )
    if threads < 1:
        raise LmrError(
            "the number of threads must be positive", got=str(threads), fix="use 1 or more threads"
        )
    sims = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), -1, dtype=np.int32)
    norms = np.linalg.norm(queries, axis=1).astype(np.float32)
    allowed = np.empty(0, dtype=np.bool_) if valid is None else np.ascontiguousarray(valid, dtype=np.bool_)
    parts = spans(len(queries), QUERY_TILE)
    with ThreadPoolExecutor(threads) as pool:
        for first, block in blocks:
            if block.ndim != 2 or block.shape[1] != queries.shape[1]:
                raise LmrError(
                    f"the gallery block at row {first} does not fit the queries",
                    got=f"{block.shape}, queries {queries.shape}",
                    fix="search with queries and gallery of one extractor and one whitening",
                )
            if valid is not None and first + len(block) > len(valid):
                raise LmrError(
                    "`valid` is shorter than the gallery",
                    got=f"{len(valid)} flags, a block up to row {first + len(block)}",
                    fix="give one flag per gallery row",
                )
            for start, stop in spans(len(block), GALLERY_TILE):
                tile = _checked(block[start:stop], f"the gallery block at row {first}")
                weights = np.linalg.norm(tile, axis=1).astype(np.float32)

                def update(
                    part: tuple[int, int], tile: Any = tile, weights: Any = weights, row: int = first + start
                ) -> None:
                    lo, hi = part
                    own = -1 if exclude_self_start is None else exclude_self_start + lo
                    products = queries[lo:hi] @ tile.T
                    args = (queries[lo:hi], tile, products, norms[lo:hi], weights, row, own, allowed)
                    _merge(*args, sims[lo:hi], ids[lo:hi])

                list(pool.map(update, parts))
    order = np.lexsort((ids, -sims), axis=1)
    return np.take_along_axis(sims, order, 1), np.take_along_axis(ids, order, 1)


def similarities(
    queries: NDArray[np.float32], ids: NDArray[np.int32], descriptors: Descriptors
) -> NDArray[np.float32]:
    """Compute the inner products of queries with their listed gallery rows, to the bit as `top_k` does.

    Parameters
    ----------
    queries
        (q, d) float32.
    ids
        (q, k) int32 gallery row numbers, -1 for none.
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`.

    Returns
    -------
    (q, k) float32, -inf where the id is -1.
    """
    plain = np.ascontiguousarray(queries, dtype=np.float32)
    return np.asarray(_listed(plain, ids, _plain_or_bits(descriptors)))


def best_listed(
    queries: NDArray[np.float32],
    ids: NDArray[np.int32],
    descriptors: Descriptors,
    k: int,
    *,
    exclude_self_start: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Find the `k` best of each query's listed gallery rows, in the form and to the bit as `top_k` does.

    Rows are read where they lie: nothing is gathered.

    Parameters
    ----------
    queries
        (q, d) float32.
    ids
        (q, c) int32 candidates in any order, possibly with repeats, -1 for none; all with a descriptor.
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`.
    k
        Neighbours per query.
    exclude_self_start
        As in `top_k`.

    Returns
    -------
    sims, ids : (q, k) float32, (q, k) int32
    """
    sims = np.full((len(queries), k), -np.inf, dtype=np.float32)
    best = np.full((len(queries), k), -1, dtype=np.int32)
    own = -1 if exclude_self_start is None else exclude_self_start
    plain = np.ascontiguousarray(queries, dtype=np.float32)
    _best_listed(plain, ids, _plain_or_bits(descriptors), own, sims, best)
    order = np.lexsort((best, -sims), axis=1)
    return np.take_along_axis(sims, order, 1), np.take_along_axis(best, order, 1)


def spans(n: int, size: int) -> list[tuple[int, int]]:
    """Cut 0..n into half-open spans of `size`; the last one may be shorter."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def _plain_or_bits(descriptors: Descriptors) -> NDArray[Any]:
    """Return float16 as its bits, which is how compiled code reads it."""
    return descriptors.view(np.uint16) if descriptors.dtype == np.float16 else descriptors


def _checked(rows: Descriptors, name: str) -> NDArray[np.float32]:
    """Return the rows as contiguous float32; refuse what is not finite."""
    if rows.ndim != 2:
        raise LmrError(
            f"{name} must be a matrix", got=f"shape {rows.shape}", fix="give one descriptor per row"
        )
    plain = np.ascontiguousarray(rows, dtype=np.float32)
    if not np.isfinite(plain).all():
        raise LmrError(
            f"{name} hold values that are not finite",
            got=f"row {int(np.flatnonzero(~np.isfinite(plain).all(axis=1))[0])}",
            fix="give a photo without descriptor a row of zeros",
        )
    return plain


@njit(nogil=True, cache=True)
def _dot(a: Any, b: Any) -> Any:
    # Products of float32 are exact in float64. Four sums, because one alone waits for its own last addition.
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    whole = len(a) - len(a) % 4
    for i in range(0, whole, 4):
        s0 += np.float64(a[i]) * np.float64(b[i])
        s1 += np.float64(a[i + 1]) * np.float64(b[i + 1])
        s2 += np.float64(a[i + 2]) * np.float64(b[i + 2])
        s3 += np.float64(a[i + 3]) * np.float64(b[i + 3])
    for i in range(whole, len(a)):
        s0 += np.float64(a[i]) * np.float64(b[i])
    return np.float32((s0 + s1) + (s2 + s3))


def _load(row: Any, plain: Any) -> None:
    raise NotImplementedError  # compiled code only


@overload(_load)
def _load_as(row: Any, plain: Any) -> Any:
    """Read a descriptor as float32: Numba knows no float16, but its bits are those of float32, moved."""
    if isinstance(row.dtype, types.Float):

        def floats(row: Any, plain: Any) -> None:
            for i in range(len(row)):
                plain[i] = row[i]

        return floats

    def halves(row: Any, plain: Any) -> None:
        bits = plain.view(np.int32)
        for i in range(len(row)):
            half = np.int32(row[i])
            bits[i] = ((half & 0x8000) << 16) | ((half & 0x7FFF) << 13)
        for i in range(len(row)):
            plain[i] *= np.float32(2.0**112)  # what the exponents' offsets, 127 and 15, differ by

    return halves


@njit(nogil=True, cache=True)
def ask_for(rows: Any, row: Any) -> None:
    """Ask for a row of a C-contiguous matrix, without waiting."""
    flat, d = rows.reshape(-1), rows.shape[1]
    first = np.int64(row) * d
    for j in range(first, first + d, LINE_BYTES // rows.itemsize):
        prefetch(flat, j)


@njit(nogil=True, cache=True)
def _listed(queries: Any, ids: Any, rows: Any) -> Any:
    sims, plain = np.full(ids.shape, -np.inf, dtype=np.float32), np.empty(rows.shape[1], dtype=np.float32)
    for q in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            if ids[q, j] >= 0:
                _load(rows[ids[q, j]], plain)
                sims[q, j] = _dot(queries[q], plain)
    return sims


@njit(nogil=True, cache=True)
def _best_listed(queries: Any, ids: Any, rows: Any, own: Any, sims: Any, best: Any) -> None:
    """Fill each query's heap of its best, (`sims`, `best`), in place."""
    plain = np.empty(rows.shape[1], dtype=np.float32)
    for q in range(len(queries)):
        for c in range(ids.shape[1]):
            row = ids[q, c]
            if c + AHEAD < ids.shape[1] and ids[q, c + AHEAD] >= 0:
                ask_for(rows, ids[q, c + AHEAD])
            if row < 0 or (own >= 0 and row == own + q):
                continue
            _load(rows[row], plain)
            s = _dot(queries[q], plain)
            better = s > sims[q, 0] or (s == sims[q, 0] and row < best[q, 0])
            if better and not _holds(best[q], row):
                _replace_worst(sims[q], best[q], s, row)


@njit(nogil=True, cache=True)
def _holds(ids: Any, row: Any) -> Any:
    for one in ids:  # noqa: SIM110 - compiled; comparing all at once would make an array each time
        if one == row:
            return True
    return False


@njit(nogil=True, cache=True)
def _merge(
    queries: Any,
    tile: Any,
    products: Any,
    norms: Any,
    weights: Any,
    row: Any,
    own: Any,
    allowed: Any,
    sims: Any,
    ids: Any,
) -> None:
    """Merge a tile of BLAS products into each query's heap of its best, (`sims`, `ids`), in place.

    BLAS sums in an order that depends on the tile's shape, so its products only tell who is worth a closer
    look: everyone whose product could, with BLAS's largest possible error, reach the list.
    """
    n = tile.shape[0]
    step = 64
    slack = np.float32(len(queries[0]) * 1.2e-7) * weights.max()
    for q in range(len(queries)):
        if norms[q] == 0.0:
            continue
        for start in range(0, n, step):
            stop = min(start + step, n)
            bar = sims[q, 0] - slack * norms[q]
            hits = 0
            for g in range(start, stop):  # vectorised: most stretches hold nothing
                hits += products[q, g] >= bar
            if hits == 0:
                continue
            for g in range(start, stop):
                if products[q, g] < sims[q, 0] - slack * norms[q] or weights[g] == 0.0:
                    continue
                gallery_row = row + g
                if own >= 0 and gallery_row == own + q:
                    continue
                if len(allowed) > 0 and not allowed[gallery_row]:
                    continue
                s = _dot(queries[q], tile[g])
                if s > sims[q, 0] or (s == sims[q, 0] and gallery_row < ids[q, 0]):
                    _replace_worst(sims[q], ids[q], s, gallery_row)


@njit(nogil=True, cache=True)
def _replace_worst(sims: Any, ids: Any, s: Any, row: Any) -> None:
    """Put (s, row) in place of the heap's root, its worst member: smallest similarity, largest id."""
    k = len(sims)
    place = 0
    while 2 * place + 1 < k:
        worse = 2 * place + 1
        other = worse + 1
        if other < k and (
            sims[other] < sims[worse] or (sims[other] == sims[worse] and ids[other] > ids[worse])
        ):
            worse = other
        if s < sims[worse] or (s == sims[worse] and row > ids[worse]):
            break
        sims[place], ids[place] = sims[worse], ids[worse]
        place = worse
    sims[place], ids[place] = s, row
