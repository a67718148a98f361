"""Fuse the scores of one search with the evidence of another that has no common scale with it.

Votes and diffused mass fall off steeply: a right photo has ten or a hundred times what chance gives. The
logarithm of that ratio adds to a cosine similarity with one weight: it is 0 up to what chance gives, grows
with the evidence and with nothing else, and is bounded. What chance gives is said by whoever has the
evidence, from the gallery and not from the list: a longer list, or one photo more in it, changes no score.
Reciprocal rank fusion knows ranks only and did worse (docs/results/quality.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["add_evidence", "chance_mass"]

MOST = 10_000.0  # times the background; no evidence counts for more
PRIOR_SHARE = 0.001


def add_evidence(
    photos: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    found: NDArray[np.integer[Any]],
    evidence: NDArray[np.floating[Any]],
    *,
    background: float,
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
        what is not positive.
    background
        Evidence that a photo has by chance, above 0. Less counts as much as it; what has more than ten
        thousand times as much counts like that.
    weight
        Of the logarithm against the scores; 0 leaves the evidence out.
    depth
        Photos to return.

    Returns
    -------
    photos, scores : (at most `depth`,) int32, float32
        Best first, ties by row. A photo of `found` alone starts from the lowest of `scores`.

    Raises
    ------
    LmrError
        A background that is not above 0 while there is evidence to compare with it.

    Examples
    --------
    >>> rows, scores = np.array([4, 7, 1]), np.array([0.5, 0.4, 0.3])
    >>> found, votes = np.array([7, 2]), np.array([8.0, 1.0])
    >>> ranked, totals = add_evidence(rows, scores, found, votes, background=1.0, weight=0.1, depth=3)
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
        if not background > 0:
            raise LmrError(
                "evidence is compared with what chance gives, which is above 0",
                got=f"background {background}",
                fix="give what chance_votes or chance_mass returns",
            )
        ratio = np.clip(evidence[counts].astype(np.float64) / background, 1, MOST)
        totals[np.searchsorted(rows, found[counts])] += weight * np.log(ratio)
    order = np.lexsort((rows, -totals))[:depth]
    return rows[order], totals[order].astype(np.float32)


def chance_mass(mass: NDArray[np.floating[Any]], n_photos: int) -> float:
    """Return the mass that diffusion gives a photo by chance: an even share of all, and a thousandth more.

    The even share is what counts in a small gallery, the thousandth in a large one, where mass reaches only
    what is near. 0 where no mass is.

    Parameters
    ----------
    mass
        (m,) what reached each photo.
    n_photos
        Photos of the gallery.
    """
    return float(np.maximum(mass, 0).sum(dtype=np.float64)) * (1 / max(n_photos, 1) + PRIOR_SHARE)
