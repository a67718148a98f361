"""The probability that a photo shows the query's landmark, from what was measured of the pair.

Logistic regression (Cox 1958) on up to three *signals*: the logarithm of the inliers above those of noise,
the logarithm of the votes as a multiple of what chance gives, and the similarity of both global descriptors.
No signal may lower the probability. How many inliers are noise depends on the extractor, so that number is
fitted too: the one under which the labels are likeliest. Isotonic regression (Zadrozny and Elkan, KDD 2002)
may bend the curve where the logistic one does not fit. Arrays in and out; `lmr.evaluation.reliability` says
how good the probabilities are.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from lmr.errors import LmrError, SettingsError

__all__ = [
    "METHODS",
    "SIGNALS",
    "Method",
    "PairModel",
    "fit_pairs",
    "held_out",
    "signals_of",
]

Values = NDArray[np.float64]
Method = Literal["logistic", "isotonic"]

METHODS: tuple[Method, ...] = ("logistic", "isotonic")

SIGNALS = ("inliers", "votes", "similarity")
"""What a pair may be judged by, in the order of the columns of `signals_of`."""

_NOISE = (0, 3, 5, 7, 10, 14, 20, 28, 40)  # inliers; the candidates of what unrelated photos have
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
    noise_inliers
        A pair with as many inliers or fewer counts as one with none.
    curve
        Log-odds and probabilities, both rising, between which it is interpolated; empty: the logistic curve.
    """

    signals: tuple[str, ...]
    weights: tuple[float, ...]
    offset: float
    noise_inliers: int = 0
    curve: tuple[tuple[float, float], ...] = ()

    def log_odds(self, signals: Values) -> Values:
        """Return the log-odds of pairs, before the curve; signals are as of `signals_of`."""
        odds: Values = (
            _columns(signals, self.signals, self.noise_inliers) @ np.asarray(self.weights, np.float64)
            + self.offset
        )
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
    """Return the signals of pairs, as one array.

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
        (..., 3) float64, in the order of `SIGNALS`.
    """
    found: Values = np.stack([inliers, votes, similarity], axis=-1).astype(np.float64)
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
    levels = _NOISE if "inliers" in names else (0,)
    fits = [_logistic(signals, right, names, noise) for noise in levels]
    model = min(fits, key=lambda fit: fit[1])[0]
    return model if method == "logistic" else _bent(model, signals, right.astype(np.float64))


def _columns(signals: Values, names: tuple[str, ...], noise_inliers: int) -> Values:
    """Return the signals that count, on the scales on which they are weighed."""
    scaled = {
        "inliers": np.log1p(np.maximum(signals[..., 0] - noise_inliers, 0)),
        "votes": np.log1p(np.maximum(signals[..., 1], 0)),
        "similarity": signals[..., 2],
    }
    return np.stack([scaled[name] for name in names], axis=-1)


def _logistic(
    signals: Values, right: NDArray[np.bool_], names: tuple[str, ...], noise: int
) -> tuple[PairModel, float]:
    """Return the model at a level of noise, and its loss."""
    columns = _columns(signals, names, noise)
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
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = found.x[:-1] / scale
    offset = float(found.x[-1] - weights @ centre)
    return PairModel(tuple(names), tuple(weights.tolist()), offset, noise), float(found.fun)


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
    return replace(model, curve=curve)


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
