"""The measures of ranked lists as a table: what each is, and over what it divides."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.evaluation.protocols.hits import Hits, KnownRanks, find_hits

__all__ = ["METRICS", "Metric", "expanded", "kind_of", "measured"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measure of one list.

    Attributes
    ----------
    function
        From the hits and k to a value per query.
    says
        What it is and over what it divides.
    repeats_count
        Whether a right photo that a list repeats counts again.
    """

    function: Callable[[Hits, int], NDArray[np.float64]]
    says: str
    repeats_count: bool = False


METRICS: dict[str, Metric] = {
    "map_at_100": Metric(
        function=lambda hits, _: hits.average_precision(100),
        says="sum of the precision at each hit of the first 100, over min(right photos, 100)",
    ),
    "map_at_5": Metric(
        function=lambda hits, _: hits.average_precision_over_all(5),
        says="sum of the precision at each hit of the first 5, over all right photos (trec_eval's map_cut)",
    ),
    "map": Metric(
        function=lambda hits, _: hits.area(),
        says="area under precision over recall by trapezoids, over all right photos",
        repeats_count=True,
    ),
    "mp@k": Metric(
        function=Hits.precision_to_last_hit,
        says="hits of the first k, over min(k, rank of the last hit) (revisitop)",
        repeats_count=True,
    ),
    "recall@k": Metric(function=Hits.recall, says="hits of the first k, over all right photos"),
    "precision@k": Metric(function=Hits.precision, says="hits of the first k, over k, in short lists too"),
    "hit_rate@k": Metric(
        function=Hits.hit_rate, says="1 if a hit is among the first k, else 0 (metric learning's recall@k)"
    ),
}
"""The measures of ranked lists; @k stands for a rank of choice."""


def measured(
    metrics: Sequence[str],
    lists: Callable[[], Iterable[Sequence[Any] | KnownRanks]],
    right: Sequence[Sequence[Any]],
    junk: Sequence[Sequence[Any]] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Take metrics of ranked lists.

    Parameters
    ----------
    metrics
        Names of the table, with a rank for k.
    lists
        Gives a list of photos per query, best first, whenever it is called; ids or rows, or known ranks.
    right, junk
        Per query the photos that are right, and those that are taken out before ranks are counted.

    Returns
    -------
    values
        Metric to (q,) float64; NaN for a query without a right photo.
    """
    hits: dict[bool, Hits] = {}
    values = {}
    for name in metrics:
        metric = METRICS[kind_of(name)]
        if metric.repeats_count not in hits:
            hits[metric.repeats_count] = find_hits(lists(), right, junk, repeats_count=metric.repeats_count)
        values[name] = metric.function(hits[metric.repeats_count], int(name.partition("@")[2] or 0))
    return values


def kind_of(metric: str) -> str:
    """Return the name of a metric's kind: recall@k for recall@5."""
    name, at, _ = metric.partition("@")
    return f"{name}@k" if at else name


def expanded(spec: str) -> tuple[str, ...]:
    """Return the metrics that a text names: recall@1,5 is recall@1 and recall@5.

    Raises
    ------
    SettingsError
        If one of them is unknown.
    """
    found: list[str] = []
    for part in spec.replace(" ", "").split(","):
        if part.isdecimal() and found and "@" in found[-1]:
            part = f"{found[-1].partition('@')[0]}@{part}"
        k = part.partition("@")[2]
        if kind_of(part) not in METRICS or ("@" in part and not (k.isdecimal() and int(k) > 0)):
            raise SettingsError(
                "unknown metric",
                got=part,
                fix=f"use {', '.join(METRICS)}, with a rank from 1 for k: recall@1,5,10",
            )
        found.append(part)
    return tuple(found)
