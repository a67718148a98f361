"""Putative matches: each feature of the query photo with its nearest neighbour in the gallery photo.

One float32 matrix product does nearly all of the work, and one pass over its result the rest. What a
product rounds depends on the processor and on the shapes, so it only nominates: every neighbour that its
rounding leaves in doubt is compared again in float64, in a fixed order. The matches are therefore the same on
every machine and in whatever company a pair is computed.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["match", "matchable", "nearest_features", "product_size"]

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
    n1, n2 = len(query), len(gallery)
    whole = -(-n2 // _GROUP) * _GROUP
    table = product[: n1 * whole].reshape(whole, n1)
    np.matmul(gallery, query.T, out=table[:n2])
    table[n2:] = -np.inf
    # A sum of d products is off by at most d units in the last place, in whatever order (Higham 2002, §3.1).
    margin = 1.01 * (query.shape[1] + 1) * 2.0**-24
    return _select(  # type: ignore[no-any-return]  # Numba has no types
        table,
        query,
        gallery,
        2 * margin,
        np.inf if max_distance is None else float(max_distance) ** 2,
        np.inf if max_ratio is None else float(max_ratio) ** 2,
        mutual,
    )


@njit(nogil=True, cache=True)
def _select(
    table: Any, query: Any, gallery: Any, doubt: Any, max_square: Any, ratio_square: Any, mutual: Any
) -> Any:
    """Find the nearest and apply the tests; what `table` has within `doubt` is compared anew."""
    n1, n2 = len(query), len(gallery)
    pairs, similarities = np.empty((n1, 2), dtype=np.int32), np.empty(n1)
    first = np.full(n1, -np.inf, dtype=np.float32)
    second, group = first.copy(), np.zeros(n1, dtype=np.int32)
    for j in range(0, len(table), _GROUP):
        _take_group(table, j, first, second, group)
    m = 0
    for i in range(n1):
        if n2 == 0 or 2 - 2 * (first[i] + doubt) >= max_square:
            continue
        clear = first[i] - second[i] > doubt
        if clear:
            j = group[i]
            while table[j, i] != first[i]:
                j += 1
            similarity, other = _exact(query[i], gallery[j]), np.float64(second[i])
        else:
            floor = second[i] if ratio_square < np.inf else first[i]
            j, similarity, other = _exact_neighbours(table[:n2, i], floor - doubt, query[i], gallery)
        # Rows are of unit length but for rounding: without the 0, two copies could be nearer than each other.
        square = max(2 - 2 * similarity, 0.0)
        if not square < max_square:
            continue
        if ratio_square < np.inf:
            if n2 == 1:
                continue
            if clear and abs(square - ratio_square * max(2 - 2 * other, 0.0)) <= 4 * doubt * (
                1 + ratio_square
            ):
                other = _exact_neighbours(table[:n2, i], second[i] - doubt, query[i], gallery)[2]
            if not square < ratio_square * max(2 - 2 * other, 0.0):
                continue
        if mutual and not _is_first(table[j], doubt, i, similarity, query, gallery[j]):
            continue
        pairs[m, 0], pairs[m, 1], similarities[m] = i, j, similarity
        m += 1
    return pairs[:m].copy(), similarities[:m].copy()


# Nothing in the table is NaN (unit rows); saying so lets LLVM compare sixteen query features at a time.
@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _take_group(table: Any, j: Any, first: Any, second: Any, group: Any) -> None:
    """Enter gallery features j to j + 3 into each query feature's two largest entries and leading group."""
    a, b, c, d = table[j], table[j + 1], table[j + 2], table[j + 3]
    for i in range(len(first)):
        high_ab, low_ab = max(a[i], b[i]), min(a[i], b[i])
        high_cd, low_cd = max(c[i], d[i]), min(c[i], d[i])
        high = max(high_ab, high_cd)
        low = max(min(high_ab, high_cd), max(low_ab, low_cd))
        before = first[i]
        second[i] = max(max(second[i], low), min(before, high))
        group[i] = np.int32(j) if high > before else group[i]
        first[i] = max(before, high)


@njit(nogil=True, cache=True)
def _exact_neighbours(column: Any, floor: Any, feature: Any, gallery: Any) -> Any:
    """Return the nearest gallery feature at or above `floor`, its similarity, and that of the second."""
    best, similarity, other = -1, -np.inf, -np.inf
    for j in range(len(column)):
        if column[j] >= floor:
            s = _exact(feature, gallery[j])
            if s > similarity:
                best, similarity, other = j, s, similarity
            elif s > other:
                other = s
    return best, similarity, other


@njit(nogil=True, cache=True)
def _is_first(row: Any, doubt: Any, i: Any, similarity: Any, query: Any, feature: Any) -> Any:
    """Whether query feature i is the nearest of this gallery feature."""
    above, near = 0, 0
    for k in range(len(row)):
        above += row[k] > similarity + doubt
        near += row[k] >= similarity - doubt
    if above > 0 or near == 1:
        return above == 0
    for k in range(len(row)):
        if row[k] >= similarity - doubt and k != i:
            s = _exact(query[k], feature)
            if s > similarity or (s == similarity and k < i):
                return False
    return True


@njit(nogil=True, cache=True)
def _exact(a: Any, b: Any) -> Any:
    # A product of two float32 is exact in float64: fused or not makes no difference. The order is fixed.
    even, odd = 0.0, 0.0
    for k in range(0, len(a) - 1, 2):
        even += np.float64(a[k]) * np.float64(b[k])
        odd += np.float64(a[k + 1]) * np.float64(b[k + 1])
    if len(a) % 2:
        even += np.float64(a[-1]) * np.float64(b[-1])
    return even + odd
