"""RANSAC for affine and similarity transforms, compiled, for the few hundred matches of one pair of photos.

The frame is PROSAC's (Chum and Matas 2005): samples are drawn from the matches with the nearest
descriptors first, from all of them in the end. A model that beats the best is refitted to its inliers, and to
a few of them at a time, while that gains some (LO-RANSAC; Chum, Matas and Kittler 2003). Models are scored in
float32, without fused or reordered sums, so that every processor counts the same inliers.
"""

from typing import Any

import numpy as np
from numba import njit

__all__ = ["agree", "estimate"]

_CHUNK = 128  # matches scored between two looks at whether the best can still be beaten
_REFITS = 5
_SHARE = 4  # a quarter of the trials is always run: the first good sample is seldom the best
_INNER_TRIALS, _INNER_SIZE = 10, 7  # fits to a few of the inliers, and how few
_INNER_GROWTH = 1.2  # such fits are tried each time that the inliers have grown by this factor
_MIN_TWICE_AREA_PX = 1.0  # triangles smaller than this determine no affine transform
_MIN_AREA_SCALE = 1e-4  # transforms that shrink areas more than this put everything in one place


@njit(nogil=True, cache=True)
def estimate(
    source: Any, target: Any, minimal: Any, max_residual: Any, trials: Any, confidence: Any, seed: Any
) -> Any:
    """Find the transform `target = A source + t` with the most inliers.

    Parameters
    ----------
    source, target
        (2, m) float32, C-contiguous, pixels; the most trusted matches first.
    minimal
        Matches in a sample: 3 for an affine transform, 2 for a similarity.
    max_residual
        float32, pixels. An inlier's residual, measured in `target`, is below it.
    trials
        The most samples to draw.
    confidence
        Stop a quarter of the trials after a sample without an outlier was drawn with this probability.
    seed
        int64, not negative.

    Returns
    -------
    model
        (6,) float64: the rows of (A, t). Not to be used where the count is 0.
    count
        Its inliers; 0 where every sample was degenerate.
    """
    m = source.shape[1]
    model, best_model = np.empty(6), np.empty(6)
    sample = np.empty(minimal, dtype=np.int64)
    state = np.uint64(2 * seed + 1) * np.uint64(0x9E3779B97F4A7C15)
    square = np.float32(max_residual * max_residual)
    best, goal, explored = 0, trials, 0
    # PROSAC's growth over the first half of the trials: `grown` is T_n, how many of so many samples would lie
    # within the n first matches.
    n, due, grown = minimal, 1, np.float64(trials) / 2
    for k in range(minimal):
        grown *= (n - k) / (m - k)
    t = 0
    while t < goal:
        t += 1
        if t >= due and n < m:
            after = grown * (n + 1) / (n + 1 - minimal)
            n += 1
            due += int(np.ceil(after - grown))
            grown = after
        for k in range(minimal):
            state, sample[k] = _draw(state, n)
            while k > 0 and (sample[k] == sample[0] or (k == 2 and sample[k] == sample[1])):
                state, sample[k] = _draw(state, n)
        if not _solve(source, target, sample, minimal, model):
            continue
        count = _count(source, target, model, square, best)
        if count <= best:
            continue
        best = _refit(source, target, minimal, square, model, count)
        best_model[:] = model
        if best > _INNER_SIZE and best > _INNER_GROWTH * explored:
            explored = best
            best, state = _explore(source, target, minimal, square, best_model, best, state)
        missed = 1 - (best / m) ** minimal
        if missed <= 0:
            break
        enough = np.log(1 - confidence) / np.log(missed)
        if enough < trials:
            goal = min(goal, trials // _SHARE + np.int64(np.ceil(enough)))
    return best_model, best


@njit(nogil=True, cache=True)
def _draw(state: Any, n: Any) -> Any:
    """Return the next state of xorshift64 (Marsaglia 2003), and a number below n from it."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state, np.int64(((state >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@njit(nogil=True, cache=True)
def _refit(source: Any, target: Any, minimal: Any, square: Any, model: Any, count: Any) -> Any:
    """Fit the model to its inliers again and again while their count grows; `model` is overwritten."""
    fitted = np.empty(6)
    for _ in range(_REFITS):
        if not _fit(source, target, _inliers(source, target, model, square), minimal, fitted):
            break
        more = _count(source, target, fitted, square, count)
        if more <= count:
            break
        count = more
        model[:] = fitted
    return count


@njit(nogil=True, cache=True)
def _explore(
    source: Any, target: Any, minimal: Any, square: Any, best_model: Any, best: Any, state: Any
) -> Any:
    """Look for a better model among fits to a few of the inliers at a time; `best_model` is overwritten."""
    model = np.empty(6)
    for _ in range(_INNER_TRIALS):
        inliers = _inliers(source, target, best_model, square)
        size = min(_INNER_SIZE, len(inliers) // 2)
        for k in range(size):
            state, ahead = _draw(state, len(inliers) - k)
            inliers[k], inliers[k + ahead] = inliers[k + ahead], inliers[k]
        if not _fit(source, target, inliers[:size], minimal, model):
            continue
        count = _count(source, target, model, square, best // 2)
        if count <= best // 2:
            continue
        count = _refit(source, target, minimal, square, model, count)
        if count > best:
            best = count
            best_model[:] = model
    return best, state


@njit(nogil=True, cache=True)
def _solve(source: Any, target: Any, sample: Any, minimal: Any, model: Any) -> Any:
    """Solve for the transform through the sample's matches; False where they do not determine it."""
    i, j = sample[0], sample[1]
    x0, y0, u0, v0 = (
        np.float64(source[0, i]),
        np.float64(source[1, i]),
        np.float64(target[0, i]),
        np.float64(target[1, i]),
    )
    x1, y1, u1, v1 = source[0, j] - x0, source[1, j] - y0, target[0, j] - u0, target[1, j] - v0
    if minimal == 3:
        k = sample[2]
        x2, y2, u2, v2 = source[0, k] - x0, source[1, k] - y0, target[0, k] - u0, target[1, k] - v0
        area = x1 * y2 - x2 * y1
        if abs(area) < _MIN_TWICE_AREA_PX:
            return False
        scale = 1 / area
        model[0], model[1] = (u1 * y2 - u2 * y1) * scale, (x1 * u2 - x2 * u1) * scale
        model[3], model[4] = (v1 * y2 - v2 * y1) * scale, (x1 * v2 - x2 * v1) * scale
    else:
        square = x1 * x1 + y1 * y1
        if square < _MIN_TWICE_AREA_PX:
            return False
        cosine, sine = (x1 * u1 + y1 * v1) / square, (x1 * v1 - y1 * u1) / square
        model[0], model[1], model[3], model[4] = cosine, -sine, sine, cosine
    model[2] = u0 - model[0] * x0 - model[1] * y0
    model[5] = v0 - model[3] * x0 - model[4] * y0
    return abs(model[0] * model[4] - model[1] * model[3]) > _MIN_AREA_SCALE


@njit(nogil=True, cache=True)
def _fit(source: Any, target: Any, chosen: Any, minimal: Any, model: Any) -> Any:
    """Fit a transform by least squares to the chosen matches; False where they do not determine it."""
    count = len(chosen)
    mx, my, mu, mv = 0.0, 0.0, 0.0, 0.0
    for i in chosen:
        mx += source[0, i]
        my += source[1, i]
        mu += target[0, i]
        mv += target[1, i]
    mx, my, mu, mv = mx / count, my / count, mu / count, mv / count
    xx, xy, yy, xu, yu, xv, yv = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in chosen:
        x, y, u, v = source[0, i] - mx, source[1, i] - my, target[0, i] - mu, target[1, i] - mv
        xx += x * x
        xy += x * y
        yy += y * y
        xu += x * u
        yu += y * u
        xv += x * v
        yv += y * v
    if minimal == 3:
        # Of three points, the determinant is a third of the square of twice the triangle's area.
        determinant = xx * yy - xy * xy
        if determinant < _MIN_TWICE_AREA_PX**2 / 3 or determinant < 1e-6 * (xx + yy) ** 2:
            return False
        model[0], model[1] = (xu * yy - yu * xy) / determinant, (yu * xx - xu * xy) / determinant
        model[3], model[4] = (xv * yy - yv * xy) / determinant, (yv * xx - xv * xy) / determinant
    else:
        if xx + yy < _MIN_TWICE_AREA_PX:
            return False
        cosine, sine = (xu + yv) / (xx + yy), (xv - yu) / (xx + yy)
        model[0], model[1], model[3], model[4] = cosine, -sine, sine, cosine
    model[2] = mu - model[0] * mx - model[1] * my
    model[5] = mv - model[3] * mx - model[4] * my
    return abs(model[0] * model[4] - model[1] * model[3]) > _MIN_AREA_SCALE


@njit(nogil=True, cache=True)
def _count(source: Any, target: Any, model: Any, square: Any, best: Any) -> Any:
    """Count the inliers, or give up with fewer once more than `best` is out of reach or unlikely.

    Unlikely means less than half of what `best` has on average in as many matches. The most trusted matches
    come first, so that a good model has more than the average there. Measured on the development photos: the
    same counts in two thirds of the time.
    """
    m = source.shape[1]
    a, b, c = np.float32(model[0]), np.float32(model[1]), np.float32(model[2])
    d, e, f = np.float32(model[3]), np.float32(model[4]), np.float32(model[5])
    count = 0
    for start in range(0, m, _CHUNK):
        end = min(m, start + _CHUNK)
        x, y, u, v = source[0, start:end], source[1, start:end], target[0, start:end], target[1, start:end]
        for i in range(end - start):
            du = a * x[i] + b * y[i] + c - u[i]
            dv = d * x[i] + e * y[i] + f - v[i]
            count += du * du + dv * dv < square
        if count + m - end <= best or 2 * count * m < best * end:
            break
    return count


@njit(nogil=True, cache=True)
def _inliers(source: Any, target: Any, model: Any, square: Any) -> Any:
    a, b, c = np.float32(model[0]), np.float32(model[1]), np.float32(model[2])
    d, e, f = np.float32(model[3]), np.float32(model[4]), np.float32(model[5])
    du = a * source[0] + b * source[1] + c - target[0]
    dv = d * source[0] + e * source[1] + f - target[1]
    return np.flatnonzero(du * du + dv * dv < square)


@njit(nogil=True, cache=True)
def agree(
    query_xy: Any,
    gallery_xy: Any,
    pairs: Any,
    trust: Any,
    minimal: Any,
    max_residual: Any,
    trials: Any,
    confidence: Any,
    seed: Any,
) -> Any:
    """Estimate the transform from gallery to query places that the matches agree on, and which do.

    Parameters
    ----------
    query_xy, gallery_xy
        (n, 2) float32, pixels.
    pairs
        (m, 2) int32, the matches: feature of the query photo, feature of the gallery photo.
    trust
        (m,) the matches' numbers, the most trusted first.
    minimal, max_residual, trials, confidence, seed
        As for `estimate`.

    Returns
    -------
    model
        (6,) float32; not to be used where no match agrees.
    good
        The numbers of the matches that agree with the float32 model, measured in float64, ascending.
    """
    m = len(pairs)
    source, target = np.empty((2, m), dtype=np.float32), np.empty((2, m), dtype=np.float32)
    for k in range(m):
        q, g = pairs[trust[k], 0], pairs[trust[k], 1]
        source[0, k], source[1, k] = gallery_xy[g, 0], gallery_xy[g, 1]
        target[0, k], target[1, k] = query_xy[q, 0], query_xy[q, 1]
    exact, count = estimate(source, target, minimal, max_residual, trials, confidence, seed)
    model = exact.astype(np.float32)
    good = np.empty(m, dtype=np.int64)
    if count == 0:
        return model, good[:0]
    a, b, c = np.float64(model[0]), np.float64(model[1]), np.float64(model[2])
    d, e, f = np.float64(model[3]), np.float64(model[4]), np.float64(model[5])
    square, n = np.float64(max_residual) ** 2, 0
    for k in range(m):
        x, y = np.float64(gallery_xy[pairs[k, 1], 0]), np.float64(gallery_xy[pairs[k, 1], 1])
        du = a * x + b * y + c - np.float64(query_xy[pairs[k, 0], 0])
        dv = d * x + e * y + f - np.float64(query_xy[pairs[k, 0], 1])
        good[n] = k
        n += int(du * du + dv * dv < square)
    return model, good[:n]
