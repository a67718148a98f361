"""Estimators of geometry on the same matches: ours, OpenCV's and PoseLib's."""

import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from lmr.retrieval.verification.match import nearest_features, product_size
from lmr.retrieval.verification.verify import DELF_RECIPE, _estimate, _residuals_px

__all__ = ["compare_estimators", "separation"]

FEATURES, BOUND, TRIALS = 1000, 0.8, 1000

Photo = dict[str, NDArray[np.float32]]


def separation(inliers: NDArray[Any], same: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of the counts: same landmark against different, ties by half.

    Of several counts (seeds, pairs) the mean of the areas.
    """
    if inliers.ndim == 2:
        return float(np.mean([separation(one, same) for one in inliers]))
    different = np.sort(inliers[~same])
    below, up_to = (np.searchsorted(different, inliers[same], side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(different))


def compare_estimators(photos: list[Photo], pairs: NDArray[np.int64], same: NDArray[np.bool_]) -> None:
    """Geometry alone, on the same matches in the same order: ours, OpenCV's and PoseLib's estimators."""

    def usac(find: Any, residual: float, *, prosac: bool, magsac: bool) -> Any:
        def run(source: NDArray[np.float32], target: NDArray[np.float32]) -> Any:
            options = cv2.UsacParams()
            options.threshold, options.maxIterations, options.confidence = residual, TRIALS, 0.999
            options.randomGeneratorState, options.loIterations, options.loSampleSize = 0, 10, 14
            options.sampler = cv2.SAMPLING_PROSAC if prosac else cv2.SAMPLING_UNIFORM
            options.score = cv2.SCORE_METHOD_MAGSAC if magsac else cv2.SCORE_METHOD_MSAC
            options.loMethod = cv2.LOCAL_OPTIM_SIGMA if magsac else cv2.LOCAL_OPTIM_INNER_LO
            return find(source, target, options)[0]

        return run

    def ours(model: Any, residual: float, trials: int) -> Any:
        recipe = replace(DELF_RECIPE, model=model, max_residual_px=residual, max_trials=trials)
        return lambda source, target: _estimate(source, target, recipe)

    def pose(find: Any, option: str, residual: float) -> Any:
        options = {option: residual, "max_iterations": TRIALS, "min_iterations": 100, "success_prob": 0.999}
        return lambda source, target: find(source, target, {**options, "progressive_sampling": True})[0]

    def plain(source: NDArray[np.float32], target: NDArray[np.float32]) -> Any:
        return cv2.estimateAffine2D(
            source, target, method=cv2.RANSAC, ransacReprojThreshold=20, maxIters=TRIALS
        )[0]

    estimators: list[tuple[Any, str, float, Any]] = [
        ("affine", "lmr, 1000 trials", 20, ours("affine", 20, 1000)),
        ("affine", "lmr, 2000 trials", 20, ours("affine", 20, 2000)),
        ("affine", "OpenCV RANSAC", 20, plain),
        ("affine", "OpenCV USAC PROSAC", 20, usac(cv2.estimateAffine2D, 20, prosac=True, magsac=False)),
        ("similarity", "lmr", 20, ours("similarity", 20, 1000)),
    ]
    for model, find, option, residual in (
        ("homography", (cv2.findHomography, poselib.estimate_homography), "max_reproj_error", 8),
        ("fundamental", (cv2.findFundamentalMat, poselib.estimate_fundamental), "max_epipolar_error", 3),
    ):
        estimators += [
            (
                model,
                "OpenCV USAC PROSAC (lmr's)",
                residual,
                usac(find[0], residual, prosac=True, magsac=False),
            ),
            (model, "OpenCV USAC MAGSAC", residual, usac(find[0], residual, prosac=False, magsac=True)),
            (model, "PoseLib PROSAC", residual, pose(find[1], option, residual)),
        ]
    product = np.empty(product_size(FEATURES, FEATURES), dtype=np.float32)
    matches = []
    for q, g in pairs:
        found, similarity = nearest_features(
            photos[q]["40"], photos[g]["40"], product, max_distance=BOUND, max_ratio=None, mutual=False
        )
        found = found[np.argsort(-similarity, kind="stable")]
        matches.append((photos[g]["xy"][found[:, 1]], photos[q]["xy"][found[:, 0]]))
    print("\nestimators on the same matches            ms/pair  inliers of the same   of others    AUC")
    for model, name, residual, find in estimators:
        counts, taken = [], []
        find(*matches[0])
        for source, target in matches:
            start = time.process_time()
            found = find(source, target)
            taken.append(time.process_time() - start)
            whole = np.full((3, 3), np.nan)
            if found is not None and len(found) in (2, 3):
                whole[2] = 0, 0, 1
                whole[: len(found)] = found
            counts.append(
                int((_residuals_px(whole.astype(np.float32), source, target, model) < residual).sum())
            )
        count = np.array(counts)
        print(
            f"  {model:12}{name:28}{1e3 * np.median(taken):8.2f}{count[same].mean():16.1f}"
            f"{count[~same].mean():14.1f}{separation(count, same):9.3f}"
        )
