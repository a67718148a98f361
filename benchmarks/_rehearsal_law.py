"""How a step's unit of work grows with the gallery, and what a contest takes by the rates of its tasks."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["exponent", "told"]

FLAT = 0.05
"""Exponents below it are told as none: measurements of one size differ by as much."""


def exponent(sizes: Sequence[float], per_unit: Sequence[float]) -> float:
    """Return the exponent by which the time of a unit grows with the gallery: the slope between logarithms.

    Examples
    --------
    >>> round(exponent([1e4, 1e5, 1e6], [1.0, 2.0, 4.0]), 3)
    0.301
    """
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(per_unit), 1)[0])


def told(growth: Mapping[int, float]) -> str:
    """Say a law in a few letters: "n^0.30", or "none" where a unit takes as long at every size."""
    slope = exponent([*growth], [*growth.values()])
    if math.isnan(slope):
        return "one size"
    return "none" if abs(slope) < FLAT else f"n^{slope:.2f}"
