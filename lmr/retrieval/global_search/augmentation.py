"""Database-side augmentation (DBA): every gallery descriptor is averaged with its neighbours, ahead of time.

Arandjelovic and Zisserman, *Three things everyone should know to improve object retrieval* (CVPR 2012);
weights by similarity as in Gordo et al., *End-to-end learning of deep visual representations* (IJCV 2017).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import LmrError
from lmr.retrieval.global_search.exact import Descriptors, spans

__all__ = ["augment_descriptors", "sum_with_neighbours", "weights_of"]

ROWS_AT_ONCE = 1024  # at k = 50 and d = 128 at most 26 MB are gathered at a time


def augment_descriptors(
    rows: Descriptors,
    neighbour_ids: NDArray[np.int32],
    neighbour_sims: NDArray[np.float32],
    descriptors: Descriptors,
    *,
    alpha: float,
) -> NDArray[np.float32]:
    """Average gallery rows with their neighbours: x + sum of similarity^alpha * neighbour, to unit length.

    Parameters
    ----------
    rows
        (b, d) float16 or float32, the rows to augment.
    neighbour_ids
        (b, k) int32, their neighbours in the gallery without themselves; -1 for none.
    neighbour_sims
        (b, k) float32, the similarities.
    descriptors
        (n, d) float16 or float32, the gallery; a `np.memmap` is read row by row, in order of rows.
    alpha
        Exponent of the similarity: 0 is the plain mean, 3 the usual weighted one. Negative similarities count
        as 0.

    Returns
    -------
    (b, d) float32, unit rows. A zero row (a photo without descriptor) stays zero, whatever its list holds.
    """
    return sum_with_neighbours(rows, neighbour_ids, weights_of(neighbour_sims, alpha), descriptors)


def weights_of(sims: NDArray[np.float32], alpha: float) -> NDArray[np.float64]:
    """Return similarity^alpha, negative similarities (and -inf, none) as 0; all ones for alpha 0."""
    if alpha < 0:
        raise LmrError(
            "the exponent of the similarity is negative",
            got=f"alpha = {alpha}",
            fix="use 0 (plain mean) or more",
        )
    return np.maximum(sims, 0.0, dtype=np.float64) ** alpha


def sum_with_neighbours(
    rows: Descriptors,
    ids: NDArray[np.integer[Any]],
    weights: NDArray[np.floating[Any]],
    descriptors: Descriptors,
) -> NDArray[np.float32]:
    """Return the unit vectors of `row + sum of weight * descriptor` over each row's list.

    Parameters
    ----------
    rows
        (b, d) float16 or float32.
    ids, weights
        (b, k), the listed descriptors' row numbers (-1 for none) and weights.
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`.

    Returns
    -------
    (b, d) float32, unit rows; zero rows stay zero. Each row depends on its own list only, to the last bit.

    Raises
    ------
    LmrError
        If shapes disagree or a row number lies outside the gallery.
    """
    if ids.shape != weights.shape or len(ids) != len(rows) or rows.shape[1] != descriptors.shape[1]:
        raise LmrError(
            "rows, neighbour lists and gallery do not fit",
            got=f"rows {rows.shape}, ids {ids.shape}, weights {weights.shape}, gallery {descriptors.shape}",
            fix="give one list per row, and the gallery that was searched",
        )
    if ids.size and int(ids.max()) >= len(descriptors):
        raise LmrError(
            "a neighbour lies outside the gallery",
            got=f"row {int(ids.max())} of {len(descriptors)}",
            fix="give the gallery that was searched",
        )
    unit = np.zeros(rows.shape, dtype=np.float32)
    for lo, hi in spans(len(rows), ROWS_AT_ONCE):
        listed = ids[lo:hi] >= 0
        # Each gallery row is read once, in ascending order: on disk that is a scan with gaps.
        gallery_rows, columns = np.unique(ids[lo:hi][listed], return_inverse=True)
        gathered = np.asarray(descriptors[gallery_rows], dtype=np.float64)
        starts = np.concatenate(([0], np.cumsum(listed.sum(axis=1))))
        mix = csr_array(
            (weights[lo:hi][listed].astype(np.float64), columns, starts), shape=(hi - lo, len(gallery_rows))
        )
        own = np.asarray(rows[lo:hi], dtype=np.float64)
        total = own + mix @ gathered
        norms = np.linalg.norm(total, axis=1)
        known = (norms > 0) & own.any(axis=1)
        unit[lo:hi][known] = total[known] / norms[known, None]
    return unit
