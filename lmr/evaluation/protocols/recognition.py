"""Recognition: one landmark and one confidence per photo, scored over all photos at once."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.evaluation.scores import Scores, first_five, refuse_nothing_to_score, refuse_text, refuse_unknown

__all__ = ["accuracy", "gap", "gap_inputs", "gap_of_draws"]

Predictions = Mapping[str, tuple[str, float]]
Solution = Mapping[str, Collection[str]]


def gap(
    predictions: Predictions,
    solution: Solution,
    *,
    ignore_non_landmarks: bool = False,
) -> Scores:
    """Score recognition by global average precision, which the field also calls micro average precision.

    All predictions stand in one list by falling confidence (ties by photo id as text). The precision at each
    right one is summed and divided by the number of photos that show a landmark, predicted or not. So a
    confident name for a photo without landmark lowers the score of all that follow
    (`GlobalAveragePrecision` of delf in tensorflow/models; Perronnin et al., CVPR 2009).

    Parameters
    ----------
    predictions
        Photo id to its one landmark and the confidence in it, any real number.
    solution
        Photo id to its landmarks: none, one, or several that are each accepted.
    ignore_non_landmarks
        Skip the predictions of photos without landmark, to see how good the naming alone is.

    Returns
    -------
    Scores
        Per photo with a landmark what it gives to the sum: the precision at its place, 0 if it is wrong or
        was not predicted; NaN for photos without landmark. Their mean is GAP.

    Raises
    ------
    LmrError
        If a prediction is for a photo that the solution does not have, a confidence is not a number, or no
        photo shows a landmark.

    Examples
    --------
    >>> truth = {"church": ["St Paul"], "dog": [], "tower": ["Eiffel"]}
    >>> scores = gap({"dog": ("Eiffel", 0.9), "tower": ("Eiffel", 0.8), "church": ("St Paul", 0.7)}, truth)
    >>> scores.per_query.round(4)  # the dog comes first, so the tower is 1 of 2 and the church 2 of 3
    array([0.6667,    nan, 0.5   ])
    >>> round(scores.mean, 4)
    0.5833
    """
    rows, right, labelled = gap_inputs(predictions, solution, ignore_non_landmarks=ignore_non_landmarks)
    given = np.where(labelled, 0.0, np.nan)
    places = np.flatnonzero(right)
    given[rows[places]] = np.arange(1, len(places) + 1) / (places + 1)
    return Scores(tuple(solution), given)


def accuracy(predictions: Predictions, solution: Solution) -> Scores:
    """Score naming alone: the share of the photos with a landmark that are given a right one.

    Confidence plays no part, and photos without a landmark are left out (`Top1Accuracy` of delf in
    tensorflow/models). A photo that was not predicted is wrong.

    Examples
    --------
    >>> accuracy({"dog": ("Eiffel", 0.9), "tower": ("Eiffel", 0.8)}, {"dog": [], "tower": ["Eiffel"]}).mean
    1.0
    """
    rows, right, labelled = gap_inputs(predictions, solution)
    given = np.where(labelled, 0.0, np.nan)
    given[rows[right]] = 1.0
    return Scores(tuple(solution), given)


def gap_inputs(
    predictions: Predictions, solution: Solution, *, ignore_non_landmarks: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Check predictions against a solution and put them in the order of GAP.

    Returns
    -------
    rows
        (p,) int64, the photo's row in the solution of each prediction, by falling confidence.
    right
        (p,) bool, whether the prediction names one of the photo's landmarks.
    labelled
        (n,) bool, whether each photo of the solution shows a landmark.

    Raises
    ------
    LmrError
        As `gap`.
    """
    refuse_unknown("photo", predictions, solution)
    refuse_text(solution, "the solution of photo")
    labelled = np.fromiter((len(landmarks) > 0 for landmarks in solution.values()), bool, len(solution))
    refuse_nothing_to_score(np.where(labelled, 0.0, np.nan), "a landmark")
    no_number = [photo_id for photo_id, (_, confidence) in predictions.items() if np.isnan(confidence)]
    if no_number:
        rest = f" (and of {len(no_number) - 1} others)" if len(no_number) > 1 else ""
        raise LmrError(
            f"the confidence of photo {no_number[0]}{rest} is not a number",
            got=f"NaN for {first_five(no_number)}",
            fix="predict it or leave it out",
        )
    row_of = {photo_id: row for row, photo_id in enumerate(solution)}
    by_confidence = sorted(predictions.items(), key=lambda item: (-item[1][1], item[0]))
    if ignore_non_landmarks:
        by_confidence = [item for item in by_confidence if labelled[row_of[item[0]]]]
    rows = np.fromiter((row_of[photo_id] for photo_id, _ in by_confidence), np.int64, len(by_confidence))
    right = np.fromiter(
        (landmark in solution[photo_id] for photo_id, (landmark, _) in by_confidence),
        bool,
        len(by_confidence),
    )
    return rows, right, labelled


def gap_of_draws(
    rows: NDArray[np.int64],
    right: NDArray[np.bool_],
    labelled: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return GAP of draws of photos: GAP is no mean over photos, so each draw is scored anew.

    Parameters
    ----------
    rows, right, labelled
        From `gap_inputs`.
    weights
        (b, n) how often each draw holds each photo. Copies of a photo follow one another.

    Examples
    --------
    >>> predictions = {"dog": ("Eiffel", 0.9), "tower": ("Eiffel", 0.8)}
    >>> ordered = gap_inputs(predictions, {"dog": [], "tower": ["Eiffel"]})
    >>> gap_of_draws(*ordered, np.array([[1.0, 1.0], [0.0, 2.0]]))
    array([0.5, 1. ])
    """
    copies = weights[:, rows]
    before = np.cumsum(copies, axis=1) - copies
    hits_before = np.cumsum(copies * right, axis=1) - copies * right
    total = np.zeros(len(weights))
    for copy in range(1, int(copies.max(initial=0)) + 1):
        total += (((copies >= copy) & right) * (hits_before + copy) / (before + copy)).sum(axis=1)
    found: NDArray[np.float64] = total / np.maximum(weights @ labelled, 1)
    return found
