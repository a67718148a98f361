"""Labels of a gallery that look wrong: what the verified neighbours of a photo are called."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Suspects", "suspect_labels"]


@dataclass(frozen=True, eq=False)
class Suspects:
    """Photos whose label looks wrong, those with most against it first.

    Attributes
    ----------
    photos
        (s,) int64, rows of the photos.
    landmarks
        (s,) int64, what most of their verified neighbours are called.
    others, own
        (s,) int64, how many verified neighbours are called that, and how many as the photo itself.
    neighbours
        (s,) int64, the neighbour of that landmark with most inliers.
    """

    photos: NDArray[np.int64]
    landmarks: NDArray[np.int64]
    others: NDArray[np.int64]
    own: NDArray[np.int64]
    neighbours: NDArray[np.int64]


def suspect_labels(
    photos: NDArray[np.integer[Any]],
    neighbours: NDArray[np.integer[Any]],
    inliers: NDArray[np.integer[Any]],
    landmarks: NDArray[np.int64],
    *,
    min_inliers: int,
) -> Suspects:
    """Return the photos of which more verified neighbours carry another label than their own.

    Parameters
    ----------
    photos, neighbours
        (p,) rows of the photos of each pair; a pair speaks for both of its photos.
    inliers
        (p,) their inliers.
    landmarks
        (g,) landmark of each photo, -1 for none; photos without one neither are suspects nor accuse.
    min_inliers
        Pairs with more are verified.

    Examples
    --------
    >>> pairs = np.array([[0, 1], [0, 2], [1, 2], [3, 4]])
    >>> found = suspect_labels(*pairs.T, np.array([30, 40, 50, 5]), np.array([8, 9, 9, 8, 9]), min_inliers=10)
    >>> found.photos, found.landmarks, found.others, found.own, found.neighbours
    (array([0]), array([9]), array([2]), array([0]), array([2]))
    """
    sure = (inliers > min_inliers) & (landmarks[photos] >= 0) & (landmarks[neighbours] >= 0)
    photo, beside, strength = _both_ways(photos[sure], neighbours[sure], inliers[sure])
    none = np.empty(0, np.int64)
    if not len(photo):
        return Suspects(none, none, none, none, none)
    cells, cell_of = np.unique(np.stack([photo, landmarks[beside]], axis=1), axis=0, return_inverse=True)
    cell_of = cell_of.ravel()
    counts = np.bincount(cell_of, minlength=len(cells))
    is_own = cells[:, 1] == landmarks[cells[:, 0]]
    own = np.zeros(len(landmarks), np.int64)
    own[cells[is_own, 0]] = counts[is_own]
    # Of each photo the other landmark that most of its neighbours have.
    other = np.flatnonzero(~is_own)
    other = other[np.lexsort((cells[other, 1], -counts[other], cells[other, 0]))]
    other = other[np.unique(cells[other, 0], return_index=True)[1]]
    other = other[counts[other] > own[cells[other, 0]]]
    other = other[np.lexsort((cells[other, 0], own[cells[other, 0]] - counts[other]))]
    order = np.lexsort((beside, -strength, cell_of))
    first = np.unique(cell_of[order], return_index=True)[1]
    best = beside[order[first]]
    accused = cells[other, 0]
    return Suspects(accused, cells[other, 1], counts[other], own[accused], best[other])


def _both_ways(
    photos: NDArray[np.integer[Any]], neighbours: NDArray[np.integer[Any]], inliers: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return each pair from both of its photos, once, with the most inliers that were found for it."""
    both = np.stack([np.concatenate([photos, neighbours]), np.concatenate([neighbours, photos])], axis=1)
    pairs, pair_of = np.unique(both.astype(np.int64), axis=0, return_inverse=True)
    strength = np.zeros(len(pairs), np.int64)
    np.maximum.at(strength, pair_of.ravel(), np.tile(inliers.astype(np.int64), 2))
    return pairs[:, 0], pairs[:, 1], strength
