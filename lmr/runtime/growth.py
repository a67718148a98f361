"""How much longer a unit of a step's work takes in a larger gallery than in the one that was measured.

Most steps take as long for a photo or a pair whatever the gallery. Those that search it do not: lists are
longer, and indexes more. What a unit takes was measured in galleries of four sizes; between them its
logarithm is interpolated over that of the size. docs/results/rehearsal.md has the measurements.
"""

from collections.abc import Mapping

import numpy as np

__all__ = ["GROWTH", "SIZES", "grown"]

SIZES = (329, 10_000, 100_000, 1_000_000)
"""Gallery photos: of the two-minute form of `lmr measure`, and of the rehearsal."""

GROWTH: Mapping[str, tuple[float, float, float, float]] = {
    "train_quantiser": (25.7, 13.7, 20.5, 29.5),
    "index": (18.3, 18.8, 28.4, 73.7),
    "search": (251.7, 508.9, 1064.1, 2360.5),
    "index_global": (23.1, 23.1, 44.9, 81.0),  # a small gallery has none
    "neighbours": (379.9, 206.2, 401.2, 920.6),
    "index_augmented": (30.0, 30.0, 46.9, 72.9),  # nor this one
    "rank": (500.0, 195.1, 456.9, 913.1),
    "expand": (1900.0, 402.1, 529.7, 1128.7),
    "link_regions": (202.1, 101.0, 363.2, 2836.3),
    "diffuse": (20_100.0, 4008.2, 10_934.1, 68_976.5),
}
"""Processor microseconds for a unit, by the name of the step; the others are taken not to grow."""


def grown(rates: Mapping[str, float], measured: int, photos: int) -> dict[str, float]:
    """Return what rates become in a gallery of another size.

    Above a million photos the law goes on as between the two largest sizes.

    Parameters
    ----------
    rates
        Seconds per unit of work by the name of the step.
    measured
        Gallery photos with which they were measured; 0 where that is not known, and nothing grows.
    photos
        Gallery photos of the plan; nothing shrinks, in no gallery.

    Examples
    --------
    >>> grown({"verify": 2.0}, 100, 1_000_000)
    {'verify': 2.0}
    """
    if not measured or photos <= measured:
        return dict(rates)
    return {
        name: rate * max(1.0, _law(GROWTH[name], photos) / _law(GROWTH[name], measured))
        if name in GROWTH
        else rate
        for name, rate in rates.items()
    }


def _law(each: tuple[float, ...], photos: int) -> float:
    """Return what a unit takes in a gallery of this size, by what it took in those of `SIZES`."""
    sizes, times = np.log(SIZES), np.log(each)
    beyond = max(np.log(photos) - sizes[-1], 0.0) * (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
    return float(np.exp(np.interp(np.log(photos), sizes, times) + max(beyond, 0.0)))
