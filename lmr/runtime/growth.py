"""How much longer a unit of a step's work takes in a larger gallery than in the one that was measured.

Most steps take as long for a photo or a pair whatever the gallery. Those that search it do not: lists are
longer, and indexes more. Their seconds for a unit grow about as a power of the gallery. The exponents are
those between two measurements, `lmr measure` with 329 photos and the rehearsal of a million:
docs/results/rehearsal.md shows both. Between these sizes they were not checked.
"""

from collections.abc import Mapping

__all__ = ["GROWTH", "grown"]

GROWTH: Mapping[str, float] = {
    "train_quantiser": 0.07,
    "index": 0.19,
    "search": 0.27,
    "neighbours": 0.11,
    "rank": 0.06,
    "link_regions": 0.38,
    "diffuse": 0.21,
}
"""Exponents by the name of the step; the others are taken not to grow."""


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
