"""Fuse rankings by reciprocal rank.

Cormack, Clarke and Buettcher, *Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods* (SIGIR 2009). It needs no common scale of scores, and nothing to be fitted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fuse"]

OFFSET = 60.0
"""The paper's k: how much less the first ranks count than 1 / rank would make them."""


def fuse(
    rankings: Sequence[NDArray[np.integer[Any]]], weights: Sequence[float], *, offset: float = OFFSET
) -> NDArray[np.int32]:
    """Order photos by the sum of weight / (offset + rank) over the rankings of one query.

    Parameters
    ----------
    rankings
        Gallery rows, best first, without repeats; -1 is left out but keeps its rank.
    weights
        One per ranking.
    offset
        Added to each rank, which counts from 1.

    Returns
    -------
    (n,) int32, every photo of any ranking, ties by row.

    Examples
    --------
    >>> fuse([np.array([7, 3, 5]), np.array([3, 9])], [1.0, 1.0]).tolist()
    [3, 7, 9, 5]
    """
    listed = [np.asarray(ranking) for ranking in rankings]
    shares = [w / (offset + 1 + np.arange(len(r))) for r, w in zip(listed, weights, strict=True)]
    rows, shares_ = np.concatenate(listed), np.concatenate(shares)
    photos, places = np.unique(rows[rows >= 0], return_inverse=True)
    totals = np.bincount(places, weights=shares_[rows >= 0], minlength=len(photos))
    order: NDArray[np.int32] = photos[np.lexsort((photos, -totals))].astype(np.int32)
    return order
