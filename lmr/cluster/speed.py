"""How fast a worker's processor is, by a short measurement that it makes when it joins."""

import time
from functools import cache

import numpy as np

__all__ = ["measure_speed"]


@cache
def measure_speed() -> float:
    """Measure this processor: the best of some small runs of arithmetic as the steps do it, in 1/s.

    Products of float32 matrices, sorting, and plain Python: one thread, about 0.1 s in all. The best run
    counts, since others may be using the machine too. Measured once per process.
    """
    rng = np.random.default_rng(0)
    a, values = rng.standard_normal((192, 192), np.float32), rng.standard_normal(40_000, np.float32)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        np.sort(values)
        sum(range(20_000))
        return time.perf_counter() - start

    return 1.0 / min(run() for _ in range(8))
