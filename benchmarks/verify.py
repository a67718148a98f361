"""Measure spatial verification beside DELF's recipe, OpenCV and PoseLib: pairs a second and core, separation.

    python benchmarks/verify.py [--pairs 400] [--recipe-pairs 80] [--estimators]

Pairs of development photos, half of them of one landmark by photos.csv, half of two. 1000 SIFT features each
(OpenCV; the strongest, at the photo's own size), as RootSIFT (128-d) and projected on their 40 main axes.
Every method runs in this process with one thread, and is charged its processor time, which other work on the
machine disturbs less than the clock. DELF's recipe is that of its match_images.py: SciPy's KD-tree with a
bound of 0.8 and scikit-image's RANSAC, affine, 20 px, 1000 trials; the others have its bound and residual.
"""

import argparse
import csv
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import poselib
from _shared import shared
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage import measure
from skimage.transform import AffineTransform
from threadpoolctl import threadpool_limits

from lmr.retrieval.verification._ransac import estimate
from lmr.retrieval.verification.match import nearest_features, product_size
from lmr.retrieval.verification.verify import (
    DELF_RECIPE,
    Features,
    Recipe,
    _estimate,
    _residuals_px,
    verify_pairs,
)

FEATURES = 1000
BOUND, RESIDUAL_PX, TRIALS = 0.8, 20.0, 1000

Photo = dict[str, NDArray[np.float32]]


def read_photos(folder: Path, per_landmark: int) -> tuple[list[Photo], list[str]]:
    by_landmark = defaultdict(list)
    with (folder / "photos.csv").open() as file:
        for row in csv.DictReader(file):
            if row["landmark"]:
                by_landmark[row["landmark"]].append(folder / row["set"] / f"{row['id']}.jpg")
    sift = cv2.SIFT_create(nfeatures=FEATURES, contrastThreshold=0.01)
    photos, landmarks = [], []
    for landmark in sorted(by_landmark):
        for path in by_landmark[landmark][:per_landmark]:
            grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            points, described = sift.detectAndCompute(grey, None)
            if len(points) < FEATURES:
                continue
            points, described = points[:FEATURES], described[:FEATURES]
            root = np.sqrt(described / described.sum(axis=1, keepdims=True))
            photos.append(
                {
                    "xy": np.array([point.pt for point in points], dtype=np.float32),
                    "scale": np.array([point.size for point in points], dtype=np.float32),
                    "orientation": np.radians([point.angle for point in points]).astype(np.float32),
                    "128": unit(root),
                    "size_px": np.array(grey.shape[::-1], dtype=np.float32),
                }
            )
            landmarks.append(landmark)
    described = np.concatenate([photo["128"] for photo in photos])
    mean = described.mean(axis=0)
    axes = np.linalg.eigh(np.cov((described - mean).T))[1][:, ::-1][:, :40]
    for photo in photos:
        photo["40"] = unit((photo["128"] - mean) @ axes)
    return photos, landmarks


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def choose_pairs(
    landmarks: list[str], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Half of one landmark, half of two, one and the other in turn."""
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    while min(len(pairs[True]), len(pairs[False])) < count // 2:
        a, b = (int(i) for i in rng.choice(len(landmarks), size=2, replace=False))
        pairs[landmarks[a] == landmarks[b]].append((a, b))
    both = [
        pair
        for two in zip(pairs[True][: count // 2], pairs[False][: count // 2], strict=True)
        for pair in two
    ]
    return np.array(both), np.arange(len(both)) % 2 == 0


def gather(photos: list[Photo], dimension: str) -> Features:
    together = {
        key: np.concatenate([photo[key] for photo in photos])
        for key in ("xy", "scale", "orientation", dimension)
    }
    return Features(
        xy=together["xy"],
        scale=together["scale"],
        orientation=together["orientation"],
        descriptors=together[dimension],
        offsets=np.arange(len(photos) + 1) * FEATURES,
    )


def delf_recipe(query: Photo, gallery: Photo, dimension: str) -> int:
    distance, found = cKDTree(gallery[dimension]).query(query[dimension], distance_upper_bound=BOUND)
    asked = np.flatnonzero(np.isfinite(distance))
    if len(asked) <= 3:
        return 0
    _, inliers = measure.ransac(
        (gallery["xy"][found[asked]], query["xy"][asked]),
        AffineTransform,
        min_samples=3,
        residual_threshold=RESIDUAL_PX,
        max_trials=TRIALS,
        rng=0,
    )
    return 0 if inliers is None else int(inliers.sum())


def opencv_plain(query: Photo, gallery: Photo, dimension: str) -> int:
    found = cv2.BFMatcher(cv2.NORM_L2).match(query[dimension], gallery[dimension])
    found = [one for one in found if one.distance < BOUND]
    if len(found) <= 3:
        return 0
    source = gallery["xy"][[one.trainIdx for one in found]]
    target = query["xy"][[one.queryIdx for one in found]]
    settings = {"ransacReprojThreshold": RESIDUAL_PX, "maxIters": TRIALS, "confidence": 0.999}
    return int(cv2.estimateAffine2D(source, target, method=cv2.RANSAC, **settings)[1].sum())


def poselib_plain(query: Photo, gallery: Photo, dimension: str) -> int:
    similarity = query[dimension] @ gallery[dimension].T
    found = similarity.argmax(axis=1)
    asked = np.flatnonzero(2 - 2 * similarity[np.arange(len(found)), found] < BOUND**2)
    if len(asked) <= 4:
        return 0
    options = {"max_reproj_error": RESIDUAL_PX, "max_iterations": TRIALS, "success_prob": 0.999}
    return int(
        poselib.estimate_homography(gallery["xy"][found[asked]], query["xy"][asked], options)[1][
            "num_inliers"
        ]
    )


def separation(inliers: NDArray[Any], same: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of the counts: same landmark against different, ties by half."""
    different = np.sort(inliers[~same])
    below, up_to = (np.searchsorted(different, inliers[same], side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(different))


def seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def measure_ours(
    features: Features, pairs: NDArray[np.int64], recipe: Recipe
) -> tuple[NDArray[np.int32], float]:
    verify_pairs(features, features, pairs[:2], recipe)  # compiles
    taken = []
    for _ in range(5):
        start = time.process_time()
        inliers = verify_pairs(features, features, pairs, recipe).inliers
        taken.append((time.process_time() - start) / len(pairs))
    return inliers, float(np.median(taken))


def measure_plain(
    method: Callable[[Photo, Photo, str], int], photos: list[Photo], pairs: NDArray[np.int64], dimension: str
) -> tuple[NDArray[np.int64], float]:
    method(photos[pairs[0, 0]], photos[pairs[0, 1]], dimension)
    inliers, taken = [], []
    for q, g in pairs:
        start = time.process_time()
        inliers.append(method(photos[q], photos[g], dimension))
        taken.append(time.process_time() - start)
    return np.array(inliers), float(np.median(taken))


def where_the_time_goes(photos: list[Photo], pairs: NDArray[np.int64], dimension: str) -> dict[str, float]:
    """Milliseconds per pair: the product, choosing from it, RANSAC."""
    parts = defaultdict(list)
    product = np.empty(product_size(FEATURES, FEATURES), dtype=np.float32)
    table = product[: FEATURES**2].reshape(FEATURES, FEATURES)
    recipe = DELF_RECIPE
    for q, g in pairs:
        query, gallery = photos[q], photos[g]
        a, b = query[dimension], gallery[dimension]
        match = partial(nearest_features, a, b, product, max_distance=BOUND, max_ratio=None, mutual=False)
        found, similarity = match()
        found = found[np.argsort(-similarity, kind="stable")]
        source = np.ascontiguousarray(gallery["xy"][found[:, 1]].T)
        target = np.ascontiguousarray(query["xy"][found[:, 0]].T)
        residual = np.float32(RESIDUAL_PX)
        ransac = partial(estimate, source, target, 3, residual, recipe.max_trials, recipe.confidence, 0)
        parts["product"].append(1e3 * seconds(partial(np.matmul, b, a.T, out=table), 3))
        parts["matching"].append(1e3 * seconds(match, 3))
        parts["ransac"].append(1e3 * seconds(ransac, 3))
    medians = {name: float(np.median(taken)) for name, taken in parts.items()}
    return {
        "product": medians["product"],
        "choosing": medians["matching"] - medians["product"],
        "ransac": medians["ransac"],
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=400, help="pairs for everything but the slow recipe")
    parser.add_argument("--recipe-pairs", type=int, default=80, help="of them, pairs for DELF's recipe")
    parser.add_argument("--per-landmark", type=int, default=4, help="photos of each landmark")
    parser.add_argument(
        "--estimators", action="store_true", help="also compare estimators on the same matches"
    )
    args = parser.parse_args()
    folder = shared("data/landmarks")
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        photos, landmarks = read_photos(folder, args.per_landmark)
        pairs, same = choose_pairs(landmarks, args.pairs, np.random.default_rng(0))
        some = slice(0, args.recipe_pairs)
        print(
            f"{len(photos)} photos of {len(set(landmarks))} landmarks; {len(pairs)} pairs, half of one each"
        )
        print(f"\n{'':44}pairs/s   ms/pair   AUC of all   AUC of the first {args.recipe_pairs}")
        result: dict[str, Any] = {}

        def line(name: str, inliers: NDArray[Any], taken: float) -> None:
            whole = f"{separation(inliers, same):10.3f}" if len(inliers) == len(pairs) else " " * 10
            first = f"{separation(inliers[some], same[some]):12.3f}"
            print(f"  {name:40}{1 / taken:9.1f}{1e3 * taken:10.2f}   {whole}{first}")

        for dimension in ("40", "128"):
            features = gather(photos, dimension)
            inliers, taken = measure_ours(features, pairs, DELF_RECIPE)
            line(f"lmr, DELF's settings, {dimension}-d", inliers, taken)
            result[f"pairs_per_second_per_core_{dimension}d"] = round(1 / taken, 1)
            if dimension == "40":
                result["auc"], ours_taken = round(separation(inliers[some], same[some]), 4), taken
            better, better_taken = measure_ours(
                features, pairs, replace(DELF_RECIPE, mutual=True, weak_geometry=True)
            )
            line(f"lmr, mutual and weak geometry, {dimension}-d", better, better_taken)
            result[f"auc_mutual_weak_{dimension}d"] = round(separation(better, same), 4)
            for name, method in (("OpenCV", opencv_plain), ("PoseLib, homography", poselib_plain)):
                counts, taken = measure_plain(method, photos, pairs, dimension)
                line(f"{name}, {dimension}-d", counts, taken)
                result[f"{method.__name__}_{dimension}d"] = round(1 / taken, 1)
        counts, taken = measure_plain(delf_recipe, photos, pairs[some], "40")
        line("DELF's recipe, 40-d", counts, taken)
        result["delf_recipe_40d"] = round(1 / taken, 2)
        result["ratio_to_delf_recipe"] = round(taken / ours_taken, 1)
        result["auc_delf_recipe"] = round(separation(counts, same[some]), 4)
        print("\nwhere the time of a pair goes, ms")
        for dimension in ("40", "128"):
            parts = where_the_time_goes(photos, pairs[:40], dimension)
            print(f"  {dimension}-d: " + ", ".join(f"{name} {ms:.2f}" for name, ms in parts.items()))
            result[f"ms_{dimension}d"] = {name: round(ms, 3) for name, ms in parts.items()}
        if args.estimators:
            compare_estimators(photos, pairs, same)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
