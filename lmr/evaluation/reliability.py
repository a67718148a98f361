"""How good probabilities are: the Brier score, the reliability curve, and a picture of it.

Whoever scores gives probabilities of pairs that the model was not fitted on.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["Reliability", "reliability", "reliability_csv", "reliability_svg"]

Values = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 470, 62, 22, 56, 52
_LINE, _INK, _GRID = "#1f6feb", "#1b1f24", "#d8dee4"


@dataclass(frozen=True, eq=False)
class Reliability:
    """Probabilities of labelled pairs, compared with how often the pairs are right.

    Attributes
    ----------
    edges
        (b + 1,) bounds of the bins of probability, 0 to 1.
    pairs
        (b,) int64, pairs in each bin.
    right
        (b,) int64, how many of these are right.
    said
        (b,) mean probability in each bin; NaN where it is empty.
    brier
        Mean squared difference of probability and label (Brier 1950); 0 is perfect.
    log_loss
        Mean negative logarithm of the probability that was given to what is true.
    """

    edges: Values
    pairs: NDArray[np.int64]
    right: NDArray[np.int64]
    said: Values
    brier: float
    log_loss: float

    @cached_property
    def seen(self) -> Values:
        """(b,) share of right pairs in each bin; NaN where it is empty."""
        share: Values = np.where(self.pairs > 0, self.right / np.maximum(self.pairs, 1), np.nan)
        return share

    @property
    def base_brier(self) -> float:
        """The Brier score of saying the share of right pairs for every pair."""
        share = self.right.sum() / self.pairs.sum()
        return float(share * (1 - share))

    @property
    def skill(self) -> float:
        """Share of the base's Brier score that is taken away: 1 is perfect, 0 says nothing of a pair."""
        return 1 - self.brier / self.base_brier if self.base_brier else float("nan")

    @property
    def calibration_error(self) -> float:
        """Mean difference of probability and share over the bins, weighted by pairs."""
        some = self.pairs > 0
        gaps = np.abs(self.said[some] - self.seen[some]) * self.pairs[some]
        return float(gaps.sum() / self.pairs.sum())


def reliability(probability: Values, right: NDArray[np.bool_], *, bins: int = 10) -> Reliability:
    """Compare probabilities with labels, in bins of equal width.

    Parameters
    ----------
    probability
        (p,) float64, 0 to 1.
    right
        (p,) bool.
    bins
        How many.

    Raises
    ------
    LmrError
        If the arrays differ in length, are empty, or a probability lies outside 0 to 1.

    Examples
    --------
    >>> found = reliability(np.array([0.1, 0.2, 0.9]), np.array([False, False, True]), bins=2)
    >>> round(found.brier, 3), found.pairs.tolist(), found.seen.tolist()
    (0.02, [2, 1], [0.0, 1.0])
    """
    if probability.shape != right.shape or right.ndim != 1 or not len(right):
        raise LmrError(
            "every pair needs its probability and its label",
            got=f"shapes {probability.shape} and {right.shape}",
            fix="give two arrays of one length, with at least one pair",
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise LmrError(
            "a probability lies between 0 and 1",
            got=f"{probability.min()} to {probability.max()}",
            fix="give what a fitted model returns",
        )
    place = np.minimum((probability * bins).astype(np.int64), bins - 1)
    pairs = np.bincount(place, minlength=bins)
    of_right = np.bincount(place[right], minlength=bins)
    total = np.bincount(place, weights=probability, minlength=bins)
    said = np.where(pairs > 0, total / np.maximum(pairs, 1), np.nan)
    given = np.clip(np.where(right, probability, 1 - probability), 1e-15, 1)
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        pairs=pairs.astype(np.int64),
        right=of_right.astype(np.int64),
        said=said,
        brier=float(np.mean((probability - right) ** 2)),
        log_loss=float(-np.mean(np.log(given))),
    )


def reliability_csv(found: Reliability) -> str:
    """Return a line per bin, as CSV."""
    lines = ["from,to,pairs,right,said,seen"]
    for low, high, n, right, said, seen in zip(
        found.edges, found.edges[1:], found.pairs, found.right, found.said, found.seen, strict=False
    ):
        shares = [f"{said:.6f}", f"{seen:.6f}"] if n else ["", ""]
        lines.append(",".join([f"{low:g}", f"{high:g}", str(n), str(right), *shares]))
    return "\n".join([*lines, ""])


def reliability_svg(found: Reliability, title: str) -> str:
    """Draw how often pairs are right over what was said of them; the diagonal is perfect."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(share: float) -> float:
        return _LEFT + (right - _LEFT) * share

    def y(share: float) -> float:
        return _TOP + (bottom - _TOP) * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15" font-weight="600">{_escaped(title)}</text>',
        f'<text x="{_LEFT}" y="42">Brier score {found.brier:.4f}, of the bare share {found.base_brier:.4f}'
        "</text>",
    ]
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts += [
            f'<line x1="{_LEFT}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="{_GRID}"/>',
            f'<text x="{_LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:g}</text>',
            f'<text x="{x(share):.1f}" y="{bottom + 19}" text-anchor="middle">{share:g}</text>',
        ]
    some = np.flatnonzero(found.pairs)
    places = [(x(found.said[i]), y(found.seen[i]), int(found.pairs[i])) for i in some.tolist()]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in places)
    parts += [
        f'<line x1="{x(0)}" x2="{x(1)}" y1="{y(0)}" y2="{y(1)}" stroke="{_INK}" stroke-dasharray="4 3"/>',
        f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="2"/>',
        *(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{_LINE}"><title>{n:,} pairs</title></circle>'
            for a, b, n in places
        ),
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">'
        "probability that was given; above it, the share of pairs that are right</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
