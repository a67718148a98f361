"""One function per named protocol: Kaggle's mAP@100, revisited and classic Oxford/Paris, and GAP.

"mAP" has three meanings in the field, so each function carries the name of its protocol. One ranking shows
why: two right photos, one at rank 5 and one at rank 103.

>>> ranking = [f"x{rank}" for rank in range(1, 201)]
>>> ranking[4], ranking[102] = "right", "late"
>>> relevant = ["right", "late"]

The area under precision over recall (revisited and classic Oxford/Paris):

>>> round(map_classic([ranking], [{"ok": relevant}]).mean, 3)
0.057

The precision at each hit among the first 100, over min(relevant, 100) (Kaggle):

>>> round(map_at_100({"q": ranking}, {"q": relevant}).mean, 3)
0.1

The same over the hits found, as some scorers have it, gives 1/5 = 0.200 here. It is wrong, since a photo that
is not found costs nothing, and is not offered.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError, SettingsError
from lmr.evaluation.revisited import RankScores, RevisitedScores, map_classic, map_revisited

__all__ = [
    "RankScores",
    "RevisitedScores",
    "Scores",
    "average_precision_at_100",
    "gap",
    "map_at_100",
    "map_classic",
    "map_revisited",
]


@dataclass(frozen=True, eq=False)
class Scores:
    """A score per query, and their mean.

    Attributes
    ----------
    query_ids
        The queries of the solution, in its order.
    per_query
        (q,) float64, the score of each query; NaN for a query that the protocol leaves out of the mean.
    """

    query_ids: tuple[str, ...]
    per_query: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The protocol's one figure: the mean over the queries that count."""
        return float(np.nanmean(self.per_query))


def map_at_100(
    predictions: Mapping[str, Sequence[str]],
    solution: Mapping[str, Collection[str]],
    *,
    max_predictions: int = 100,
) -> Scores:
    """Score rankings as the Google Landmark Retrieval Challenge does: mAP@100.

    The precision at each hit is summed and divided by min(relevant, 100). A photo that is named again earns
    nothing but uses up its rank. A query of the solution that has no prediction scores 0.

    A query without right photos is left out of the mean. There the scorer in tensorflow/models
    (`MeanAveragePrecision` of delf) differs: it counts such a query as 0, and divides by zero when the query
    was predicted. Without such queries the two agree.

    Parameters
    ----------
    predictions
        Query id to gallery ids, best first. What stands after the first `max_predictions` is not read.
    solution
        Query id to the ids of its right photos. An id that stands there twice counts twice in the
        denominator, as in the original.
    max_predictions
        The 100 of the name; other depths for study.

    Raises
    ------
    LmrError
        If a prediction is for a query that the solution does not have, or no query has a right photo.

    Examples
    --------
    >>> scores = map_at_100({"a": ["x", "r", "s"]}, {"a": ["r", "s"], "b": ["t"], "c": []})
    >>> scores.per_query.round(4)  # (1/2 + 2/3) / 2; not predicted; left out
    array([0.5833, 0.    ,    nan])
    >>> round(scores.mean, 4)
    0.2917
    """
    _check_known("query", predictions, solution)
    per_query = np.full(len(solution), np.nan)
    for row, (query_id, relevant) in enumerate(solution.items()):
        _refuse_text(relevant, f"the solution of query {query_id}")
        if len(relevant) > 0:
            predicted = predictions.get(query_id, ())
            _refuse_text(predicted, f"the prediction of query {query_id}")
            per_query[row] = average_precision_at_100(predicted, relevant, max_predictions=max_predictions)
    _check_any_counts(per_query, "a right photo")
    return Scores(tuple(solution), per_query)


def average_precision_at_100(
    predicted: Sequence[str], relevant: Collection[str], *, max_predictions: int = 100
) -> float:
    """Return AP@100 of one query: precision at each first sight of a right photo over min(relevant, 100).

    Examples
    --------
    >>> average_precision_at_100(["r", "r", "s"], ["r", "s"])  # the repeat uses up rank 2: (1/1 + 2/3) / 2
    0.8333333333333333
    """
    if max_predictions < 1:
        raise SettingsError("max_predictions must be at least 1", got=str(max_predictions), fix="use 100")
    if len(relevant) == 0:
        raise LmrError(
            "average precision of a query without right photos is not defined", fix="leave the query out"
        )
    missing = set(relevant)
    n_hits, total = 0, 0.0
    for rank, photo_id in enumerate(predicted[:max_predictions], start=1):
        if photo_id in missing:
            missing.remove(photo_id)
            n_hits += 1
            total += n_hits / rank
    return total / min(len(relevant), max_predictions)


def gap(
    predictions: Mapping[str, tuple[str, float]],
    solution: Mapping[str, Collection[str]],
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
    _check_known("photo", predictions, solution)
    row_of = {photo_id: row for row, photo_id in enumerate(solution)}
    given = np.full(len(solution), np.nan)
    for photo_id, landmarks in solution.items():
        _refuse_text(landmarks, f"the solution of photo {photo_id}")
        if len(landmarks) > 0:
            given[row_of[photo_id]] = 0.0
    _check_any_counts(given, "a landmark")

    for photo_id, (_, confidence) in predictions.items():
        if np.isnan(confidence):
            raise LmrError(
                f"the confidence of photo {photo_id} is not a number", fix="predict it or leave it out"
            )
    by_confidence = sorted(predictions.items(), key=lambda item: (-item[1][1], item[0]))
    place = n_right = 0
    for photo_id, (landmark, _) in by_confidence:
        if ignore_non_landmarks and len(solution[photo_id]) == 0:
            continue
        place += 1
        if landmark in solution[photo_id]:
            n_right += 1
            given[row_of[photo_id]] = n_right / place
    return Scores(tuple(solution), given)


def _check_known(noun: str, predictions: Mapping[str, object], solution: Mapping[str, object]) -> None:
    unknown = [known for known in predictions if known not in solution]
    if unknown:
        raise LmrError(
            f"{noun} {unknown[0]} is not in the solution",
            got=f"{len(unknown)} of {len(predictions)} predictions are for unknown ids",
            fix="score the predictions with the solution of the same query set",
        )


def _refuse_text(ids: Collection[str], what: str) -> None:
    # Text is a collection of its letters: 'a b c' would be read as five ids, and 'b' found in it.
    if isinstance(ids, str):
        raise LmrError(f"{what} is text, not a list of ids", got=repr(ids)[:80], fix="split it into ids")


def _check_any_counts(per_query: NDArray[np.float64], what: str) -> None:
    if np.isnan(per_query).all():
        raise LmrError(
            f"no query of the solution has {what}, so there is nothing to score",
            fix="check that the solution belongs to this query set",
        )
