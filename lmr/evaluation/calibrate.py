"""The threshold of inliers: precision and recall of "more than t inliers" on labelled pairs.

A pair is a query with a gallery photo that verification has looked at, right when both show one landmark.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from lmr.errors import LmrError

__all__ = ["Curve", "fit_threshold", "precision_curve"]

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Precision and recall of "more than t inliers", for t from 0 to the most inliers of any pair.

    Attributes
    ----------
    accepted
        (t,) int64, pairs with more than t inliers; the last is 0.
    right
        (t,) int64, how many of these are right.
    pairs, right_pairs
        All pairs, and all that are right.
    confidence
        Of `precision_low`.
    """

    accepted: Counts
    right: Counts
    pairs: int
    right_pairs: int
    confidence: float = 0.95

    @cached_property
    def precision(self) -> Shares:
        """(t,) share of the accepted pairs that are right; NaN where none is accepted."""
        share: Shares = np.where(self.accepted > 0, self.right / np.maximum(self.accepted, 1), np.nan)
        return share

    @cached_property
    def recall(self) -> Shares:
        """(t,) share of the right pairs that are accepted; NaN without a right pair."""
        share: Shares = (
            self.right / self.right_pairs if self.right_pairs else np.full(len(self.right), np.nan)
        )
        return share

    @cached_property
    def precision_low(self) -> Shares:
        """(t,) what the precision is at least, with `confidence` (Clopper and Pearson 1934, one-sided).

        It takes pairs for independent. Pairs of one query or landmark are not: the truth may lie lower.
        """
        low: Shares = beta.ppf(1 - self.confidence, self.right, self.accepted - self.right + 1)
        return np.where(self.right > 0, low, np.where(self.accepted > 0, 0.0, np.nan))


def precision_curve(
    inliers: NDArray[np.integer[Any]], right: NDArray[np.bool_], *, confidence: float = 0.95
) -> Curve:
    """Count, for every threshold, the pairs that pass it.

    Parameters
    ----------
    inliers
        (p,) inliers of each pair, 0 or more.
    right
        (p,) whether the pair shows one landmark.
    confidence
        Of the lower bound of precision, between 0 and 1.

    Raises
    ------
    LmrError
        If the arrays differ in length, there are no pairs, or the confidence is out of range.
    """
    if inliers.shape != right.shape or inliers.ndim != 1:
        raise LmrError(
            "every pair needs its inliers and its label", got=f"shapes {inliers.shape} and {right.shape}"
        )
    if not len(inliers):
        raise LmrError(
            "there are no labelled pairs to learn a threshold from",
            got="0 pairs",
            fix="give the solution that belongs to the run's photos",
        )
    if not 0 < confidence < 1:
        raise LmrError("a confidence lies between 0 and 1", got=str(confidence), fix="0.95 is usual")
    size = int(inliers.max()) + 1
    accepted, of_right = (
        # From the right: how many have more than t.
        len(counts) - np.cumsum(np.bincount(counts, minlength=size))
        for counts in (inliers, inliers[right])
    )
    return Curve(accepted, of_right, len(inliers), int(right.sum()), confidence)


def fit_threshold(curve: Curve, precision: float, *, sure: bool = False) -> int:
    """Return the least t such that "more than t inliers" has the wanted precision, as have all larger t.

    Parameters
    ----------
    curve
        From `precision_curve`.
    precision
        What is wanted, above 0 and at most 1.
    sure
        Ask it of the lower bound of the precision, at t alone, instead of the precision itself: with few
        pairs no threshold may have it.

    Raises
    ------
    LmrError
        If no threshold that any right pair passes has it, or `precision` is out of range.
    """
    if not 0 < precision <= 1:
        raise LmrError(
            "a precision lies above 0 and is at most 1",
            got=str(precision),
            fix="give for example --precision 0.99",
        )
    kept = np.flatnonzero(curve.right > 0)
    reached = (curve.precision_low if sure else curve.precision) >= precision
    if sure:
        # The bound falls again as pairs grow fewer, so what larger thresholds have says nothing.
        good = kept[reached[kept]]
    else:
        # Precision rises and falls with t: below the last t that misses it, reaching it is luck.
        missed = np.flatnonzero((curve.accepted > 0) & ~reached)
        good = kept[kept > (missed[-1] if len(missed) else -1)]
    if len(good):
        return int(good[0])
    raise _unreached(curve, precision, sure)


def _unreached(curve: Curve, precision: float, sure: bool) -> LmrError:
    what = f"no threshold of inliers reaches precision {precision:g}"
    if not curve.right_pairs:
        return LmrError(
            what,
            got=f"{curve.pairs} pairs, of which none is right",
            fix="calibrate on photos that have right answers among the candidates",
        )
    shown = curve.precision_low if sure else curve.precision
    kept = curve.right > 0
    if not kept.any():
        return LmrError(
            what,
            got=f"{curve.right_pairs} right pairs, of which none has an inlier",
            fix="try other local features, or another model or residual of verify",
        )
    best = int(np.nanargmax(np.where(kept, shown, np.nan)))
    which = "the lower bound is" if sure else "it is"
    return LmrError(
        f"{what} with {curve.confidence:g} confidence" if sure else what,
        got=f"at best {which} {shown[best]:.4f}, for more than {best} inliers "
        f"({curve.right[best]} of {curve.accepted[best]} pairs right)",
        fix="ask for less with --precision, or calibrate on more pairs",
    )
