"""Fuse the scores of one search with the evidence of another that has no common scale with it.

Votes and diffused mass fall off steeply: a right photo has ten or a hundred times what the background has.
Their logarithm over the background is a log-likelihood ratio up to scale, and adds to a cosine similarity
with one weight. Reciprocal rank fusion knows ranks only and did worse (docs/results/quality.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["add_evidence"]


def add_evidence(
    photos: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    found: NDArray[np.integer[Any]],
    evidence: NDArray[np.floating[Any]],
    *,
    weight: float,
    depth: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank the photos of one query by score + weight * log(evidence / background).

    Parameters
    ----------
    photos, scores
        (n,) gallery rows without repeats and their scores, in any order; -1 is left out.
    found, evidence
        (m,) gallery rows without repeats and what another search found for them; -1 is left out, and so is
        what is not positive. The background is the `depth`-th largest evidence, or the least where there are
        fewer; less than it counts as much as it.
    weight
        Of the logarithm against the scores; 0 leaves the evidence out.
    depth
        Photos to return.

    Returns
    -------
    photos, scores : (at most `depth`,) int32, float32
        Best first, ties by row. A photo of `found` alone starts from the lowest of `scores`.

    Examples
    --------
    >>> rows, scores = np.array([4, 7, 1]), np.array([0.5, 0.4, 0.3])
    >>> votes = np.array([8.0, 1.0])
    >>> ranked, totals = add_evidence(rows, scores, np.array([7, 2]), votes, weight=0.1, depth=3)
    >>> ranked.tolist(), [round(total, 3) for total in totals.tolist()]
    ([7, 4, 1], [0.608, 0.5, 0.3])
    """
    listed = photos >= 0
    counts = (found >= 0) & (evidence > 0) & (weight > 0)
    rows = np.union1d(photos[listed], found[counts]).astype(np.int32)
    lowest = float(scores[listed].min()) if listed.any() else 0.0
    totals = np.full(len(rows), lowest)
    totals[np.searchsorted(rows, photos[listed])] = scores[listed]
    if counts.any():
        strong = evidence[counts].astype(np.float64)
        background = np.sort(strong)[-min(depth, len(strong))]
        totals[np.searchsorted(rows, found[counts])] += weight * np.log(np.maximum(strong / background, 1))
    order = np.lexsort((rows, -totals))[:depth]
    return rows[order], totals[order].astype(np.float32)
