"""The protocols of the field as a table: what each needs and prints, its denominators and its tie rule.

`evaluate` scores a submission by any of them, from the bytes of two files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.evaluation.protocols.kaggle import (
    MAX_PREDICTIONS,
    parse_recognition_solution,
    parse_recognition_submission,
    parse_solution,
    parse_submission,
)
from lmr.evaluation.protocols.metrics import METRICS, expanded, kind_of, measured
from lmr.evaluation.protocols.oxford import parse_truths
from lmr.evaluation.protocols.recognition import accuracy, gap, gap_inputs, gap_of_draws
from lmr.evaluation.protocols.sanity import RankingCheck, check_recognition
from lmr.evaluation.scores import Scores, refuse_nothing_to_score
from lmr.evaluation.statistics import Comparison, Interval, Statistic, compare, interval, mean_of

__all__ = ["METRICS", "PROTOCOLS", "Evaluation", "Protocol", "evaluate", "find_protocol", "paired", "sides"]

_Id = TypeVar("_Id", int, str)

_BY_RANK = "none: a list has an order; a repeat earns nothing and uses up its rank"
_REPEATS_COUNT = "none: a list has an order; a repeat of a right photo counts again, as in the original"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way to score that has a name in the field.

    Attributes
    ----------
    name
        Its name on the command line.
    metrics
        What it prints; the first is its score.
    solution
        The header of the solution that it needs.
    right, junk
        The solution's lists whose photos are right, and those taken out before ranks are counted.
    mean
        Which queries its mean is over.
    ties
        Who stands first among equals.
    max_photos
        The most photos per query; None for whole rankings.
    queries_in_gallery
        Whether query photos belong to the gallery.
    """

    name: str
    metrics: tuple[str, ...]
    solution: str = "id,images"
    right: tuple[str, ...] = ()
    junk: tuple[str, ...] = ()
    mean: str = "queries with a right photo; one without a list scores 0"
    ties: str = _BY_RANK
    max_photos: int | None = None
    queries_in_gallery: bool = False

    @property
    def recognises(self) -> bool:
        """Whether it scores recognition instead of ranked lists."""
        return self.name == "gap"

    @property
    def needs(self) -> tuple[str, ...]:
        """The lists that its ground truth must have besides junk; none where a plain solution is enough."""
        return ("ok",) if self.right == ("ok",) else ("easy", "hard") if self.right else ()

    @property
    def whole(self) -> bool:
        """Whether it is defined on whole rankings: what a shorter list leaves out counts as not found."""
        return "map" in self.metrics

    @property
    def says(self) -> str:
        """One paragraph of help: what it needs, its denominators, its mean and its tie rule."""
        parts = [f"solution {self.solution}"]
        if self.junk:
            parts.append(f"right: {', '.join(self.right)}; taken out first: {', '.join(self.junk)}")
        parts += [f"{name}: {_GAP_SAYS.get(name) or METRICS[kind_of(name)].says}" for name in self.metrics]
        return ". ".join([*parts, f"mean over {self.mean}", f"ties: {self.ties}"]) + "."


_GAP_SAYS = {
    "gap": "sum of the precision at each right prediction by falling confidence, over photos with a landmark",
    "accuracy": "right names, over photos with a landmark",
}
_OXFORD = partial(
    Protocol, metrics=("map", "mp@1", "mp@5", "mp@10"), ties=_REPEATS_COUNT, solution="id,easy,hard,junk"
)
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="map_at_100", metrics=("map_at_100",), max_photos=MAX_PREDICTIONS),
        Protocol(name="map_at_5", metrics=("map_at_5",)),
        _OXFORD(name="revisited-easy", right=("easy",), junk=("junk", "hard")),
        _OXFORD(name="revisited-medium", right=("easy", "hard"), junk=("junk",)),
        _OXFORD(name="revisited-hard", right=("hard",), junk=("junk", "easy")),
        _OXFORD(
            name="classic",
            solution="id,ok,junk (or id,good,ok,junk)",
            right=("ok",),
            junk=("junk",),
            queries_in_gallery=True,
        ),
        Protocol(
            name="gap",
            metrics=("gap", "accuracy"),
            solution="id,landmark",
            mean="photos with a landmark; one without a prediction scores 0, and a prediction for a photo"
            " without landmark lowers the precision of all below it",
            ties="equal confidences go by photo id as text",
        ),
        Protocol(name="recall@k", metrics=("recall@k",)),
        Protocol(name="precision@k", metrics=("precision@k",)),
        Protocol(name="hit_rate@k", metrics=("hit_rate@k",)),
    )
}
"""Every protocol by name; in the last three, k is a rank of choice."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one submission.

    Attributes
    ----------
    protocol
        How it was scored.
    scores
        Metric to scores; the first is the protocol's.
    notices
        What is odd about the ids, as sentences.
    ordered
        Of recognition, the predictions in the order of GAP.
    """

    protocol: Protocol
    scores: Mapping[str, Scores]
    notices: tuple[str, ...]
    ordered: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]] | None = None

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The spread of every metric over draws of queries."""
        return {name: interval(*self._statistic(name)) for name in self.scores}

    def _statistic(self, metric: str) -> tuple[Statistic, int]:
        per_query = self.scores[metric].per_query
        if metric == "gap" and self.ordered is not None:
            return partial(gap_of_draws, *self.ordered), len(per_query)
        counted = per_query[~np.isnan(per_query)]
        return mean_of(counted), len(counted)


def find_protocol(name: str, metrics: Sequence[str] = ()) -> Protocol:
    """Return a protocol by name, with further metrics.

    Parameters
    ----------
    name
        A name of the table, such as ``revisited-medium`` or ``recall@10``.
    metrics
        Further measures, each as ``recall@1,5,10``.

    Raises
    ------
    SettingsError
        If there is no such protocol or metric.

    Examples
    --------
    >>> find_protocol("map_at_100", ["recall@1,5"]).metrics
    ('map_at_100', 'recall@1', 'recall@5')
    """
    if "@" in name and kind_of(name) in PROTOCOLS:
        own = expanded(name)
        protocol = replace(PROTOCOLS[kind_of(name)], name=own[0], metrics=own)
    elif name in PROTOCOLS:
        protocol = PROTOCOLS[name]
    else:
        raise SettingsError("unknown protocol", got=name, fix=f"use {', '.join(PROTOCOLS)}")
    if protocol.recognises and metrics:
        raise SettingsError(
            "recognition has no ranked lists to measure", got=", ".join(metrics), fix="leave out --metric"
        )
    further = [one for spec in metrics for one in expanded(spec)]
    return replace(protocol, metrics=tuple(dict.fromkeys([*protocol.metrics, *further])))


def evaluate(
    protocol: Protocol,
    submission: bytes,
    solution: bytes,
    *,
    names: tuple[str, str] = ("submission", "solution"),
) -> Evaluation:
    """Score a submission: read both files, compare their ids, take every metric of the protocol.

    Parameters
    ----------
    protocol
        From `find_protocol`.
    submission, solution
        The bytes of the files.
    names
        What errors call them.

    Raises
    ------
    LmrError
        If a file is not what the protocol needs, or nothing of the submission can be right.
    """
    if protocol.recognises:
        return _recognition(protocol, submission, solution, names)
    predictions = parse_submission(submission, names[0], max_photos=protocol.max_photos)
    right, junk = _truth(protocol, solution, names[1])
    refuse_nothing_to_score(np.array([0.0 if ids else np.nan for ids in right.values()]), "a right photo")
    check = RankingCheck(
        predictions, right, queries_in_gallery=protocol.queries_in_gallery, junk=junk is not None
    )
    found = measured(protocol.metrics, check.lists, list(right.values()), junk)
    notices = check.notices()
    scores = {name: Scores(tuple(right), values) for name, values in found.items()}
    notices += _cut_off(protocol, predictions, right)
    return Evaluation(protocol, scores, tuple(notices))


def _cut_off(
    protocol: Protocol, predictions: Mapping[str, Sequence[str]], right: Mapping[str, Sequence[str]]
) -> list[str]:
    """Say what a protocol of whole rankings loses by lists that end early."""
    if not protocol.whole:
        return []
    wanted = sum(map(len, right.values()))
    found = sum(len(set(predictions.get(query, ())).intersection(ids)) for query, ids in right.items())
    if found == wanted:
        return []
    longest = max(map(len, predictions.values()), default=0)
    return [
        f"{protocol.name} is defined on whole rankings, and {wanted - found:,} of {wanted:,} right photos "
        f"stand in no list (the longest has {longest:,} photos): the score is a lower bound"
    ]


def paired(first: Evaluation, second: Evaluation) -> dict[str, Comparison]:
    """Compare two evaluations by one protocol and solution, metric by metric."""
    found = {}
    for name in first.scores:
        one, other = first.scores[name].per_query, second.scores[name].per_query
        if name == "gap":
            statistics = first._statistic(name)[0], second._statistic(name)[0]
            found[name] = compare(one, other, statistics=statistics)
        else:
            counted = ~np.isnan(one)
            found[name] = compare(one[counted], other[counted])
    return found


def _recognition(
    protocol: Protocol, submission: bytes, solution: bytes, names: tuple[str, str]
) -> Evaluation:
    predictions = parse_recognition_submission(submission, names[0])
    truth = parse_recognition_solution(solution, names[1])
    refuse_nothing_to_score(np.array([0.0 if found else np.nan for found in truth.values()]), "a landmark")
    notices = check_recognition(predictions, truth)
    known = {photo: prediction for photo, prediction in predictions.items() if photo in truth}
    scores = {"gap": gap(known, truth), "accuracy": accuracy(known, truth)}
    return Evaluation(protocol, scores, tuple(notices), gap_inputs(known, truth))


def sides(protocol: Protocol, lists: Mapping[str, Sequence[_Id]]) -> tuple[list[_Id], list[_Id]]:
    """Return the right and the junk photos of a query, of its lists in a ground truth."""
    right, junk = ([one for key in keys for one in lists[key]] for keys in (protocol.right, protocol.junk))
    return right, junk


def _truth(
    protocol: Protocol, solution: bytes, name: str
) -> tuple[dict[str, list[str]], list[list[str]] | None]:
    if not protocol.right:
        return parse_solution(solution, name), None
    truths = parse_truths(solution, name, needs=protocol.needs)
    both = {query: sides(protocol, lists) for query, lists in truths.items()}
    return {query: right for query, (right, _) in both.items()}, [junk for _, junk in both.values()]
