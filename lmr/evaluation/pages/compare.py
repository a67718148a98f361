"""The page of a comparison: settings that differ, scores, and pictures of queries that were won and lost.

`render_comparison` is a pure function of a `ComparisonPage`. Pictures are inside the page, nothing is
fetched, and no script runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmr.evaluation.pages.recognition import Photo
from lmr.evaluation.pages.report import template_environment
from lmr.evaluation.statistics import Comparison

__all__ = ["Changed", "ComparisonPage", "Difference", "Side", "render_comparison"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the results that are compared.

    Attributes
    ----------
    name
        What it is called.
    score
        Its score after the last stage; None without a solution.
    settings
        The values of the settings that differ, in the page's order.
    """

    name: str
    score: float | None
    settings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A query that was won or lost: what both sides found for it, and the gain.

    Attributes
    ----------
    query
        The query.
    gain
        The other side's score less the first one's.
    before, after
        The head of what the first side and the other one found.
    says_before, says_after
        A line on either: the landmark that was named; empty where photos say it.
    """

    query: Photo
    gain: float
    before: Sequence[Photo] = ()
    after: Sequence[Photo] = ()
    says_before: str = ""
    says_after: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One side compared with the first.

    Attributes
    ----------
    name
        The other side.
    comparison
        Its score less the first one's, query by query.
    won, lost
        Queries that changed most, either way.
    """

    name: str
    comparison: Comparison
    won: Sequence[Changed]
    lost: Sequence[Changed]


@dataclass(frozen=True, kw_only=True)
class ComparisonPage:
    """All that the page shows.

    Attributes
    ----------
    title
        What is compared.
    measure
        What the scores are.
    names
        The settings that differ.
    sides
        The results; all others are compared with the first.
    differences
        One for each of the others; empty without scores.
    """

    title: str
    measure: str
    names: Sequence[str]
    sides: Sequence[Side]
    differences: Sequence[Difference]


def render_comparison(page: ComparisonPage) -> str:
    """Return the page: HTML with its style and pictures inside."""
    return template_environment().get_template("compare.html").render(page=page)
