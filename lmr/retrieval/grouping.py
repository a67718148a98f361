"""Groups of photos of one place, from pairs that were verified.

Pairs make a graph whose connected parts would be the groups, if no pair were wrong: one wrong pair joins two
places. So a pair joins groups only where a third photo agrees with both of its photos. A pair without such a
photo adds a photo that is alone to a group, or makes two of them one, the pair with most inliers first.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

__all__ = ["group_photos", "supported"]

_ROWS_AT_ONCE = 65_536


def group_photos(
    first: NDArray[np.integer[Any]],
    second: NDArray[np.integer[Any]],
    inliers: NDArray[np.integer[Any]],
    n_photos: int,
    *,
    support: bool = True,
) -> NDArray[np.int32]:
    """Return the group of each photo.

    Parameters
    ----------
    first, second
        (p,) photos of each pair that joins, numbers from 0 on; no pair twice in the same order.
    inliers
        (p,) how strongly: pairs with more are taken first.
    n_photos
        How many photos there are.
    support
        Whether groups are joined only by pairs that a third photo supports; else by any pair.

    Returns
    -------
    (n_photos,) int32: groups by size from 0 on, the larger first, of equal ones that with the first photo;
    -1 for a photo that is alone.

    Examples
    --------
    Two triangles, joined by one pair, stay two groups; photo 6 is added to one of them, photo 7 is alone.

    >>> pairs = np.array([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [3, 5], [2, 3], [5, 6]])
    >>> group_photos(pairs[:, 0], pairs[:, 1], np.full(8, 30), 8).tolist()
    [1, 1, 1, 0, 0, 0, 0, -1]
    """
    linked = supported(first, second, n_photos) if support else np.ones(len(first), bool)
    parent = _components(first[linked], second[linked], n_photos)
    sizes = np.bincount(parent, minlength=n_photos)
    rest = np.flatnonzero(~linked)
    for i in rest[np.lexsort((second[rest], first[rest], -inliers[rest]))].tolist():
        one, other = _root(parent, int(first[i])), _root(parent, int(second[i]))
        if one != other and min(sizes[one], sizes[other]) == 1:
            small, large = (one, other) if sizes[one] <= sizes[other] else (other, one)
            parent[small] = large
            sizes[large] += sizes[small]
    labels = np.array([_root(parent, photo) for photo in range(n_photos)], np.int64)
    return _by_size(labels)


def supported(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], n_photos: int
) -> NDArray[np.bool_]:
    """Tell of each pair whether there is a third photo that is paired with both.

    Parameters
    ----------
    first, second
        (p,) photos of each pair.
    n_photos
        How many photos there are.

    Returns
    -------
    (p,) bool.
    """
    ones = np.ones(2 * len(first), np.int32)
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    graph = csr_array(coo_array((ones, ends), shape=(n_photos, n_photos)))
    graph.data[:] = 1
    found = np.zeros(len(first), bool)
    order = np.argsort(first, kind="stable")
    # In blocks of rows: the whole square of the graph of a million photos takes gigabytes.
    for start in range(0, n_photos, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, n_photos)
        lo, hi = np.searchsorted(first[order], [start, stop])
        mine = order[lo:hi]
        if len(mine):
            common = (graph[start:stop] @ graph).multiply(graph[start:stop]).tocsr()
            found[mine] = np.asarray(common[first[mine] - start, second[mine]]).ravel() > 0
    return found


def _components(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], n_photos: int
) -> NDArray[np.int64]:
    """Return for each photo the first photo of its connected part."""
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n_photos, n_photos))
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)
    return np.asarray(firsts[labels], np.int64)


def _root(parent: NDArray[np.int64], photo: int) -> int:
    while parent[photo] != photo:
        parent[photo] = parent[parent[photo]]
        photo = int(parent[photo])
    return photo


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int32]:
    names, firsts, inverse, counts = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((firsts, -counts))
    number = np.full(len(names), -1, np.int32)
    kept = order[counts[order] > 1]
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return np.asarray(number[inverse], np.int32)
