"""Landmarks by the probability of the photos that were found: one name per query. Arrays in and out.

`lmr.retrieval.probability` says how probable it is that a photo shows the query's landmark.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lmr.errors import SettingsError

__all__ = ["COMBINE", "Combine", "ProbableNames", "by_probability", "combined"]

Values = NDArray[np.float64]
Combine = Literal["best", "noisy_or", "mean"]

COMBINE: tuple[Combine, ...] = ("best", "noisy_or", "mean")
"""How the photos of a landmark become one probability; see `combined`."""


def combined(
    queries: NDArray[np.int64], landmarks: NDArray[np.int64], probability: Values, how: Combine = "best"
) -> tuple[NDArray[np.int64], Values]:
    """Return the probability of each landmark that some photo of a query's list speaks for.

    Parameters
    ----------
    queries
        (p,) row of the query of each pair.
    landmarks
        (p,) landmark of its photo, 0 or more.
    probability
        (p,) that the photo shows the query's landmark.
    how
        "best": that of the surest photo. "noisy_or": 1 - Π (1 - p), as if photos spoke independently (Pearl
        1988). "mean": the mean over the landmark's photos in the list.

    Returns
    -------
    cells
        (c, 2) int64, query and landmark, in order.
    probability
        (c,) float64, 0 to 1.

    Examples
    --------
    >>> cells, said = combined(np.zeros(3, int), np.array([4, 4, 2]), np.array([0.5, 0.5, 0.6]), "noisy_or")
    >>> cells.tolist(), said
    ([[0, 2], [0, 4]], array([0.6 , 0.75]))
    """
    if how not in COMBINE:
        raise SettingsError(
            "there is no such way to combine", got=str(how), fix=f"one of {', '.join(COMBINE)}"
        )
    if not len(queries):
        return np.empty((0, 2), np.int64), np.empty(0)
    cells, of_pair = np.unique(np.stack([queries, landmarks], axis=1), axis=0, return_inverse=True)
    of_pair = of_pair.ravel()
    if how == "best":
        best = np.zeros(len(cells))
        np.maximum.at(best, of_pair, probability)
        return cells, best
    if how == "mean":
        total = np.bincount(of_pair, weights=probability, minlength=len(cells))
        return cells, total / np.bincount(of_pair, minlength=len(cells))
    none = np.bincount(of_pair, weights=np.log1p(-np.minimum(probability, 1 - 1e-12)), minlength=len(cells))
    return cells, -np.expm1(none)


@dataclass(frozen=True, eq=False)
class ProbableNames:
    """A landmark per query, by the probability of its photos.

    Attributes
    ----------
    landmarks
        (q,) int64; -1 where no photo of the list shows a landmark.
    confidence
        (q,) float64, its probability; -inf where there is no landmark.
    support
        (q,) int64, its photos in the list that are probable.
    photos
        (q,) int64, the most probable of these; -1 where there is no landmark.
    """

    landmarks: NDArray[np.int64]
    confidence: Values
    support: NDArray[np.int64]
    photos: NDArray[np.int64]


def by_probability(
    photos: NDArray[np.integer[Any]],
    probability: Values,
    landmarks: NDArray[np.int64],
    *,
    how: Combine = "best",
    least_support: float = 0.5,
) -> ProbableNames:
    """Name the landmark of each query by the probability of the photos that were found for it.

    Parameters
    ----------
    photos
        (q, n) gallery rows; -1 where there is none.
    probability
        (q, n) that each shows the query's landmark.
    landmarks
        (g,) landmark of each gallery photo, -1 for none.
    how
        As of `combined`.
    least_support
        A photo that is at least so probable counts as support.

    Returns
    -------
    ProbableNames
        Of landmarks, and of photos, that are equally probable the one with the lowest number.

    Examples
    --------
    >>> found = by_probability(np.array([[0, 2, 1]]), np.array([[0.9, 0.8, 0.6]]), np.array([-1, 3, 5]))
    >>> found.landmarks, found.confidence, found.photos
    (array([5]), array([0.8]), array([2]))
    """
    count = len(photos)
    query, place = np.nonzero(photos >= 0)
    photo, said = photos[query, place].astype(np.int64), probability[query, place]
    some = landmarks[photo] >= 0
    query, photo, said = query[some].astype(np.int64), photo[some], said[some]
    cells, of_cell = combined(query, landmarks[photo], said, how)
    named = np.full(count, -1, np.int64)
    confidence = np.full(count, -np.inf)
    support, best = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    order = np.lexsort((cells[:, 1], -of_cell, cells[:, 0]))
    rows, first = np.unique(cells[order, 0], return_index=True)
    named[rows], confidence[rows] = cells[order[first], 1], of_cell[order[first]]
    mine = landmarks[photo] == named[query]
    query, photo, said = query[mine], photo[mine], said[mine]
    np.add.at(support, query, said >= least_support)
    order = np.lexsort((photo, -said, query))
    rows, first = np.unique(query[order], return_index=True)
    best[rows] = photo[order[first]]
    return ProbableNames(named, confidence, support, best)
