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

from lmr.errors import LmrError, SettingsError
from lmr.evaluation.protocols.hits import find_hits
from lmr.evaluation.protocols.kaggle import RankedLists
from lmr.evaluation.protocols.recognition import accuracy, gap
from lmr.evaluation.protocols.revisited import RankScores, RevisitedScores, map_classic, map_revisited
from lmr.evaluation.scores import Scores, refuse_nothing_to_score, refuse_text, refuse_unknown

__all__ = [
    "RankScores",
    "RevisitedScores",
    "Scores",
    "accuracy",
    "average_precision_at_100",
    "gap",
    "map_at_100",
    "map_classic",
    "map_revisited",
]


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
    if max_predictions < 1:
        raise SettingsError("max_predictions must be at least 1", got=str(max_predictions), fix="use 100")
    refuse_unknown("query", predictions, solution)
    refuse_text(solution, "the solution of query")
    if not isinstance(predictions, RankedLists):  # these are lists, made anew at each look
        refuse_text(predictions, "the prediction of query")
    rankings = (predictions.get(query_id, ())[:max_predictions] for query_id in solution)
    per_query = find_hits(rankings, list(solution.values())).average_precision(max_predictions)
    refuse_nothing_to_score(per_query, "a right photo")
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
    if len(relevant) == 0:
        raise LmrError(
            "average precision of a query without right photos is not defined", fix="leave the query out"
        )
    return map_at_100({"it": predicted}, {"it": relevant}, max_predictions=max_predictions).mean
