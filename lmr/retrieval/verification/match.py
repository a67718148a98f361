"""Putative matches: each feature of the query photo with its nearest neighbour in the gallery photo.

One matrix product does nearly all of the work, and one pass over its result the rest. What a product rounds
depends on the processor and on the shapes, so it only nominates: every neighbour that its rounding leaves in
doubt is compared again in float64, in a fixed order. The matches are therefore the same on every machine, in
whatever company a pair is computed, and whether the product was of float32 or of whole numbers.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = [
    "byte_lengths",
    "match",
    "matchable",
    "nearest_features",
    "nearest_in_table",
    "product_size",
    "table_of",
]

_GROUP = 4  # gallery features that enter the search for the nearest together
_UNIT_TOLERANCE = 1e-3


def match(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    *,
    max_distance: float | None = None,
    max_ratio: float | None = None,
    mutual: bool = False,
) -> NDArray[np.int32]:
    """Match each feature of `query` to its nearest neighbour in `gallery`; keep the matches that pass.

    Parameters
    ----------
    query
        (n1, d) float32, unit rows. A row that is zero or not finite matches nothing, here and in `gallery`.
    gallery
        (n2, d) float32, unit rows.
    max_distance
        Keep a match whose Euclidean distance is below it (strictly), that is `2 - 2 s < max_distance ** 2`
        for the inner product s. DELF's recipes have 0.8 and 0.9.
    max_ratio
        Keep a match whose distance is below `max_ratio` times that of the second neighbour (Lowe 2004: 0.8).
        Where `gallery` has a single feature nothing can be told, and nothing passes.
    mutual
        Keep a match whose gallery feature has that query feature as its own nearest.

    Returns
    -------
    (m, 2) int32, rows (feature of `query`, feature of `gallery`), in order of the former. Of equally near
    features the first counts as nearest.

    Raises
    ------
    LmrError
        The shapes do not fit, or rows are not of unit length.
    """
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise LmrError(
            "descriptors of the two photos do not fit",
            got=f"query {query.shape}, gallery {gallery.shape}",
            fix="extract both with the same settings",
        )
    query, gallery = (np.ascontiguousarray(rows, dtype=np.float32) for rows in (query, gallery))
    kept = [np.flatnonzero(matchable(rows)) for rows in (query, gallery)]
    product = np.empty(product_size(len(kept[0]), len(kept[1])), dtype=np.float32)
    pairs, _ = nearest_features(
        query[kept[0]],
        gallery[kept[1]],
        product,
        max_distance=max_distance,
        max_ratio=max_ratio,
        mutual=mutual,
    )
    return np.stack([kept[0][pairs[:, 0]], kept[1][pairs[:, 1]]], axis=1).astype(np.int32)


def matchable(descriptors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which rows can be matched: (n,) bool, false where a row is zero or not finite.

    Raises
    ------
    LmrError
        A row is finite, not zero, and not of unit length.
    """
    squares = np.einsum("ij,ij->i", descriptors, descriptors, dtype=np.float32)
    good = np.abs(squares - 1) < 2 * _UNIT_TOLERANCE
    if not good.all():
        wrong = ~good & np.isfinite(descriptors).all(axis=1) & (descriptors != 0).any(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise LmrError(
                f"{int(wrong.sum())} of {len(wrong)} descriptors are not of unit length",
                got=f"row {row} of length {np.linalg.norm(descriptors[row].astype(np.float64)):.4g}",
                fix="divide each descriptor by its L2 norm, in float32",
            )
    return np.asarray(good)


def product_size(query_count: int, gallery_count: int) -> int:
    """Return the number of float32 that `nearest_features` needs as `product`."""
    return query_count * (gallery_count + _GROUP - 1)


def nearest_features(
    query: NDArray[np.float32],
    gallery: NDArray[np.float32],
    product: NDArray[np.float32],
    *,
    max_distance: float | None,
    max_ratio: float | None,
    mutual: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Do the work of `match` for many pairs: rows are taken as they are, and `product` is work space.

    Parameters
    ----------
    query, gallery
        (n1, d) and (n2, d) float32, C-contiguous, unit rows, all of them `matchable`.
    product
        float32, at least `product_size(n1, n2)` long; overwritten. A caller with many pairs allocates it
        once, which saves the system from clearing megabytes of fresh memory for each pair.
    max_distance, max_ratio, mutual
        As for `match`.

    Returns
    -------
    pairs
        (m, 2) int32.
    similarity
        (m,) float64, the inner product of each.
    """
    table = table_of(product, len(query), len(gallery))
    np.matmul(gallery, query.T, out=table[: len(gallery)])
    # A sum of d products is off by at most d units in the last place, in whatever order (Higham 2002, §3.1).
    margin = 1.01 * (query.shape[1] + 1) * 2.0**-24
    of_query, of_gallery = np.ones(len(query), np.float32), np.ones(len(gallery), np.float32)
    return nearest_in_table(
        table,
        (query, of_query),
        (gallery, of_gallery),
        margin,
        max_distance=max_distance,
        max_ratio=max_ratio,
        mutual=mutual,
    )


def table_of(product: NDArray[Any], query_count: int, gallery_count: int) -> NDArray[Any]:
    """Return the part of a work space that a product goes into, a row per gallery feature.

    There are up to three rows more, less than any product: gallery features are taken four at a time.
    """
    whole = -(-gallery_count // _GROUP) * _GROUP
    table = product[: query_count * whole].reshape(whole, query_count)
    least = -np.inf if table.dtype.kind == "f" else np.iinfo(table.dtype).min
    table[gallery_count:] = least
    return table


def nearest_in_table(
    table: NDArray[Any],
    query: tuple[NDArray[Any], NDArray[np.float32]],
    gallery: tuple[NDArray[Any], NDArray[np.float32]],
    margin: float,
    *,
    max_distance: float | None,
    max_ratio: float | None,
    mutual: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Choose the matches from a product that was made already.

    Parameters
    ----------
    table
        As of `table_of`, the inner products of gallery rows and query rows; float32 or int32.
    query, gallery
        Rows, and the length of each, float32 above 0. A row over its length, in float32, is what is compared.
    margin
        The most by which an entry over both lengths differs from the inner product of what is compared.
    max_distance, max_ratio, mutual
        As for `match`.

    Returns
    -------
    As `nearest_features`.
    """
    return _select(  # type: ignore[no-any-return]  # Numba has no types
        table,
        *query,
        *gallery,
        2 * margin,
        np.inf if max_distance is None else float(max_distance) ** 2,
        np.inf if max_ratio is None else float(max_ratio) ** 2,
        mutual,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def byte_lengths(rows: Any) -> Any:
    """Return the length of each row of whole numbers, as `lmr.retrieval.descriptors.to_float` has it."""
    lengths = np.empty(len(rows), dtype=np.float32)
    for i in range(len(rows)):
        total = np.int64(0)  # whole numbers: exact in whatever order
        for k in range(rows.shape[1]):
            number = np.int32(rows[i, k])
            total += number * number
        lengths[i] = np.sqrt(np.float64(total))
    return lengths


@njit(nogil=True, cache=True, error_model="numpy")
def _select(
    table: Any,
    query: Any,
    query_length: Any,
    gallery: Any,
    gallery_length: Any,
    doubt: Any,
    max_square: Any,
    ratio_square: Any,
    mutual: Any,
) -> Any:
    """Find the nearest and apply the tests; what `table` has within `doubt` is compared anew."""
    n1, n2 = len(query), len(gallery)
    by_ratio = ratio_square < np.inf
    over_query, over_gallery = np.float32(1) / query_length, np.ones(len(table), dtype=np.float32)
    over_gallery[:n2] /= gallery_length
    pairs, similarities = np.empty((n1, 2), dtype=np.int32), np.empty(n1)
    first = np.full(n1, -np.inf, dtype=np.float32)
    second, group = first.copy(), np.zeros(n1, dtype=np.int32)
    for j in range(0, len(table), _GROUP):
        _take_group(table, over_gallery, j, first, second, group)
    work = np.empty((2, query.shape[1]), dtype=np.float32)
    asked, answered = (query, query_length, work[0]), (gallery, gallery_length, work[1])
    m = 0
    for i in range(n1):
        top, following = first[i] * over_query[i], second[i] * over_query[i]
        nearest = 2 - 2 * (top + doubt)
        if n2 == 0 or nearest >= max_square:
            continue
        if by_ratio and (n2 == 1 or nearest >= ratio_square * max(2 - 2 * (following - doubt), 0.0)):
            continue
        clear = top - following > doubt
        _unit(asked, i)
        if clear:
            j = group[i]
            while np.float32(table[j, i]) * over_gallery[j] != first[i]:
                j += 1
            similarity, other = _exact(asked, answered, j), np.float64(following)
        else:
            floor = following if by_ratio else top
            j, similarity, other = _exact_neighbours(
                table, over_gallery, over_query, i, floor - doubt, asked, answered
            )
        # Rows are of unit length but for rounding: without the 0, two copies could be nearer than each other.
        square = max(2 - 2 * similarity, 0.0)
        if not square < max_square:
            continue
        if by_ratio:
            if clear and abs(square - ratio_square * max(2 - 2 * other, 0.0)) <= 4 * doubt * (
                1 + ratio_square
            ):
                other = _exact_neighbours(
                    table, over_gallery, over_query, i, following - doubt, asked, answered
                )[2]
            if not square < ratio_square * max(2 - 2 * other, 0.0):
                continue
        if mutual and not _is_first(
            table[j], over_gallery[j], over_query, doubt, i, similarity, asked, answered, j
        ):
            continue
        pairs[m, 0], pairs[m, 1], similarities[m] = i, j, similarity
        m += 1
    return pairs[:m].copy(), similarities[:m].copy()


# Nothing in the table is NaN (unit rows); saying so lets LLVM compare sixteen query features at a time.
@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _take_group(table: Any, over: Any, j: Any, first: Any, second: Any, group: Any) -> None:
    """Enter gallery features j to j + 3 into each query feature's two largest entries and leading group.

    An entry is the inner product over the gallery feature's length.
    """
    row_a, row_b, row_c, row_d = table[j], table[j + 1], table[j + 2], table[j + 3]
    over_a, over_b, over_c, over_d = over[j], over[j + 1], over[j + 2], over[j + 3]
    for i in range(len(first)):
        a, b = np.float32(row_a[i]) * over_a, np.float32(row_b[i]) * over_b
        c, d = np.float32(row_c[i]) * over_c, np.float32(row_d[i]) * over_d
        high_ab, low_ab = max(a, b), min(a, b)
        high_cd, low_cd = max(c, d), min(c, d)
        high = max(high_ab, high_cd)
        low = max(min(high_ab, high_cd), max(low_ab, low_cd))
        before = first[i]
        second[i] = max(max(second[i], low), min(before, high))
        group[i] = np.int32(j) if high > before else group[i]
        first[i] = max(before, high)


@njit(nogil=True, cache=True)
def _exact_neighbours(
    table: Any, over_gallery: Any, over_query: Any, i: Any, floor: Any, asked: Any, answered: Any
) -> Any:
    """Return the nearest gallery feature at or above `floor`, its similarity, and that of the second."""
    best, similarity, other = -1, -np.inf, -np.inf
    for j in range(len(answered[0])):
        if np.float32(table[j, i]) * over_gallery[j] * over_query[i] >= floor:
            s = _exact(asked, answered, j)
            if s > similarity:
                best, similarity, other = j, s, similarity
            elif s > other:
                other = s
    return best, similarity, other


@njit(nogil=True, cache=True)
def _is_first(
    row: Any,
    over_gallery: Any,
    over_query: Any,
    doubt: Any,
    i: Any,
    similarity: Any,
    asked: Any,
    answered: Any,
    j: Any,
) -> Any:
    """Whether query feature i is the nearest of gallery feature j."""
    above, near = 0, 0
    for k in range(len(row)):
        s = np.float32(row[k]) * over_gallery * over_query[k]
        above += s > similarity + doubt
        near += s >= similarity - doubt
    if above > 0 or near == 1:
        return above == 0
    _unit(answered, j)
    for k in range(len(row)):
        if np.float32(row[k]) * over_gallery * over_query[k] >= similarity - doubt and k != i:
            s = _exact(answered, asked, k)
            if s > similarity or (s == similarity and k < i):
                return False
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _unit(side: Any, i: Any) -> None:
    """Put one row over its length into the side's work space."""
    rows, lengths, work = side
    length = lengths[i]
    for k in range(len(work)):
        work[k] = np.float32(rows[i, k]) / length


@njit(nogil=True, cache=True)
def _exact(one: Any, other: Any, j: Any) -> Any:
    """Return the inner product of the row in the one's work space and row j of the other."""
    _unit(other, j)
    a, b = one[2], other[2]
    # A product of two float32 is exact in float64: fused or not makes no difference. The order is fixed.
    even, odd = 0.0, 0.0
    for k in range(0, len(a) - 1, 2):
        even += np.float64(a[k]) * np.float64(b[k])
        odd += np.float64(a[k + 1]) * np.float64(b[k + 1])
    if len(a) % 2:
        even += np.float64(a[-1]) * np.float64(b[-1])
    return even + odd
