"""The report of a run as one HTML page that needs nothing else: no script, no network, no other file.

`render_report` is a pure function of a `Report`; whoever calls it gathers the figures and the pictures.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise

import jinja2
import numpy as np

from lmr.errors import LmrError
from lmr.evaluation.scorers import Scores, average_precision_at_100
from lmr.text import printable

__all__ = [
    "QueryExample",
    "Report",
    "StepCost",
    "StepScore",
    "Undecoded",
    "VerifiedPair",
    "pick_queries",
    "render_report",
]

SHOWN_RESULTS = 10
"""How many results of a ranking stand in a row."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepScore:
    """The scores of the ranking after one step."""

    step: str
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step took: the sums over its shards, and the most memory that any task held.

    Rows, bytes and seconds are of the shards made in this run; `shards_found` were there before. `notes` are
    what the step has to say of itself, such as the recall of an approximate search.
    """

    step: str
    shards_made: int
    shards_found: int = 0
    shards_failed: int = 0
    rows: int
    n_bytes: int
    seconds: float
    peak_memory_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Undecoded:
    """A photo that could not be decoded, and why."""

    photo_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryExample:
    """A query and what the steps found for it.

    Attributes
    ----------
    query_id
        The query.
    photo
        Its picture, as `lmr.evaluation.pictures.thumbnail` returns it.
    why
        Why it is among the examples, in a few words.
    rankings
        Step to its whole ranking of gallery ids, best first. The first ten are shown; with `relevant`, AP@100
        is taken from all.
    relevant
        The ids of its right photos; None without a solution.
    landmark
        The landmark's name, if known.
    """

    query_id: str
    photo: str
    why: str
    rankings: Mapping[str, Sequence[str]]
    relevant: Collection[str] | None = None
    landmark: str | None = None


@dataclass(frozen=True, kw_only=True)
class VerifiedPair:
    """A query and a gallery photo with the inliers between them.

    Attributes
    ----------
    query_id, gallery_id
        The two photos.
    picture
        The `data_uri` of their `match_picture`.
    n_inliers
        How many matches agree with one transformation.
    relevant
        Whether they show the same landmark; None without a solution.
    """

    query_id: str
    gallery_id: str
    picture: str
    n_inliers: int
    relevant: bool | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """All that the page shows. A part that is left empty is left out.

    Attributes
    ----------
    run
        The run's name, the title of the page.
    about
        A line under it: which data, which workflow, when.
    measure
        What the scores are.
    facts
        Figures for the top of the page, label to value, as they shall be read.
    scores
        The steps in order, each scored on the same queries.
    costs
        The steps in order.
    undecoded
        The photos that could not be decoded, or None where no step looked.
    settings
        Step to its settings by name.
    queries, pairs
        Examples.
    thumbnails
        Gallery id to picture, for all that the queries' first ten name. A photo without one is a blank.
    """

    run: str
    about: str = ""
    measure: str = "mAP@100"
    facts: Mapping[str, str] = field(default_factory=dict)
    scores: Sequence[StepScore] = ()
    costs: Sequence[StepCost] = ()
    undecoded: Sequence[Undecoded] | None = None
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    queries: Sequence[QueryExample] = ()
    pairs: Sequence[VerifiedPair] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """Return the page: HTML with its style and pictures inside.

    Raises
    ------
    LmrError
        If the steps were scored on different queries, or a picture is not a `data:image/` URI.
    """
    pictures = (
        *report.thumbnails.values(),
        *(query.photo for query in report.queries),
        *(pair.picture for pair in report.pairs),
    )
    for picture in pictures:
        if not picture.startswith("data:image/"):
            raise LmrError(
                "a picture of the report is not inside the page",
                got=picture[:80],
                fix="make it by lmr.evaluation.pictures.thumbnail or data_uri",
            )
    shown = {
        photo_id
        for query in report.queries
        for row in query.rankings.values()
        for photo_id in row[:SHOWN_RESULTS]
    }
    # A photo comes up in many rows; its picture stands in the style sheet once, under this class.
    classes = {
        photo_id: f"p{number}" for number, photo_id in enumerate(sorted(shown & report.thumbnails.keys()))
    }
    reasons = Counter(photo.reason for photo in report.undecoded or ())
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            score_rows=_score_rows(report.scores),
            score_bars=_score_bars(report.scores),
            cost_bars=_cost_bars(report.costs),
            total=_total(report.costs),
            reasons=reasons.most_common(),
            queries=[_query(query) for query in report.queries],
            classes=classes,
        )
    )


def pick_queries(before: Scores, after: Scores, *, n_each: int = 2, seed: int = 0) -> list[tuple[str, str]]:
    """Choose queries to look at: the largest gains from `before` to `after`, the worst, and some at random.

    The worst are those that lose most, or, where fewer lose, those that end lowest. A query is chosen once.
    Queries that the protocol leaves out may be among the random ones.

    Returns
    -------
    list of (query id, why)
        At most `3 * n_each`; gains, then the worst, then random ones.
    """
    _check_same_queries([before, after])
    change = after.per_query - before.per_query
    counted = np.flatnonzero(~np.isnan(change))
    by_change = counted[np.lexsort((after.per_query[counted], change[counted]))]
    chosen: dict[int, str] = {}
    for row in by_change[::-1][:n_each]:
        if change[row] > 0:
            chosen[row] = "largest gain"
    for row in by_change[:n_each]:
        chosen.setdefault(row, "largest loss" if change[row] < 0 else "lowest score")
    others = np.setdiff1d(np.arange(len(change)), list(chosen))
    for row in np.random.default_rng(seed).permutation(others)[:n_each]:
        chosen[row] = "at random"
    return [(after.query_ids[row], why) for row, why in chosen.items()]


@dataclass(frozen=True)
class _ScoreRow:
    step: str
    mean: float
    change: float | None
    n_better: int
    n_worse: int
    n_counted: int


@dataclass(frozen=True)
class _Bar:
    """A bar of a chart; lengths are fractions of the chart's width."""

    label: str
    value: str
    length: float
    gained: float = 0.0
    lost: float = 0.0


@dataclass(frozen=True)
class _Row:
    step: str
    score: float | None
    results: list[tuple[str, bool | None]]


def _score_rows(scores: Sequence[StepScore]) -> list[_ScoreRow]:
    _check_same_queries([step.scores for step in scores])
    rows = []
    for place, step in enumerate(scores):
        now = step.scores
        before = scores[place - 1].scores if place else now
        rows.append(
            _ScoreRow(
                step=step.step,
                mean=now.mean,
                change=now.mean - before.mean if place else None,
                n_better=int(np.count_nonzero(now.per_query > before.per_query)),
                n_worse=int(np.count_nonzero(now.per_query < before.per_query)),
                n_counted=int(np.count_nonzero(~np.isnan(now.per_query))),
            )
        )
    return rows


def _score_bars(scores: Sequence[StepScore]) -> list[_Bar]:
    means = [step.scores.mean for step in scores]
    before = [*means[:1], *means[:-1]]
    return [
        _Bar(
            label=step.step,
            value=f"{mean:.3f}",
            length=min(mean, last),
            gained=max(mean - last, 0.0),
            lost=max(last - mean, 0.0),
        )
        for step, mean, last in zip(scores, means, before, strict=True)
    ]


def _cost_bars(costs: Sequence[StepCost]) -> list[_Bar]:
    longest = max((cost.seconds for cost in costs), default=0.0) or 1.0
    return [
        _Bar(label=cost.step, value=_duration(cost.seconds), length=cost.seconds / longest) for cost in costs
    ]


def _total(costs: Sequence[StepCost]) -> StepCost:
    return StepCost(
        step="all steps",
        shards_made=sum(cost.shards_made for cost in costs),
        shards_found=sum(cost.shards_found for cost in costs),
        shards_failed=sum(cost.shards_failed for cost in costs),
        rows=sum(cost.rows for cost in costs),
        n_bytes=sum(cost.n_bytes for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        peak_memory_bytes=max((cost.peak_memory_bytes for cost in costs), default=0),
    )


def _query(query: QueryExample) -> dict[str, object]:
    rows = []
    for step, ranking in query.rankings.items():
        score = average_precision_at_100(ranking, query.relevant) if query.relevant else None
        results = [
            (photo_id, None if query.relevant is None else photo_id in query.relevant)
            for photo_id in ranking[:SHOWN_RESULTS]
        ]
        rows.append(_Row(step, score, results))
    return {"example": query, "rows": rows}


def _check_same_queries(scores: Sequence[Scores]) -> None:
    for one, other in pairwise(scores):
        if one.query_ids != other.query_ids:
            raise LmrError(
                "steps were scored on different queries, so their scores cannot be compared",
                got=f"{len(one.query_ids)} and {len(other.query_ids)} queries",
                fix="score all steps with one solution",
            )


def _environment() -> jinja2.Environment:
    templates = resources.files("lmr.evaluation") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Names of files stand on the page; what is markup already is ours.
        finalize=lambda value: printable(value, keep="\n\t") if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": _size, "duration": _duration, "count": _count, "signed": _signed}
    return environment


def _count(number: int) -> str:
    return f"{number:,}"


def _signed(number: float) -> str:
    """Write a change with three decimals and its sign; a minus as wide as the plus."""
    text = f"{number:+.3f}".replace("-", "\N{MINUS SIGN}")
    return "±0.000" if text[1:] == "0.000" else text


def _size(n_bytes: int) -> str:
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB" if size < 999.5 else f"{size:,.0f} TB"


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.3g} s" if seconds < 9.995 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"
