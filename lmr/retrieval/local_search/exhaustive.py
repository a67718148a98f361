"""Local search without an index: each feature of a query is compared with every feature of the gallery.

For a GPU, or for a small gallery. An index finds nearly the same neighbours by a small part of the products.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.descriptors import check_descriptors
from lmr.retrieval.local_search.inverted_file import merge_neighbours

__all__ = ["Nearest", "search_exhaustively"]

Floats = NDArray[np.float32]
Nearest = Callable[[Floats, Floats, int], tuple[Floats, NDArray[np.int32]]]
"""Takes queries, gallery rows and k; returns products and row numbers as `global_search.nearest` does."""


def search_exhaustively(
    parts: Iterable[tuple[Floats, NDArray[np.integer]]], queries: Floats, *, k: int, nearest: Nearest
) -> tuple[Floats, NDArray[np.int32]]:
    """Find the k nearest gallery descriptors of each query descriptor, exactly.

    Parameters
    ----------
    parts
        Of each part of the gallery the descriptors, (n, d) float32 unit rows, and the gallery row of each
        one's photo, (n,), ascending; n may be 0. Rows of zeros are never found.
    queries
        (q, d) float32 unit rows; q may be 0. A row of zeros finds nothing.
    k
        Neighbours per query.
    nearest
        Finds the nearest rows of a part, on a CPU or on a GPU.

    Returns
    -------
    distances
        (q, k) float32, squared L2, ascending; equal distances in order of photo row; inf where there is none.
    photo_rows
        (q, k) int32, the photo of each neighbour (a photo may come several times); -1 where there is none.
        How the gallery is cut into parts makes no difference.

    Raises
    ------
    LmrError
        Queries not finite or not unit, or descriptors of another dimension.
    """
    check_descriptors(queries, unit=True)
    below = np.full((len(queries), k), np.inf, np.float32)  # products, negated
    rows = np.full((len(queries), k), -1, np.int32)
    for descriptors, photos in parts:
        check_descriptors(descriptors, dimension=queries.shape[1])
        if not len(descriptors) or not len(queries):
            continue
        more, places = nearest(queries, descriptors, k)
        more_rows = np.where(places >= 0, photos[places], -1).astype(np.int32)
        below, rows = merge_neighbours(below, rows, -more, more_rows)
    return np.maximum(2 + 2 * below, 0), rows
