"""The page of recognition: how sure it is and how right, what it confuses, and labels that look wrong.

`render_recognition` is a pure function of a `RecognitionPage`. Pictures are inside the page, nothing is
fetched, and no script runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmr.evaluation.pages.report import score_bars, template_environment
from lmr.text import printable

__all__ = [
    "Attraction",
    "NamedQuery",
    "Photo",
    "RecognitionPage",
    "SuspectLabel",
    "precision_at_confidence",
    "render_recognition",
]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640.0, 300.0, 46.0, 14.0, 110.0
_KINDS = ("right", "wrong", "none")


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A photo by name, with a small picture as a `data:` URI; empty where there is none."""

    name: str
    picture: str = ""


@dataclass(frozen=True, kw_only=True)
class NamedQuery:
    """A query with the landmark that it was given.

    Attributes
    ----------
    query
        The query.
    landmark, confidence
        What it was named, and how surely.
    right
        What the solution says: nothing where it shows no landmark.
    photo
        The gallery photo that speaks most for the name.
    """

    query: Photo
    landmark: str
    confidence: float
    right: Sequence[str] = ()
    photo: Photo | None = None


@dataclass(frozen=True, kw_only=True)
class Attraction:
    """A landmark, the queries that were given its name wrongly, and those rightly."""

    landmark: str
    wrong: int
    without_landmark: int
    right: int


@dataclass(frozen=True, kw_only=True)
class SuspectLabel:
    """A gallery photo whose verified neighbours carry another label than itself."""

    photo: Photo
    label: str
    neighbour: Photo
    neighbour_label: str
    others: int
    own: int


@dataclass(frozen=True, kw_only=True, eq=False)
class RecognitionPage:
    """All that the page shows. A part that is left empty is left out.

    Attributes
    ----------
    run
        The run's name.
    about
        A line under it.
    scores
        GAP after each ingredient, by its label; empty without a solution.
    accuracy
        Share of the queries with a landmark that are named rightly; None without a solution.
    confidence, right, shows
        (n,) of the named queries: confidence, whether the name is right, whether they show a landmark.
    confused
        Queries with a wrong name, the surest first.
    n_confused
        How many there are in all.
    attractions
        Landmarks that attract wrong queries, the worst first.
    suspects
        Labels that look wrong; None where they were not checked.
    n_suspects
        How many there are in all.
    """

    run: str
    about: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    accuracy: float | None = None
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    right: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    shows: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    confused: Sequence[NamedQuery] = ()
    n_confused: int = 0
    attractions: Sequence[Attraction] = ()
    suspects: Sequence[SuspectLabel] | None = None
    n_suspects: int = 0


def render_recognition(page: RecognitionPage) -> str:
    """Return the page: HTML with its style and pictures inside."""
    plain = page.confidence[~page.shows]
    of_right = page.confidence[page.right]
    above = int((plain > np.median(of_right)).sum()) if len(of_right) else 0
    return (
        template_environment()
        .get_template("recognition.html")
        .render(
            page=page,
            bars_of_scores=score_bars({printable(name): gap for name, gap in page.scores.items()}),
            plot=_plot(page) if page.accuracy is not None and len(page.confidence) else None,
            above=above,
            n_plain=int((~page.shows).sum()),
        )
    )


def precision_at_confidence(
    confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each confidence that occurs the share of right names among those at least as sure.

    Returns
    -------
    thresholds
        (t,) the confidences, falling.
    precision
        (t,) from 0 to 1.

    Examples
    --------
    >>> precision_at_confidence(np.array([0.2, 0.9, 0.9]), np.array([True, True, False]))
    (array([0.9, 0.2]), array([0.5       , 0.66666667]))
    """
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.flatnonzero(np.append(np.diff(sure) != 0, True)) if len(sure) else np.empty(0, int)
    return sure[last], share[last]


@dataclass(frozen=True)
class _Plot:
    """Places of the plot's marks, in its own units."""

    line: str
    ticks: list[tuple[float, str]]
    marks: list[tuple[str, str, float, list[float]]]
    levels: list[tuple[float, str]]


def _plot(page: RecognitionPage) -> _Plot:
    # By place and not by value: a few very sure names would press all others into a corner.
    order = np.argsort(page.confidence, kind="stable")
    ranked, count = page.confidence[order], len(order)

    def x(place: float) -> float:
        return round(_LEFT + place / max(count - 1, 1) * (_WIDTH - _LEFT - 10), 1)

    def y(share: float) -> float:
        return round(_TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM), 1)

    thresholds, precision = precision_at_confidence(page.confidence, page.right)
    places = np.searchsorted(ranked, thresholds).tolist()
    line = " ".join(f"{x(place)},{y(p)}" for place, p in zip(places, precision.tolist(), strict=True))
    kinds = np.where(page.right, 0, np.where(page.shows, 1, 2))[order]
    says = ("right", "wrong name", "no landmark")
    marks = [
        (
            _KINDS[kind],
            says[kind],
            _HEIGHT - 80 + 20 * kind,
            [x(i) for i in np.flatnonzero(kinds == kind).tolist()],
        )
        for kind in range(3)
    ]
    shown = sorted({round(share * (count - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})
    ticks = [(x(i), f"{ranked[i]:.2f}") for i in shown]
    return _Plot(line, ticks, marks, [(y(s), f"{s:.0%}") for s in (0.0, 0.5, 1.0)])
