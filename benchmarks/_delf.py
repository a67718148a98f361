"""The recipe of DELF's match_images.py, by its own libraries: SciPy's KD-tree, scikit-image's RANSAC."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage import measure
from skimage.transform import AffineTransform

__all__ = ["BOUND", "RESIDUAL_PX", "TRIALS", "delf_inliers", "delf_matches", "delf_recipe"]

BOUND, RESIDUAL_PX, TRIALS = 0.8, 20.0, 1000

Photo = dict[str, NDArray[np.float32]]


def delf_matches(query: Photo, gallery: Photo, dimension: str, bound: float = BOUND) -> NDArray[np.int32]:
    """Return each query feature with its nearest gallery feature, where that is nearer than the bound."""
    distance, found = cKDTree(gallery[dimension]).query(query[dimension], distance_upper_bound=bound)
    asked = np.flatnonzero(np.isfinite(distance))
    return np.stack([asked, found[asked]], axis=1).astype(np.int32)


def delf_inliers(query: Photo, gallery: Photo, matches: NDArray[Any], seed: int) -> int:
    """Return how many matches agree on the affine transform that RANSAC finds."""
    if len(matches) <= 3:
        return 0
    _, inliers = measure.ransac(
        (gallery["xy"][matches[:, 1]], query["xy"][matches[:, 0]]),
        AffineTransform,
        min_samples=3,
        residual_threshold=RESIDUAL_PX,
        max_trials=TRIALS,
        rng=seed,
    )
    return 0 if inliers is None else int(inliers.sum())


def delf_recipe(query: Photo, gallery: Photo, dimension: str, seed: int = 0) -> int:
    """Return the inliers of a pair by the whole recipe."""
    return delf_inliers(query, gallery, delf_matches(query, gallery, dimension), seed)
