"""The page of a run's report: matches first, then scores, then cost.

`render_report` is a pure function of a `Report`; whoever calls it gathers the figures. The queries lie in
files beside the page (`lmr.evaluation.pages.report_data`); nothing is fetched from anywhere else.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import pairwise
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.evaluation.protocols.published import Row
from lmr.evaluation.protocols.scorers import Scores
from lmr.text import printable

__all__ = [
    "QueryFiles",
    "Report",
    "Setting",
    "StepCost",
    "StepScore",
    "Undecoded",
    "render_report",
    "report_script",
    "score_bars",
    "template_environment",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class StepScore:
    """The scores of the ranking after one stage, under the stage's label."""

    step: str
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What one step took: the sums over its shards, and the most memory that any task held.

    Rows, bytes and seconds are of the shards that are there, whichever run made them. `notes` are what the
    step has to say of itself, such as the recall of an approximate search.
    """

    step: str
    shards_made: int
    shards_failed: int = 0
    rows: int
    n_bytes: int
    seconds: float
    peak_memory_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Undecoded:
    """A photo that could not be decoded, and why; `photo_id` is its path where that is known."""

    photo_id: str
    reason: str
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting's value, and the preset's where it is another one."""

    value: str
    preset: str | None = None


@dataclass(frozen=True, kw_only=True)
class QueryFiles:
    """What lies beside the page.

    Attributes
    ----------
    folder
        The folder of the files, relative to the page.
    index_files
        How many files the index has.
    queries, pictured
        Queries, and how many of them have pictures.
    unreadable, without_confident
        Queries that could not be read, and those without a confident match.
    """

    folder: str
    index_files: int
    queries: int
    pictured: int
    unreadable: int = 0
    without_confident: int = 0

    @property
    def all_pictured(self) -> bool:
        """Whether every query that can be read has pictures."""
        return self.pictured >= self.queries - self.unreadable


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """All that the page shows. A part that is left empty is left out.

    Attributes
    ----------
    run
        The run's name, the title of the page.
    about
        A line under it: how many photos.
    state
        What is missing, where the run has not ended; empty else.
    measure
        What the scores are.
    stages
        Labels of the stages, in order.
    verified
        Whether pairs were verified, so that there are confident matches.
    files
        The queries.
    more
        Further pages beside it: what they are called, by their file.
    scores
        The stages in order, each scored on the same queries.
    protocols
        The score by each protocol after each stage: protocol and measure, to label of the stage, to mean.
    published
        What papers print of the same data set, with the run's own figures among it.
    confident_counts
        How many confident matches each query has.
    inliers, recall
        Label to a number of photos; label to a share of the right photos. Both empty where not known.
    costs
        The steps in order.
    undecoded
        The photos that could not be decoded, or None where no step looked.
    settings
        Step to its settings by name.
    facts
        How the run was made: command, folders, versions; label to text.
    course
        Whether the page of the run's course lies beside this one.
    """

    run: str
    about: str = ""
    state: str = ""
    measure: str = "mAP@100"
    stages: Sequence[str] = ()
    verified: bool = False
    files: QueryFiles | None = None
    more: Mapping[str, str] = field(default_factory=dict)
    scores: Sequence[StepScore] = ()
    protocols: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    published: Sequence[Row] = ()
    confident_counts: Sequence[int] = ()
    inliers: Sequence[tuple[str, int]] = ()
    recall: Sequence[tuple[str, float]] = ()
    costs: Sequence[StepCost] = ()
    undecoded: Sequence[Undecoded] | None = None
    settings: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    course: bool = False


def render_report(report: Report) -> str:
    """Return the page: HTML with its style inside; its script and the queries lie in the folder of its files.

    Raises
    ------
    LmrError
        If the stages were scored on different queries.
    """
    return (
        template_environment()
        .get_template("report.html")
        .render(
            report=report,
            config=_config(report),
            score_rows=_score_rows(report.scores),
            score_bars=score_bars({step.step: step.scores.mean for step in report.scores}),
            score_spread=_spread(_last(report.scores)),
            confident_spread=_confident_spread(report.confident_counts),
            inlier_spread=_counted(*zip(*report.inliers, strict=True)) if report.inliers else [],
            recall_bars=[_Bar(label=k, value=f"{share:.3f}", length=share) for k, share in report.recall],
            cost_bars=_cost_bars(report.costs),
            total=_total(report.costs),
            reasons=Counter(photo.reason for photo in report.undecoded or ()).most_common(),
            n_changed=sum(
                one.preset is not None for group in report.settings.values() for one in group.values()
            ),
        )
    )


def report_script() -> bytes:
    """Return the script of the page, which lies beside the files of queries as `report.js`."""
    return (resources.files("lmr.evaluation.pages") / "templates" / "report.js").read_bytes()


def _config(report: Report) -> str:
    """Return what the script has to know, as JSON that no text in it can end early."""
    files = report.files
    about = {
        "folder": files.folder if files else "",
        "indexFiles": files.index_files if files else 0,
        "queries": files.queries if files else 0,
        "pictured": files.pictured if files else 0,
        "allPictured": bool(files and files.all_pictured),
        "stages": [printable(stage) for stage in report.stages],
        "verified": report.verified,
        "scored": bool(report.scores),
    }
    return json.dumps(about).replace("<", "\\u003c")


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


def score_bars(scores: Mapping[str, float]) -> list[_Bar]:
    """Return a bar per score, with what it gained or lost on the one before."""
    means = list(scores.values())
    before = [*means[:1], *means[:-1]]
    return [
        _Bar(
            label=label,
            value=f"{mean:.3f}",
            length=min(mean, last),
            gained=max(mean - last, 0.0),
            lost=max(last - mean, 0.0),
        )
        for label, mean, last in zip(scores, means, before, strict=True)
    ]


def _last(scores: Sequence[StepScore]) -> NDArray[np.float64]:
    found = np.asarray(scores[-1].scores.per_query if scores else [], np.float64)
    return found[~np.isnan(found)]


def _spread(values: NDArray[np.float64]) -> list[_Bar]:
    """Count queries by their score, in fifths."""
    if not len(values):
        return []
    counts = np.histogram(values, bins=(0, 0.2, 0.4, 0.6, 0.8, 1))[0].tolist()
    labels = ("0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1")
    return _counted(labels, counts)


def _confident_spread(counts: Sequence[int]) -> list[_Bar]:
    """Count queries by the number of their confident matches."""
    if not len(counts):
        return []
    edges = (0, 1, 2, 6, 21, max(int(max(counts)) + 1, 22))
    labels = ("none", "1", "2 to 5", "6 to 20", "more than 20")
    return _counted(labels, np.histogram(counts, bins=edges)[0].tolist())


def _counted(labels: Sequence[str], counts: Sequence[int]) -> list[_Bar]:
    most = max(*counts, 1)
    return [
        _Bar(label=label, value=f"{count:,}", length=count / most)
        for label, count in zip(labels, counts, strict=True)
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
        shards_failed=sum(cost.shards_failed for cost in costs),
        rows=sum(cost.rows for cost in costs),
        n_bytes=sum(cost.n_bytes for cost in costs),
        seconds=sum(cost.seconds for cost in costs),
        peak_memory_bytes=max((cost.peak_memory_bytes for cost in costs), default=0),
    )


def _check_same_queries(scores: Sequence[Scores]) -> None:
    for one, other in pairwise(scores):
        if one.query_ids != other.query_ids:
            raise LmrError(
                "steps were scored on different queries, so their scores cannot be compared",
                got=f"{len(one.query_ids)} and {len(other.query_ids)} queries",
                fix="score all steps with one solution",
            )


def template_environment() -> jinja2.Environment:
    """Return what makes pages of templates: text is shown as text, and figures as people write them."""
    templates = resources.files("lmr.evaluation.pages") / "templates"
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": _size, "duration": _duration, "count": _count, "signed": _signed}
    return made


def _shown(value: Any) -> Any:
    """Make names of files, which stand on the page, harmless; what is markup already is ours."""
    return printable(value, keep="\n\t") if type(value) is str else value


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
