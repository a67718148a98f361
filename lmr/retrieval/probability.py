"""The probability that a photo shows the query's landmark, from what was measured of the pair.

Logistic regression (Cox 1958) on up to three *signals*: the logarithm of the inliers, the logarithm of the
votes as a multiple of what chance gives, and the similarity of both global descriptors. No signal may lower
the probability. Isotonic regression (Zadrozny and Elkan, KDD 2002) may bend its curve where the logistic one
does not fit. Arrays in and out; `lmr.evaluation.reliability` says how good the probabilities are.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from lmr.errors import LmrError, SettingsError

__all__ = [
    "COMBINE",
    "METHODS",
    "SIGNALS",
    "Combine",
    "Method",
    "PairModel",
    "combined",
    "fit_pairs",
    "held_out",
    "signals_of",
]

Values = NDArray[np.float64]
Method = Literal["logistic", "isotonic"]
Combine = Literal["noisy_or", "best", "mean"]

METHODS: tuple[Method, ...] = ("logistic", "isotonic")
COMBINE: tuple[Combine, ...] = ("noisy_or", "best", "mean")

SIGNALS = ("inliers", "votes", "similarity")
"""What a pair may be judged by, in the order of the columns of `signals_of`."""

_SHRINK = 1e-3  # of the weights, per pair: keeps them finite where right and wrong pairs never overlap
_KNOTS = 32  # of an isotonic curve, so that its file stays small


@dataclass(frozen=True)
class PairModel:
    """How signals become a probability.

    Attributes
    ----------
    signals
        Those that count, some of `SIGNALS`.
    weights
        One for each, 0 or more: log-odds for a step of 1.
    offset
        Log-odds where every signal is 0.
    curve
        Log-odds and probabilities, both rising, between which it is interpolated; empty: the logistic curve.
    """

    signals: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float
    curve: tuple[tuple[float, float], ...] = ()

    def log_odds(self, signals: Values) -> Values:
        """Return the log-odds of pairs, before the curve; signals are as of `signals_of`."""
        columns = signals[..., [SIGNALS.index(name) for name in self.signals]]
        odds: Values = columns @ np.asarray(self.weights, np.float64) + self.offset
        return odds

    def probability(self, signals: Values) -> Values:
        """Return the probability that each pair is right.

        Parameters
        ----------
        signals
            (..., 3) float64, from `signals_of`.

        Returns
        -------
        ndarray
            (...,) float64, 0 to 1.

        Examples
        --------
        >>> model = PairModel(("inliers",), (2.0,), -6.0)
        >>> model.probability(signals_of(np.array([0, 19, 100]), np.ones(3), np.zeros(3))).round(2)
        array([0.  , 0.5 , 0.96])
        """
        odds = self.log_odds(signals)
        if not self.curve:
            return np.asarray(expit(odds), np.float64)
        at, said = np.asarray(self.curve, np.float64).T
        return np.asarray(np.interp(odds, at, said), np.float64)


def signals_of(
    inliers: NDArray[np.integer[Any]] | Values, votes: Values, similarity: NDArray[np.floating[Any]]
) -> Values:
    """Return the signals of pairs, as the model counts them.

    Parameters
    ----------
    inliers
        (...,) inliers; 0 for a pair that was not verified.
    votes
        (...,) votes as a multiple of what chance gives; 0 for a pair that got none.
    similarity
        (...,) cosine of both global descriptors.

    Returns
    -------
    ndarray
        (..., 3) float64: ln(1 + inliers), ln(1 + votes), similarity.
    """
    found: Values = np.stack(
        [
            np.log1p(np.maximum(inliers, 0).astype(np.float64)),
            np.log1p(np.maximum(votes, 0).astype(np.float64)),
            np.asarray(similarity, np.float64),
        ],
        axis=-1,
    )
    return found


def fit_pairs(
    signals: Values,
    right: NDArray[np.bool_],
    *,
    names: tuple[str, ...] = SIGNALS,
    method: Method = "logistic",
) -> PairModel:
    """Fit a model to labelled pairs.

    Parameters
    ----------
    signals
        (p, 3) float64, from `signals_of`.
    right
        (p,) whether both photos of a pair show one landmark.
    names
        Which of `SIGNALS` count.
    method
        The curve from log-odds to probability: "logistic", or "isotonic".

    Raises
    ------
    LmrError
        If the arrays do not fit together, a signal is not a number, or all pairs are right, or none.
    SettingsError
        If there is no such signal or method.
    """
    _check(signals, right, names, method)
    columns = signals[:, [SIGNALS.index(name) for name in names]]
    # In units of their spread, so that one shrinkage means the same for all.
    centre, scale = columns.mean(axis=0), np.maximum(columns.std(axis=0), 1e-9)
    x, y = (columns - centre) / scale, right.astype(np.float64)
    least = 1.0 / len(y)

    def loss(theta: Values) -> tuple[float, Values]:
        weights, offset = theta[:-1], theta[-1]
        odds = x @ weights + offset
        wrong = expit(odds) - y
        value = float(np.mean(np.logaddexp(0.0, odds) - y * odds) + _SHRINK * weights @ weights / 2)
        return value, np.append(x.T @ wrong / len(y) + _SHRINK * weights, wrong.mean())

    share = np.clip(y.mean(), least, 1 - least)
    start = np.append(np.zeros(len(names)), np.log(share / (1 - share)))
    bounds = [(0.0, None)] * len(names) + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = found[:-1] / scale
    model = PairModel(tuple(names), tuple(weights.tolist()), float(found[-1] - weights @ centre))
    return model if method == "logistic" else _bent(model, signals, y)


def held_out(
    signals: Values,
    right: NDArray[np.bool_],
    groups: NDArray[np.integer[Any]],
    *,
    names: tuple[str, ...] = SIGNALS,
    method: Method = "logistic",
    folds: int = 5,
    seed: int = 0,
) -> Values:
    """Return the probability of every pair by a model that was fitted without its group.

    Groups are dealt to folds at random; a model is fitted to all other folds.

    Parameters
    ----------
    signals, right, names, method
        As of `fit_pairs`.
    groups
        (p,) which pairs belong together, such as those of one landmark.
    folds
        How many; fewer where there are fewer groups.
    seed
        Of the order in which groups are dealt.

    Raises
    ------
    LmrError
        As `fit_pairs`, of any fold; and if there are fewer than two groups.
    """
    _check(signals, right, names, method)
    kinds, of_pair = np.unique(groups, return_inverse=True)
    if len(kinds) < 2:
        raise LmrError(
            "there are too few landmarks to fit on some and to look at others",
            got=f"{len(kinds)} groups of labelled queries",
            fix="give a solution with at least two landmarks, better some dozens",
        )
    folds = min(folds, len(kinds))
    # Groups with right pairs are dealt first: else a fold may hold all of them.
    good = np.bincount(of_pair.ravel(), weights=right.astype(np.float64), minlength=len(kinds)) > 0
    shuffled = np.random.default_rng(seed).permutation(len(kinds))
    order = np.concatenate([shuffled[good[shuffled]], shuffled[~good[shuffled]]])
    fold_of = np.empty(len(kinds), np.int64)
    fold_of[order] = np.arange(len(kinds)) % folds
    mine = fold_of[of_pair.ravel()]
    said = np.empty(len(right))
    for fold in range(folds):
        out = mine == fold
        said[out] = fit_pairs(signals[~out], right[~out], names=names, method=method).probability(
            signals[out]
        )
    return said


def combined(
    queries: NDArray[np.int64], landmarks: NDArray[np.int64], probability: Values, how: Combine = "noisy_or"
) -> tuple[NDArray[np.int64], Values]:
    """Return the probability of each landmark that some photo of a query's list speaks for.

    Parameters
    ----------
    queries
        (p,) row of the query of each pair.
    landmarks
        (p,) landmark of its photo, 0 or more.
    probability
        (p,) that the photo shows the query's landmark.
    how
        "noisy_or": 1 - Π (1 - p), as if photos spoke independently (Pearl 1988). "best": that of the surest
        photo. "mean": the mean over the landmark's photos in the list.

    Returns
    -------
    cells
        (c, 2) int64, query and landmark, in order.
    probability
        (c,) float64, 0 to 1.

    Examples
    --------
    >>> cells, said = combined(np.zeros(3, int), np.array([4, 4, 2]), np.array([0.5, 0.5, 0.6]))
    >>> cells.tolist(), said
    ([[0, 2], [0, 4]], array([0.6 , 0.75]))
    """
    if how not in COMBINE:
        raise SettingsError(
            "there is no such way to combine", got=str(how), fix=f"one of {', '.join(COMBINE)}"
        )
    if not len(queries):
        return np.empty((0, 2), np.int64), np.empty(0)
    cells, of_pair = np.unique(np.stack([queries, landmarks], axis=1), axis=0, return_inverse=True)
    of_pair = of_pair.ravel()
    if how == "best":
        best = np.zeros(len(cells))
        np.maximum.at(best, of_pair, probability)
        return cells, best
    if how == "mean":
        total = np.bincount(of_pair, weights=probability, minlength=len(cells))
        return cells, total / np.bincount(of_pair, minlength=len(cells))
    none = np.bincount(of_pair, weights=np.log1p(-np.minimum(probability, 1 - 1e-12)), minlength=len(cells))
    return cells, -np.expm1(none)


def _bent(model: PairModel, signals: Values, y: Values) -> PairModel:
    """Return a model whose curve is isotonic: the probabilities that occurred, by log-odds, never falling."""
    odds = model.log_odds(signals)
    order = np.argsort(odds, kind="stable")
    fitted = isotonic_regression(y[order]).x
    blocks = np.flatnonzero(np.append(True, np.diff(fitted) > 0))
    sizes = np.diff(np.append(blocks, len(fitted)))
    middle = np.array([odds[order][b : b + n].mean() for b, n in zip(blocks, sizes, strict=True)])
    # One average pair more in each block: few pairs make nothing impossible, and nothing certain.
    said = np.maximum.accumulate((fitted[blocks] * sizes + y.mean()) / (sizes + 1))
    rising = np.append(True, np.diff(middle) > 0)
    middle, said = middle[rising], said[rising]
    if len(middle) > _KNOTS:
        kept = np.unique(np.linspace(0, len(middle) - 1, _KNOTS).round().astype(int))
        middle, said = middle[kept], said[kept]
    curve = tuple(zip(middle.tolist(), said.tolist(), strict=True))
    return PairModel(model.signals, model.weights, model.offset, curve)


def _check(signals: Values, right: NDArray[np.bool_], names: tuple[str, ...], method: str) -> None:
    if method not in METHODS:
        raise SettingsError("there is no such method", got=str(method), fix=f"one of {', '.join(METHODS)}")
    if not names or not set(names) <= set(SIGNALS):
        raise SettingsError("there are no such signals", got=", ".join(names), fix=", ".join(SIGNALS))
    if right.ndim != 1 or signals.shape != (len(right), len(SIGNALS)):
        raise LmrError(
            "every pair needs its three signals and its label",
            got=f"shapes {signals.shape} and {right.shape}",
            fix="give what signals_of returns, and a label for each row",
        )
    if not np.isfinite(signals).all():
        raise LmrError(
            f"{int((~np.isfinite(signals)).any(axis=1).sum()):,} pairs have a signal that is not a number",
            got="NaN or infinity",
            fix="leave such pairs out",
        )
    if right.all() or not right.any():
        raise LmrError(
            "a probability needs right pairs and wrong ones to learn from",
            got=f"{int(right.sum()):,} of {len(right):,} pairs are right",
            fix="give the solution that belongs to the run, for more queries",
        )
