"""How much longer a unit of a step's work takes in a larger gallery than in the one that was measured.

Most steps take as long for a photo or a pair whatever the gallery. A search by local features does not,
since its lists are longer. Its seconds for a feature grow about as a power of the gallery. The exponent is
from two measurements, of a million and of a billion features: docs/results/rehearsal.md says how.
"""

from collections.abc import Mapping

__all__ = ["GROWTH", "grown"]

GROWTH: Mapping[str, float] = {"search": 0.38}
"""Exponents by the name of the step; of others none was measured, and they are taken not to grow."""


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
    return {name: rate * times ** GROWTH.get(name, 0.0) for name, rate in rates.items()}
