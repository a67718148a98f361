"""Which inliers are evidence that two photos show one place, and which are not.

RANSAC counts matches that agree on a transform. A caption, a date stamp, a logo or a frame agrees too, in any
two photos that bear it: it lies in the same place of both. A spot, a single line of features, or a transform
that no camera makes are no evidence either. Photos that are copies of each other agree in place all over, and
count.
"""

from math import hypot, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import gammaln

__all__ = ["counts_as_evidence", "is_chance"]

BORDER = 0.12  # of a side: what lies nearer to the border of both photos is no part of their inside
IN_PLACE = 0.02  # of the long side: overlays are drawn to the pixel, and rounding of sizes moves them by less
MOSTLY = 0.6  # of the inliers in place, or at the border: then that is what agreed
INSIDE_LEAST, INSIDE_SPREAD = 8, 0.02  # of inliers in place, that show more than a line of text
SPOT = 0.02  # of the long side: standard deviation along the longer axis
LINE = 0.002  # of the long side: standard deviation across the line
MOST_SQUEEZED = 30.0  # one direction against the other; extreme views of development photos reach 28
MOST_ZOOM = 16.0
PLACE_PX = 2.0  # a place has several features where it has several orientations

Places = NDArray[np.float32]
Mask = NDArray[np.bool_]


def counts_as_evidence(
    query_xy: Places,
    gallery_xy: Places,
    query_frame: NDArray[np.floating[Any]],
    gallery_frame: NDArray[np.floating[Any]],
    transform: NDArray[np.floating[Any]] | None = None,
) -> Mask:
    """Tell which inliers of a pair are evidence.

    Parameters
    ----------
    query_xy, gallery_xy
        (n, 2) places of the inliers in the two photos, pixels.
    query_frame, gallery_frame
        (2,) width and height of the photos, in the same pixels.
    transform
        (3, 3), what maps the gallery photo onto the query photo; None where there is none that keeps
        directions, as with a fundamental matrix.

    Returns
    -------
    (n,) bool. All false where the transform mirrors, squeezes or shrinks as no camera does, and where the
    inliers lie in one spot or one thin line of either photo. False for those that lie in the same place of
    both photos, unless they fill the inside as those of copies do, and for those at the border of both where
    most lie there. Where most share their place with others, false for all but the first of each place.

    Examples
    --------
    A line of text at the bottom of two photos:

    >>> rng, size = np.random.default_rng(0), np.array([800.0, 600.0])
    >>> text = np.column_stack([rng.uniform(20, 300, 40), rng.uniform(560, 590, 40)]).astype(np.float32)
    >>> int(counts_as_evidence(text, text, size, size).sum())
    0

    Two copies of one photo:

    >>> copy = (rng.uniform(0, 1, (40, 2)) * size).astype(np.float32)
    >>> int(counts_as_evidence(copy, copy, size, size).sum())
    40
    """
    if transform is not None and len(query_xy) and not _possible(transform, gallery_xy):
        return np.zeros(len(query_xy), np.bool_)
    sides = [
        (np.ascontiguousarray(xy, np.float32), np.asarray(frame, np.float32))
        for xy, frame in ((query_xy, query_frame), (gallery_xy, gallery_frame))
    ]
    return np.asarray(_kept(*sides[0], *sides[1]))


def is_chance(inliers: int, matches: int, sample: int, share: float) -> bool:
    """Tell whether so many inliers of so many matches are to be expected of matches at random.

    Of all choices of inliers and of samples among them, the expected number that agree as well by chance is
    at least one (Moisan and Stival, *A probabilistic criterion to detect rigid point matches*, IJCV 2004).

    Parameters
    ----------
    inliers, matches
        How many agree, of how many.
    sample
        Matches that determine the model: these agree by themselves.
    share
        The probability that a match at random agrees, 0 to 1.

    Examples
    --------
    Eleven of 300 within 8 px of a line through a photo of 800 × 600:

    >>> is_chance(11, 300, 7, 0.033), is_chance(60, 300, 7, 0.033)
    (True, False)
    """
    if inliers <= sample:
        return True
    tests = np.log(matches - sample) + _log_choices(matches, inliers) + _log_choices(inliers, sample)
    return bool(tests + (inliers - sample) * np.log(max(share, 1e-12)) >= 0)


def _log_choices(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _possible(transform: NDArray[np.floating[Any]], gallery_xy: Places) -> bool:
    """Whether a camera can make the transform, linear about the middle of the inliers."""
    m = transform.astype(np.float64)
    linear = m[:2, :2]
    if m[2].tolist() != [0, 0, 1]:
        x, y = gallery_xy.mean(axis=0, dtype=np.float64)
        w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        mapped = (m[:2, :2] @ (x, y) + m[:2, 2]) / w if w else np.full(2, np.nan)
        linear = (m[:2, :2] - np.outer(mapped, m[2, :2])) / w if w else np.full((2, 2), np.nan)
    (a, b), (c, d) = linear.tolist()
    if not a * d - b * c > 0:  # also where one is not finite
        return False
    # The singular values of a 2 × 2 matrix: NumPy's take ten times as long, and a pair may ask thrice.
    half_sum, half_difference = hypot(a + d, c - b) / 2, hypot(a - d, c + b) / 2
    large, small = half_sum + half_difference, half_sum - half_difference
    return large <= MOST_SQUEEZED * small and 1 / MOST_ZOOM <= sqrt(large * small) <= MOST_ZOOM


# A pair of the contest has some ten inliers, of which NumPy's calls took ten times as long as these loops.
@njit(nogil=True, cache=True)
def _kept(query_xy: Any, query_frame: Any, gallery_xy: Any, gallery_frame: Any) -> Any:
    """Apply all tests but that of the transform: (n,) bool."""
    n = len(query_xy)
    kept = _distinct(query_xy) & _distinct(gallery_xy)
    if 2 * kept.sum() > n:  # a place has several features here and there, in any photo
        kept[:] = True
    edge = _at_border(query_xy, query_frame) & _at_border(gallery_xy, gallery_frame)
    if edge.sum() > MOSTLY * n:  # a frame's pattern repeats: it agrees out of place as well
        kept &= ~edge
    placed = _in_place(query_xy, gallery_xy, query_frame, gallery_frame)
    if placed.sum() > MOSTLY * n:
        inside = placed & ~edge
        across = min(_spread(query_xy, inside, query_frame)[1], _spread(gallery_xy, inside, gallery_frame)[1])
        if inside.sum() < INSIDE_LEAST or across < INSIDE_SPREAD:
            kept &= ~placed
    on_query, on_gallery = _spread(query_xy, kept, query_frame), _spread(gallery_xy, kept, gallery_frame)
    if min(on_query[0], on_gallery[0]) < SPOT or min(on_query[1], on_gallery[1]) < LINE:
        kept[:] = False
    return kept


@njit(nogil=True, cache=True)
def _distinct(xy: Any) -> Any:
    """Mark the first inlier of each place."""
    x, y = np.round(xy[:, 0] / np.float32(PLACE_PX)), np.round(xy[:, 1] / np.float32(PLACE_PX))
    by_place = np.argsort(x, kind="mergesort")
    by_place = by_place[np.argsort(y[by_place], kind="mergesort")]  # stable: of a place, the first is first
    first = np.ones(len(x), np.bool_)
    for k in range(1, len(x)):
        one, before = by_place[k], by_place[k - 1]
        first[one] = x[one] != x[before] or y[one] != y[before]
    return first


@njit(nogil=True, cache=True)
def _in_place(query_xy: Any, gallery_xy: Any, query_frame: Any, gallery_frame: Any) -> Any:
    """Mark inliers that keep their place: from one side, the other, the middle, or in shares of the side."""
    n, margin = len(query_xy), IN_PLACE * np.float64(max(query_frame.max(), gallery_frame.max()))
    placed, near, most = np.ones(n, np.bool_), np.empty(n, np.bool_), np.empty(n, np.bool_)
    for axis in range(2):
        more = np.float64(query_frame[axis] - gallery_frame[axis])
        stretch = np.float64(query_frame[axis]) / max(np.float64(gallery_frame[axis]), 1.0)
        best = -1
        for aside, zoom in ((0.0, 1.0), (more, 1.0), (more / 2, 1.0), (0.0, stretch)):
            for i in range(n):
                apart = np.float64(query_xy[i, axis]) - zoom * np.float64(gallery_xy[i, axis]) - aside
                near[i] = abs(apart) < margin
            if near.sum() > best:
                best, most[:] = near.sum(), near
        placed &= most
    return placed


@njit(nogil=True, cache=True, error_model="numpy")
def _at_border(xy: Any, frame: Any) -> Any:
    found = np.zeros(len(xy), np.bool_)
    for axis in range(2):
        side = max(frame[axis], np.float32(1))
        for i in range(len(xy)):
            share = xy[i, axis] / side
            found[i] |= min(share, np.float32(1) - share) < np.float32(BORDER)
    return found


@njit(nogil=True, cache=True)
def _spread(xy: Any, chosen: Any, frame: Any) -> Any:
    """Return the standard deviations of the chosen places, along and across their main direction.

    They are shares of the photo's long side.
    """
    count, x, y = 0, 0.0, 0.0
    for i in range(len(xy)):
        if chosen[i]:
            count, x, y = count + 1, x + xy[i, 0], y + xy[i, 1]
    if count < 2:
        return 0.0, 0.0
    x, y, a, b, c = x / count, y / count, 0.0, 0.0, 0.0
    for i in range(len(xy)):
        if chosen[i]:
            u, v = xy[i, 0] - x, xy[i, 1] - y
            a, b, c = a + u * u, b + u * v, c + v * v
    a, b, c = a / count, b / count, c / count
    middle, apart = (a + c) / 2, hypot((a - c) / 2, b)
    side = max(np.float64(frame.max()), 1.0)
    return sqrt(middle + apart) / side, sqrt(max(middle - apart, 0.0)) / side
