"""Measure spatial verification beside DELF's recipe, OpenCV and PoseLib: pairs a second and core, separation.

    python benchmarks/verify.py [--pairs 200] [--recipe-pairs 80] [--contest-pairs 10000] [--estimators]
        [--apart]

Pairs of development photos, half of them of one landmark by photos.csv, half of two. 1000 SIFT features each
(OpenCV; the strongest, at the photo's own size), as RootSIFT (128-d) and projected on their 40 main axes; as
float32, and in bytes as they are stored. Then one task of the contest's size (`_contest_pairs.py`).
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
from _apart import take_apart
from _contest_pairs import contest_shard
from _delf import BOUND, RESIDUAL_PX, TRIALS, delf_recipe
from _estimators import compare_estimators, separation
from _shared import shared
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lmr.features.local.quantise import to_int8
from lmr.retrieval.verification import _whole_numbers as whole_numbers
from lmr.retrieval.verification.verify import DELF_RECIPE, Features, Recipe, verify_pairs

FEATURES = 1000
SEEDS = 5

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


def in_bytes(rows: NDArray[np.float32], dimension: str) -> NDArray[Any]:
    """Return descriptors as they are stored: RootSIFT's in uint8, those of 40 numbers as DELF's in int8."""
    return np.rint(512 * rows).clip(0, 255).astype(np.uint8) if dimension == "128" else to_int8(rows)


def gather(photos: list[Photo], dimension: str, kept: Callable[..., Any] | None = None) -> Features:
    together = {
        key: np.concatenate([photo[key] for photo in photos])
        for key in ("xy", "scale", "orientation", dimension)
    }
    rows = together[dimension]
    return Features(
        xy=together["xy"],
        scale=together["scale"],
        orientation=together["orientation"],
        descriptors=rows if kept is None else kept(rows, dimension),
        offsets=np.arange(len(photos) + 1) * FEATURES,
    )


def framed(features: Features, photos: list[Photo]) -> Features:
    """Return features in the frame of the step: photos of at most 800 px, and inliers must be evidence."""
    sides = np.array([photo["size_px"] for photo in photos], np.float32)
    zoom = np.minimum(1, 800 / sides.max(axis=1)).astype(np.float32)
    xy = features.xy * np.repeat(zoom, FEATURES)[:, None]
    return replace(features, xy=xy, frame=sides * zoom[:, None])


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
    inliers, taken = [], []
    for seed in range(SEEDS):  # small counts depend on the seed, and with them the separation
        start = time.process_time()
        inliers.append(verify_pairs(features, features, pairs, replace(recipe, seed=seed)).inliers)
        taken.append((time.process_time() - start) / len(pairs))
    return np.array(inliers), float(np.median(taken))


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


def by_seed(inliers: NDArray[Any], same: NDArray[np.bool_]) -> list[float]:
    """Return the AUC of each seed's counts."""
    return [round(separation(counts, same), 4) for counts in np.atleast_2d(inliers)]


def product_ms(stored: Photo, dimension: str) -> dict[str, float]:
    """Milliseconds of one product of 1000 × 1000 descriptors, as float32 and as they are kept in bytes."""
    rows, kept = stored[dimension], in_bytes(stored[dimension], dimension)
    table, whole = np.empty((len(rows),) * 2, np.float32), np.empty((len(rows),) * 2, np.int32)
    left, right = whole_numbers.rows(kept), whole_numbers.columns(kept)
    return {
        "float32": 1e3 * seconds(partial(np.matmul, rows, rows.T, out=table), 30),
        "bytes": 1e3 * seconds(partial(whole_numbers.multiply, left, right, whole, kept.dtype), 30),
    }


def contest(photos: list[Photo], landmarks: list[str], dimension: str, kind: str, args: Any) -> Any:
    """Measure one task of the contest, and where its time goes."""
    with contest_shard(photos, landmarks, dimension, kind, args.contest_pairs) as shard:
        found = shard.measure()
    print(
        f"\none task of the contest: {args.contest_pairs} pairs of as many queries, {dimension}-d as {kind}"
    )
    print(f"  results {found['digest']}")
    print(f"  {found['pairs_per_second_per_core']} pairs/s; ms per pair, in another run with clocks:")
    print("  " + ", ".join(f"{name} {ms:.3f}" for name, ms in found["ms"].items()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=200, help="pairs for everything but the slow recipe")
    parser.add_argument("--recipe-pairs", type=int, default=80, help="of them, pairs for DELF's recipe, or 0")
    parser.add_argument("--contest-pairs", type=int, default=10_000, help="pairs of the contest's task, or 0")
    parser.add_argument("--per-landmark", type=int, default=4, help="photos of each landmark")
    parser.add_argument(
        "--estimators", action="store_true", help="also compare estimators on the same matches"
    )
    parser.add_argument(
        "--apart", action="store_true", help="also say which part separates, on the recipe's pairs"
    )
    args = parser.parse_args()
    folder = shared("data/landmarks")
    cv2.setNumThreads(1)
    with threadpool_limits(1):
        photos, landmarks = read_photos(folder, args.per_landmark)
        pairs, same = choose_pairs(landmarks, args.pairs, np.random.default_rng(0))
        some = slice(0, args.recipe_pairs or args.pairs)
        print(
            f"{len(photos)} photos of {len(set(landmarks))} landmarks; {len(pairs)} pairs, half of one each"
        )
        print(f"\n{'':44}pairs/s   ms/pair   AUC of all   AUC of the first {some.stop}")
        result: dict[str, Any] = {}

        def line(name: str, inliers: NDArray[Any], taken: float) -> None:
            all_of_them = inliers.shape[-1] == len(pairs)
            whole = f"{separation(inliers, same):10.3f}" if all_of_them else " " * 10
            areas = by_seed(inliers[..., some], same[some])
            first = f"{np.mean(areas):12.3f}"
            if len(areas) > 1:
                first += f" ({min(areas):.3f} to {max(areas):.3f})"
            print(f"  {name:40}{1 / taken:9.1f}{1e3 * taken:10.2f}   {whole}{first}")

        mutual = replace(DELF_RECIPE, mutual=True, weak_geometry=True)
        for dimension in ("40", "128"):
            kept, floats = gather(photos, dimension, in_bytes), gather(photos, dimension)
            limits = product_ms(photos[0], dimension)
            for name, features, recipe in (
                ("lmr, DELF's settings, bytes", kept, DELF_RECIPE),
                ("lmr, DELF's settings, float32", floats, DELF_RECIPE),
                ("lmr, mutual and weak geometry, bytes", kept, mutual),
                ("lmr, its defaults, bytes", framed(kept, photos), Recipe()),
            ):
                inliers, taken = measure_ours(features, pairs, recipe)
                line(f"{name}, {dimension}-d", inliers, taken)
                key = f"{name.removeprefix('lmr, ')}, {dimension}-d"
                limit = limits["float32" if features is floats else "bytes"]
                result[key] = {
                    "pairs_per_second_per_core": round(1 / taken, 1),
                    "share_of_the_product": round(limit / (1e3 * taken), 3),
                    "auc": round(separation(inliers[..., some], same[some]), 4),
                    "auc_by_seed": by_seed(inliers[..., some], same[some]),
                }
                if features is floats:
                    ours_taken = taken
            for name, method in (("OpenCV", opencv_plain), ("PoseLib, homography", poselib_plain)):
                counts, taken = measure_plain(method, photos, pairs, dimension)
                line(f"{name}, {dimension}-d", counts, taken)
                result[f"{method.__name__}_{dimension}d"] = round(1 / taken, 1)
            told = ", ".join(f"{form} {ms:.3f}" for form, ms in limits.items())
            print(f"  one product of 1000 × 1000, ms: {told}")
            result[f"product_ms_{dimension}d"] = {form: round(ms, 3) for form, ms in limits.items()}
            if args.recipe_pairs:
                runs = [
                    measure_plain(partial(delf_recipe, seed=seed), photos, pairs[some], dimension)
                    for seed in range(SEEDS)
                ]
                counts, taken = np.array([found for found, _ in runs]), float(np.median([t for _, t in runs]))
                line(f"DELF's recipe, {dimension}-d", counts, taken)
                result[f"delf_recipe, {dimension}-d"] = {
                    "pairs_per_second_per_core": round(1 / taken, 2),
                    "ratio": round(taken / ours_taken, 1),
                    "auc": round(separation(counts, same[some]), 4),
                    "auc_by_seed": by_seed(counts, same[some]),
                }
        for dimension, kind in (("128", "uint8"), ("40", "int8"), ("40", "float16")):
            if args.contest_pairs:
                result[f"contest_{dimension}d_{kind}"] = contest(photos, landmarks, dimension, kind, args)
        if args.estimators:
            compare_estimators(photos, pairs, same)
        if args.apart:
            take_apart(photos, pairs[some], same[some])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
