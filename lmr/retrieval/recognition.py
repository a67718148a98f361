"""Recognition: the landmark of each query and a confidence, from what retrieval has found. Arrays in and out.

Retrieval gives pairs of a query and a gallery photo: verified matches with inliers, votes, and neighbours of
the global descriptor with similarities. Each pair speaks for its photo's landmark. What all photos of a
landmark say is added up; the landmark that has most is named. The confidence is then lowered for queries
that look like photos without a landmark, and for landmarks that attract queries that have nothing to do
with them.

Landmarks are numbers from 0; -1 stands for a photo without one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError, SettingsError

__all__ = [
    "Evidence",
    "Named",
    "background_similarity",
    "inlier_strength",
    "landmark_frequency",
    "name_landmarks",
]

Rows = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Pairs of one kind, and how much each speaks for the photo's landmark.

    Attributes
    ----------
    queries
        (p,) int64, rows of queries.
    photos
        (p,) int64, rows of gallery photos.
    strength
        (p,) float64, 0 for a pair that says nothing.
    weight
        Factor of this kind beside the others.
    """

    queries: Rows
    photos: Rows
    strength: Values
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Named:
    """A landmark per query.

    Attributes
    ----------
    landmarks
        (q,) int64, the landmark of each query; -1 where nothing speaks for any.
    confidence
        (q,) float64, comparable between queries; -inf where there is no landmark.
    support
        (q,) int64, how many pairs speak for the landmark.
    """

    landmarks: Rows
    confidence: Values
    support: Rows


def inlier_strength(
    inliers: NDArray[np.integer[Any]], *, min_inliers: int = 0, saturation: int = 70
) -> Values:
    """Return what inliers say, from 0 to 1: min(inliers, saturation) / saturation.

    Parameters
    ----------
    inliers
        (p,) inliers of verified pairs.
    min_inliers
        A pair with as many or fewer says nothing.
    saturation
        With so many inliers a match is certain; more say no more.

    Raises
    ------
    SettingsError
        If the saturation is below 1.

    Examples
    --------
    >>> inlier_strength(np.array([5, 35, 200]), min_inliers=5)
    array([0. , 0.5, 1. ])
    """
    if saturation < 1:
        raise SettingsError("saturation must be at least 1 inlier", got=str(saturation), fix="use 70")
    strength: Values = np.where(inliers > min_inliers, np.minimum(inliers, saturation) / saturation, 0.0)
    return strength


def background_similarity(similarities: NDArray[np.floating[Any]], *, nearest: int = 5) -> Values:
    """Return how much each query looks like photos without a landmark.

    Parameters
    ----------
    similarities
        (q, b) similarity of each query to photos without a landmark, in any order.
    nearest
        The mean is taken over so many of the most similar.

    Examples
    --------
    >>> background_similarity(np.array([[0.1, 0.9, 0.7], [0.0, 0.2, 0.1]]), nearest=2).round(2)
    array([0.8 , 0.15])
    """
    if nearest < 1:
        raise SettingsError("nearest must be at least 1 photo", got=str(nearest), fix="use 5")
    if similarities.shape[1] == 0:
        return np.zeros(len(similarities))
    top = np.sort(similarities.astype(np.float64), axis=1)[:, -nearest:]
    means: Values = top.mean(axis=1)
    return means


def landmark_frequency(unrelated: Named, n_landmarks: int) -> Values:
    """Return the share of unrelated queries that each landmark attracts.

    Parameters
    ----------
    unrelated
        Names given to photos that show none of the landmarks.
    n_landmarks
        How many landmarks there are.

    Returns
    -------
    ndarray
        (l,) float64, from 0 to 1.
    """
    named = unrelated.landmarks[unrelated.landmarks >= 0]
    counts = np.bincount(named, minlength=n_landmarks)
    share: Values = counts / max(1, len(unrelated.landmarks))
    return share


def name_landmarks(
    evidence: Sequence[Evidence],
    landmarks: Rows,
    n_queries: int,
    *,
    margin: float = 0.0,
    background: Values | None = None,
    background_weight: float = 1.0,
    frequency: Values | None = None,
    frequency_weight: float = 1.0,
) -> Named:
    """Name the landmark of each query, with a confidence.

    Parameters
    ----------
    evidence
        Pairs of each kind. A pair with a photo without a landmark says nothing.
    landmarks
        (g,) int64, the landmark of each gallery photo, -1 for none.
    n_queries
        How many queries there are.
    margin
        From 0 to 1, the share of the second landmark's sum that is taken from the confidence.
    background
        (q,) from `background_similarity`; None to leave the ingredient out.
    background_weight
        Factor of `background`, which is subtracted.
    frequency
        (l,) from `landmark_frequency`; None to leave the ingredient out.
    frequency_weight
        Factor of the named landmark's frequency, which is subtracted.

    Returns
    -------
    Named
        Of landmarks with equal sums, the one with the lowest number is named.

    Raises
    ------
    LmrError
        If rows lie outside the queries or the gallery, or a strength is not a number.

    Examples
    --------
    >>> pairs = Evidence(np.array([0, 0, 0]), np.array([0, 1, 2]), np.array([0.5, 0.4, 0.6]))
    >>> found = name_landmarks([pairs], np.array([7, 7, 3]), 2)
    >>> found.landmarks, found.confidence
    (array([ 7, -1]), array([ 0.9, -inf]))
    """
    query, landmark, strength = _joined(evidence, landmarks, n_queries)
    named = np.full(n_queries, -1, np.int64)
    confidence = np.full(n_queries, -np.inf)
    support = np.zeros(n_queries, np.int64)
    if len(query):
        cells, cell_of = np.unique(np.stack([query, landmark], axis=1), axis=0, return_inverse=True)
        cell_of = cell_of.ravel()
        sums = np.bincount(cell_of, weights=strength, minlength=len(cells))
        # By query, then by falling sum, then by landmark: the first of each query is its answer.
        order = np.lexsort((cells[:, 1], -sums, cells[:, 0]))
        rows, first = np.unique(cells[order, 0], return_index=True)
        best = order[first]
        named[rows] = cells[best, 1]
        support[rows] = np.bincount(cell_of, minlength=len(cells))[best]
        second = np.zeros(len(rows))
        follows = np.flatnonzero(np.diff(np.append(first, len(order))) > 1)
        second[follows] = sums[order[first[follows] + 1]]
        confidence[rows] = sums[best] - margin * second
    found = named >= 0
    if background is not None:
        confidence[found] -= background_weight * background[found]
    if frequency is not None:
        confidence[found] -= frequency_weight * frequency[named[found]]
    return Named(named, confidence, support)


def _joined(evidence: Sequence[Evidence], landmarks: Rows, n_queries: int) -> tuple[Rows, Rows, Values]:
    """Return query, landmark and weighted strength of all pairs that speak for a landmark."""
    for pairs in evidence:
        if not len(pairs.queries) == len(pairs.photos) == len(pairs.strength):
            got = f"{len(pairs.queries)} queries, {len(pairs.photos)} photos, {len(pairs.strength)} strengths"
            raise LmrError(
                "every pair needs a query, a photo and a strength",
                got=got,
                fix="give three arrays of one length",
            )
        for what, rows, size in (
            ("query", pairs.queries, n_queries),
            ("photo", pairs.photos, len(landmarks)),
        ):
            outside = rows[(rows < 0) | (rows >= size)]
            if len(outside):
                raise LmrError(
                    f"{len(outside)} pairs name a {what} that is not there",
                    got=f"rows {', '.join(map(str, outside[:5]))} of {size}",
                    fix="give the gallery and the queries that the pairs were found in",
                )
        if np.isnan(pairs.strength).any():
            raise LmrError(
                f"{np.isnan(pairs.strength).sum()} pairs have a strength that is not a number",
                got="NaN",
                fix="leave out pairs whose similarity is not known",
            )
    if not evidence:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    query = np.concatenate([pairs.queries for pairs in evidence]).astype(np.int64)
    landmark = landmarks[np.concatenate([pairs.photos for pairs in evidence]).astype(np.int64)]
    strength = np.concatenate([pairs.weight * pairs.strength for pairs in evidence])
    speaks = (landmark >= 0) & (strength > 0)
    return query[speaks], landmark[speaks].astype(np.int64), strength[speaks].astype(np.float64)
