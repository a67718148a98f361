"""How much longer a unit of a step's work takes in a larger gallery than in the one that was measured.

Most steps take as long for a photo, a pair or a feature whatever the gallery. Those that search it do not:
lists are longer, indexes more, trees deeper. Their seconds for a unit grow about as a power of the gallery,
whose exponents stand here. `benchmarks/rehearsal.py` measured them: docs/results/rehearsal.md says how.
"""

from collections.abc import Mapping

__all__ = ["GROWTH", "grown"]

GROWTH: Mapping[str, float] = {}
"""Exponents by the name of the step, between some hundred gallery photos and a million."""


def grown(rates: Mapping[str, float], measured: int, photos: int) -> dict[str, float]:
    """Return what rates become in a gallery of another size.

    Parameters
    ----------
    rates
        Seconds per unit of work by the name of the step.
    measured
        Gallery photos with which they were measured; 0 where that is not known, and nothing grows.
    photos
        Gallery photos of the plan; in smaller galleries than that which was measured nothing shrinks.

    Examples
    --------
    >>> grown({"verify": 2.0}, 100, 1_000_000)
    {'verify': 2.0}
    """
    times = max(photos / measured, 1.0) if measured else 1.0
    return {name: rate * times ** _exponent(name) for name, rate in rates.items()}


def _exponent(name: str) -> float:
    return GROWTH.get(name, GROWTH.get(name.removesuffix("_queries"), 0.0))
