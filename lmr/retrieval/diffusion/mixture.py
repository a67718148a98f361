"""Fewer regions per photo: a Gaussian mixture is fitted to each photo's regions; its means stand for them.

Iscen et al., *Efficient diffusion on region manifolds* (CVPR 2017), reduce 21 regions to 5 so: a quarter of
the nodes, for a small loss. With 21 vectors of some hundred dimensions only one variance per photo can be
estimated, so the Gaussians are spherical and of equal variance.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.global_search.exact import spans

__all__ = ["reduce_regions"]

PHOTOS_AT_ONCE = 512  # with 21 regions of 256-d: 11 MB
ROUNDS = 10  # of expectation-maximisation; assignments of so few vectors settle within five


def reduce_regions(
    regions: NDArray[np.float32], offsets: NDArray[np.integer[Any]], components: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Replace the regions of each photo by the means of a mixture model.

    Parameters
    ----------
    regions
        (m, d) float32, unit rows.
    offsets
        (n + 1,) photo i has the regions `offsets[i]` to `offsets[i + 1]`. The first region of a photo is the
        first mean's start; each further mean starts at the region farthest from those before it, so that
        there is no chance in it.
    components
        Means per photo. Photos with no more regions than that keep theirs.

    Returns
    -------
    means : (m', d) float32
        Unit rows.
    offsets : (n + 1,) int64
    """
    if components < 1:
        raise LmrError("a mixture needs components", got=str(components), fix="ask for 1 or more")
    counts = np.diff(offsets)
    starts = np.concatenate([[0], np.cumsum(np.minimum(counts, components))]).astype(np.int64)
    reduced = np.empty((int(starts[-1]), regions.shape[1]), dtype=np.float32)
    for count in np.unique(counts[counts > 0]):  # photos with the same number of regions are fitted together
        photos = np.flatnonzero(counts == count)
        for lo, hi in spans(len(photos), PHOTOS_AT_ONCE):
            members = offsets[photos[lo:hi], None] + np.arange(count)
            kept = starts[photos[lo:hi], None] + np.arange(min(count, components))
            few = count <= components
            reduced[kept] = regions[members] if few else _means(regions[members], components)
    return reduced, starts


def _means(x: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    """Fit (b, m, d) vectors by (b, components, d) means."""
    b, m, d = x.shape
    means = _far_apart(x, components)
    shares = np.full((b, 1, components), 1 / components)
    variance = np.full((b, 1, 1), np.inf)
    for step in range(ROUNDS):
        distance = _squared_distances(x, means)
        if step == 0:
            variance = np.maximum(distance.min(axis=2).mean(axis=1) / d, 1e-9)[:, None, None]
        logits = np.log(np.maximum(shares, 1e-12)) - distance / (2 * variance)
        belongs = np.exp(logits - logits.max(axis=2, keepdims=True))
        belongs /= belongs.sum(axis=2, keepdims=True)
        weight = belongs.sum(axis=1, keepdims=True)
        shares = weight / m
        # A mean that nothing belongs to stays where it is.
        sums, per_mean = belongs.transpose(0, 2, 1).astype(np.float32) @ x, weight.transpose(0, 2, 1)
        means = np.where(per_mean > 1e-6, sums / np.maximum(per_mean, 1e-12), means).astype(np.float32)
        spread = (belongs * _squared_distances(x, means)).sum(axis=(1, 2))
        variance = np.maximum(spread / (m * d), 1e-9)[:, None, None]
    norms = np.linalg.norm(means, axis=2, keepdims=True)
    unit: NDArray[np.float32] = means / np.maximum(norms, 1e-12)
    return unit


def _far_apart(x: NDArray[np.float32], components: int) -> NDArray[np.float32]:
    photos = np.arange(len(x))
    chosen = [np.zeros(len(x), dtype=np.int64)]
    distance = np.full(x.shape[:2], np.inf)
    for _ in range(components - 1):
        distance = np.minimum(distance, _squared_distances(x, x[photos, chosen[-1]][:, None])[..., 0])
        chosen.append(distance.argmax(axis=1))
    return x[photos[:, None], np.stack(chosen, axis=1)]


def _squared_distances(x: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float64]:
    products = (x @ means.transpose(0, 2, 1)).astype(np.float64)
    own = np.einsum("bmd,bmd->bm", x, x, dtype=np.float64)[:, :, None]
    theirs = np.einsum("bkd,bkd->bk", means, means, dtype=np.float64)[:, None]
    distances: NDArray[np.float64] = np.maximum(own + theirs - 2 * products, 0.0)
    return distances
