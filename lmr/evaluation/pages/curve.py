"""A picture of precision and recall over the threshold of inliers, as SVG."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lmr.evaluation.calibrate import Curve

__all__ = ["curve_svg"]

_WIDTH, _HEIGHT = 760, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 22, 56, 52
_PRECISION, _RECALL, _INK, _GRID = "#1f6feb", "#d9480f", "#1b1f24", "#d8dee4"


def curve_svg(curve: Curve, threshold: int, title: str) -> str:
    """Draw a curve with a line at the chosen threshold.

    The thresholds lie on a square-root scale, on which the few that matter have room; the band below the
    precision reaches down to its lower bound.
    """
    last = max(int(np.flatnonzero(curve.accepted > 0)[-1]), threshold, 1)
    shown = range(last + 1)

    def x(t: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.sqrt(t / last)

    def y(share: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)

    def path(values: NDArray[np.float64], backwards: bool = False) -> str:
        places = [(x(t), y(values[t])) for t in shown if np.isfinite(values[t])]
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (places[::-1] if backwards else places))

    band = f"{path(curve.precision)} {path(curve.precision_low, backwards=True)}"
    ticks = sorted({t for t in (0, 5, 10, 20, 40, 80, 160, 320, 640) if t < last} | {last})
    ticks = [
        t for t, after in zip(ticks, [*ticks[1:], None], strict=True) if after is None or x(after) - x(t) > 30
    ]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    facts = (
        f"more than {threshold} inliers: precision {curve.precision[threshold]:.4f}"
        f" (at least {curve.precision_low[threshold]:.4f} with {curve.confidence:.0%} confidence),"
        f" recall {curve.recall[threshold]:.3f}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="13" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="22" font-size="15" font-weight="600">{_escaped(title)}</text>',
        f'<text x="{_LEFT}" y="42">{_escaped(facts)}</text>',
        *_grid([(y(s), f"{s:g}") for s in (0, 0.2, 0.4, 0.6, 0.8, 1)], [(x(t), str(t)) for t in ticks]),
        f'<polygon points="{band}" fill="{_PRECISION}" fill-opacity="0.15"/>',
        f'<polyline points="{path(curve.recall)}" fill="none" stroke="{_RECALL}" stroke-width="2"/>',
        f'<polyline points="{path(curve.precision)}" fill="none" stroke="{_PRECISION}" stroke-width="2"/>',
        f'<line x1="{x(threshold):.1f}" x2="{x(threshold):.1f}" y1="{_TOP}" y2="{bottom}" stroke="{_INK}" '
        'stroke-dasharray="4 3"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">'
        "threshold: pairs with more inliers are confident</text>",
        *_legend(
            right - 330,
            y(0.62),
            [(_PRECISION, "precision, lower bound"), (_RECALL, "recall of right pairs")],
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(rows: Iterable[tuple[float, str]], columns: Iterable[tuple[float, str]]) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for at, label in rows:
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for at, label in columns:
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{bottom}" y2="{bottom + 5}" stroke="{_INK}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">{label}</text>')
    return parts


def _legend(left: float, top: float, entries: Iterable[tuple[str, str]]) -> list[str]:
    parts = [
        f'<rect x="{left - 8}" y="{top - 14}" width="186" height="46" fill="#ffffff" fill-opacity="0.85"/>'
    ]
    for i, (colour, label) in enumerate(entries):
        at = top + 20 * i
        parts.append(
            f'<line x1="{left}" x2="{left + 22}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"/>'
        )
        parts.append(f'<text x="{left + 30}" y="{at + 4}">{label}</text>')
    return parts


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
