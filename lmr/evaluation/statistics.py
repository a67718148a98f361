"""How sure a mean score is, and whether two submissions differ: bootstrap over the queries.

All draws have a fixed seed: the same scores give the same interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["Comparison", "Interval", "compare", "interval", "mean_of"]

PerQuery = NDArray[np.float64]
Statistic = Callable[[NDArray[np.float64]], PerQuery]
"""From (b, q) weights, how often each query was drawn, to the (b,) values of the score."""

_DRAWS, _EXCHANGES, _MOST_WORK = 2000, 10_000, 10_000_000


@dataclass(frozen=True)
class Interval:
    """A score with what chance in the choice of queries does to it.

    Attributes
    ----------
    value
        The score itself.
    standard_error
        Standard deviation of the score over the draws.
    low, high
        Ends of the percentile interval.
    confidence
        The share of the draws that lies between them.
    """

    value: float
    standard_error: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """The difference of two submissions on the same queries.

    Attributes
    ----------
    difference
        The first's score less the second's, with its interval over paired draws.
    p_value
        Share of random exchanges of the two, query by query, whose mean differs as much; None where the
        score is no mean over queries.
    won, lost, tied
        Queries on which the first is better, worse, equal.
    """

    difference: Interval
    p_value: float | None
    won: int
    lost: int
    tied: int


def mean_of(per_query: PerQuery) -> Statistic:
    """Return the weighted mean of scores, as a function of the weights."""

    def statistic(weights: NDArray[np.float64]) -> PerQuery:
        means: PerQuery = weights @ per_query / weights.sum(axis=1)
        return means

    return statistic


def interval(statistic: Statistic, queries: int, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Draw as many queries as there are, with replacement, again and again; return the spread of the score.

    Parameters
    ----------
    statistic
        The score, of weights per query.
    queries
        How many queries there are.
    confidence
        The share of draws between the ends of the interval.
    seed
        Seed of the draws.

    Raises
    ------
    LmrError
        If there is no query.

    Examples
    --------
    >>> found = interval(mean_of(np.array([0.0, 1.0, 1.0, 1.0])), 4)
    >>> found.value, found.low, found.high
    (0.75, 0.25, 1.0)
    """
    if queries < 1:
        raise LmrError("an interval needs queries", got="0", fix="check that the solution has right photos")
    value = float(statistic(np.ones((1, queries)))[0])
    drawn = np.concatenate([statistic(weights) for weights in _draws(queries, seed)])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(drawn.std(ddof=1)), float(low), float(high), confidence)


def compare(
    first: PerQuery,
    second: PerQuery,
    *,
    statistics: tuple[Statistic, Statistic] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two submissions query by query.

    Parameters
    ----------
    first, second
        (q,) scores of the same queries, none of them NaN.
    statistics
        The scores where they are no means over queries, as GAP; then there is no p-value.
    confidence, seed
        As in `interval`.

    Examples
    --------
    >>> found = compare(np.array([1.0, 0.5, 0.5]), np.array([0.5, 0.5, 0.5]))
    >>> found.won, found.lost, found.tied
    (1, 0, 2)
    """
    one, other = statistics or (mean_of(first), mean_of(second))
    return Comparison(
        interval(lambda weights: one(weights) - other(weights), len(first), confidence=confidence, seed=seed),
        None if statistics else _exchange_p(first - second, seed),
        int(np.count_nonzero(first > second)),
        int(np.count_nonzero(first < second)),
        int(np.count_nonzero(first == second)),
    )


def _exchange_p(differences: PerQuery, seed: int) -> float:
    rng = np.random.default_rng(seed)
    # Equal queries stay equal, whichever is called the first.
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 1.0
    bound = abs(differences.sum()) * (1 - 1e-12)
    reached = draws = 0
    for size in _blocks(len(differences), _EXCHANGES):
        signs = rng.integers(0, 2, (size, len(differences)), dtype=np.int8) * 2.0 - 1
        reached += int(np.count_nonzero(np.abs(signs @ differences) >= bound))
        draws += size
    return (reached + 1) / (draws + 1)


def _draws(queries: int, seed: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    for size in _blocks(queries, _DRAWS):
        drawn = rng.integers(0, queries, (size, queries)) + np.arange(size)[:, None] * queries
        yield np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries).astype(float)


def _blocks(queries: int, most: int) -> Iterator[int]:
    """Yield numbers of draws whose weights fit in some megabytes; fewer in all where queries are many."""
    left = int(np.clip(_MOST_WORK // queries, 200, most))
    while left > 0:
        size = min(left, max(1, 1_000_000 // queries))
        left -= size
        yield size
