"""Recognition, ingredient by ingredient: the landmark of each query and how each ingredient changes it.

The ingredients are those of the winners of the Google Landmark Recognition Challenges. Sums over a landmark's
photos, inliers that saturate at 70, and landmarks that attract unrelated queries are of 2019 (Gu and Li,
arXiv:1906.11874; Ozaki and Yokoo, arXiv:1906.04087). What looks like photos without a landmark is named with
less confidence since 2020 (Henkel and Singer, arXiv:2010.01650). Arrays in and out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.recognition import Evidence, Named, inlier_strength, name_landmarks

__all__ = [
    "INGREDIENTS",
    "PROBABILITY",
    "Distractors",
    "Found",
    "NamingRecipe",
    "best_photos",
    "name_after_each",
]

INGREDIENTS: Mapping[str, str] = {
    "neighbours": "1 neighbours of the global descriptor",
    "photo_background": "2 neighbours that look like photos without a landmark count less",
    "votes": "3 votes of local features",
    "inliers": "4 inliers of verified matches",
    "unverified": "5 less sure without a verified match",
    "margin": "6 less sure beside a second landmark",
    "background": "7 less sure of queries that look like photos without a landmark",
    "frequency": "8 less sure of landmarks that attract unrelated photos",
}
"""The ingredients in the order in which they are added, and what people read of each."""

PROBABILITY: Mapping[str, str] = {"probability": "9 by the calibrated probability of its photos, alone"}
"""The last one, of runs that were given a calibration: it takes the place of all those before it."""

Weight = Annotated[float, Ge(0), Le(1_000)]


@dataclass(frozen=True, kw_only=True)
class NamingRecipe:
    """How evidence becomes a landmark and a confidence; a weight of 0 leaves its ingredient out."""

    neighbours: Annotated[int, Ge(0), Le(1_000)] = 10
    """Photos of the global search that speak for their landmark."""
    alpha: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of their similarity."""
    neighbour_weight: Weight = 0.5
    """Weight of a global neighbour of similarity 1."""
    photo_background_weight: Weight = 0.5
    """How much of a photo's likeness to photos without a landmark is taken from its similarity to a query."""
    candidates: Annotated[int, Ge(0), Le(1_000)] = 3
    """Photos of the local search, those with most votes, whose votes speak for their landmark."""
    vote_weight: Weight = 2.0
    """Weight of a photo with `vote_saturation` times the votes of noise or more."""
    vote_saturation: Annotated[float, Ge(0.001), Le(1_000_000)] = 30.0
    """Votes above which more say no more, as a multiple of the median of the query's list."""
    inlier_weight: Weight = 2.0
    """Weight of a verified match with `inlier_saturation` inliers or more."""
    inlier_saturation: Annotated[int, Ge(1), Le(65_535)] = 70
    """Inliers above which more say no more."""
    least_inliers: Annotated[int, Ge(0), Le(65_535)] = 10
    """A pair with as many inliers or fewer is no verified match."""
    unverified_weight: Weight = 0.5
    """What is taken from the confidence where no photo of the landmark is a verified match."""
    margin: Annotated[float, Ge(0), Le(1)] = 0.5
    """Share of the second landmark's sum that is taken from the confidence."""
    background_weight: Weight = 0.5
    """How much of a query's similarity to photos without a landmark is taken from the confidence."""
    frequency_weight: Weight = 3.0
    """Factor of the share of unrelated photos that a landmark attracts, taken from the confidence."""


@dataclass(frozen=True, eq=False)
class Found:
    """What retrieval has found for some queries.

    Attributes
    ----------
    neighbours
        (q, n) rows of gallery photos by the global search, best first; -1 where a list ends early.
    similarities
        (q, n) their similarities.
    candidates
        (q, m) rows of gallery photos by the local search; -1 where a list ends early.
    votes
        (q, m) their votes.
    inliers
        (q, m) their inliers; 0 where no geometry was found.
    """

    neighbours: NDArray[np.integer[Any]]
    similarities: NDArray[np.floating[Any]]
    candidates: NDArray[np.integer[Any]]
    votes: NDArray[np.floating[Any]]
    inliers: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Distractors:
    """What is known of photos without a landmark.

    Attributes
    ----------
    queries
        (q,) how much each query looks like them; from `recognition.background_similarity`.
    photos
        (g,) the same of each gallery photo.
    frequency
        (l,) share of them that each landmark attracts; from `recognition.landmark_frequency`.
    """

    queries: NDArray[np.float64]
    photos: NDArray[np.float64]
    frequency: NDArray[np.float64]


def name_after_each(
    found: Found, landmarks: NDArray[np.int64], distractors: Distractors, recipe: NamingRecipe
) -> tuple[dict[str, Named], NDArray[np.int64]]:
    """Name the landmark of each query after each ingredient, all those before it included.

    Parameters
    ----------
    found
        Of the queries.
    landmarks
        (g,) int64, the landmark of each gallery photo, -1 for none.
    distractors
        Of the same queries, gallery and landmarks.
    recipe
        How they are weighed.

    Returns
    -------
    named
        By ingredient, in the order of `INGREDIENTS`.
    photos
        (q,) int64, the gallery photo that speaks most for the last name; -1 where there is none.

    Raises
    ------
    LmrError
        As `recognition.name_landmarks`.

    Examples
    --------
    >>> row = np.array([[0, 1]])
    >>> found = Found(row, np.array([[0.9, 0.3]]), row, np.array([[0.0, 8.0]]), np.array([[0, 70]]))
    >>> nothing = Distractors(np.zeros(1), np.zeros(2), np.zeros(2))
    >>> named, photos = name_after_each(found, np.array([0, 1]), nothing, NamingRecipe())
    >>> named["neighbours"].landmarks, named["inliers"].landmarks, photos
    (array([0]), array([1]), array([1]))
    """
    count = len(found.neighbours)
    rows, places = np.nonzero(found.neighbours[:, : recipe.neighbours] >= 0)
    photos = found.neighbours[rows, places].astype(np.int64)
    similar = found.similarities[rows, places].astype(np.float64)
    lowered = similar - recipe.photo_background_weight * distractors.photos[photos]
    plain = Evidence(rows, photos, _power(similar, recipe.alpha), recipe.neighbour_weight)
    corrected = Evidence(rows, photos, _power(lowered, recipe.alpha), recipe.neighbour_weight)

    rows, places = np.nonzero(found.candidates >= 0)
    photos = found.candidates[rows, places].astype(np.int64)
    voted = _vote_strength(found, recipe)[rows, places]
    inliers = found.inliers[rows, places]
    strength = inlier_strength(inliers, min_inliers=recipe.least_inliers, saturation=recipe.inlier_saturation)
    votes = Evidence(rows, photos, voted, recipe.vote_weight)
    verified = Evidence(rows, photos, strength, recipe.inlier_weight)

    everything = [corrected, votes, verified]
    named = {
        "neighbours": name_landmarks([plain], landmarks, count),
        "photo_background": name_landmarks([corrected], landmarks, count),
        "votes": name_landmarks(everything[:2], landmarks, count),
        "inliers": name_landmarks(everything, landmarks, count),
    }
    sure = inliers > recipe.least_inliers
    pairs = np.stack([rows[sure], landmarks[photos[sure]]], axis=1)

    def lessened(**more: Any) -> Named:
        one = name_landmarks(everything, landmarks, count, **more)
        return _less_without_match(one, pairs, recipe.unverified_weight)

    named["unverified"] = lessened()
    more: dict[str, Any] = {"margin": recipe.margin}
    named["margin"] = lessened(**more)
    more |= {"background": distractors.queries, "background_weight": recipe.background_weight}
    named["background"] = lessened(**more)
    more |= {"frequency": distractors.frequency, "frequency_weight": recipe.frequency_weight}
    named["frequency"] = lessened(**more)
    return named, best_photos(everything, landmarks, named["frequency"])


def best_photos(evidence: list[Evidence], landmarks: NDArray[np.int64], named: Named) -> NDArray[np.int64]:
    """Return for each query the gallery photo that speaks most for its landmark; -1 where it has none.

    What several kinds of evidence say of a photo is added up. Of equals it is the one with the lowest row.

    Examples
    --------
    >>> pairs = Evidence(np.array([0, 0]), np.array([2, 1]), np.array([0.5, 0.6]))
    >>> named = name_landmarks([pairs], np.array([0, 7, 7]), 2)
    >>> best_photos([pairs], np.array([0, 7, 7]), named)
    array([ 1, -1])
    """
    query = np.concatenate([pairs.queries for pairs in evidence]).astype(np.int64)
    photo = np.concatenate([pairs.photos for pairs in evidence]).astype(np.int64)
    strength = np.concatenate([pairs.weight * pairs.strength for pairs in evidence])
    kept = (strength > 0) & (landmarks[photo] == named.landmarks[query]) & (named.landmarks[query] >= 0)
    best = np.full(len(named.landmarks), -1, np.int64)
    if not kept.any():
        return best
    cells, cell_of = np.unique(np.stack([query[kept], photo[kept]], axis=1), axis=0, return_inverse=True)
    sums = np.bincount(cell_of.ravel(), weights=strength[kept], minlength=len(cells))
    order = np.lexsort((cells[:, 1], -sums, cells[:, 0]))
    rows, first = np.unique(cells[order, 0], return_index=True)
    best[rows] = cells[order[first], 1]
    return best


def _vote_strength(found: Found, recipe: NamingRecipe) -> NDArray[np.float64]:
    """Return what the votes of the first candidates say, from 0 to 1, beside the noise of their lists.

    Votes that come by chance differ from query to query, as the number of its features does. Most photos of a
    list have no more than these, so its median stands for them.
    """
    listed = np.where(found.candidates >= 0, found.votes, np.nan).astype(np.float64)
    strength = np.zeros(listed.shape)
    some = np.flatnonzero((found.candidates >= 0).any(axis=1))
    noise = np.maximum(np.nanmedian(listed[some], axis=1, keepdims=True), 1e-6)
    strength[some] = np.clip((np.nan_to_num(listed[some]) / noise - 1) / recipe.vote_saturation, 0, 1)
    places = np.argsort(np.argsort(-np.nan_to_num(listed, nan=-1.0), axis=1, kind="stable"), axis=1)
    strength[places >= recipe.candidates] = 0
    return strength


def _power(similarities: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return similarities to a power; those that are not above 0 say nothing."""
    above: NDArray[np.float64] = np.where(similarities > 0, np.maximum(similarities, 0) ** alpha, 0.0)
    return above


def _less_without_match(named: Named, pairs: NDArray[np.int64], weight: float) -> Named:
    """Take a weight from the confidence of queries of whose landmark no photo is a verified match."""
    width = int(max(pairs[:, 1].max(initial=0), named.landmarks.max(initial=0))) + 1
    of_pairs = pairs[pairs[:, 1] >= 0]
    keys = of_pairs[:, 0] * width + of_pairs[:, 1]
    wanted = np.arange(len(named.landmarks)) * width + named.landmarks
    without = (named.landmarks >= 0) & ~np.isin(wanted, keys)
    confidence = named.confidence - np.where(without, weight, 0.0)
    return Named(named.landmarks, confidence, named.support)
