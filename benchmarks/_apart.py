"""Verification taken apart: whose matches, whose estimator and which bound separate landmarks.

Every line has the same pairs and five seeds. The inliers of lmr are those of its step of geometry alone, with
DELF's settings: no frames, so that nothing is left out as no evidence.
"""

from dataclasses import replace

import numpy as np
from _delf import BOUND, delf_inliers, delf_matches
from _estimators import separation
from numpy.typing import NDArray

from lmr.retrieval.verification.match import nearest_features, product_size
from lmr.retrieval.verification.verify import DELF_RECIPE, Recipe, _agree

__all__ = ["take_apart"]

Photo = dict[str, NDArray[np.float32]]
Matches = list[tuple[NDArray[np.int32], NDArray[np.float64]]]  # rows of both photos, and the similarity
SEEDS = 5


def take_apart(photos: list[Photo], pairs: NDArray[np.int64], same: NDArray[np.bool_]) -> None:
    """Print how well each part separates pairs of one landmark from pairs of two."""
    bounds = {"40": BOUND, "128": BOUND}
    passed = {dimension: _nearest(photos, pairs, dimension, None) for dimension in bounds}
    share = np.mean([_distance(similarity) < BOUND for _, similarity in passed["40"]])
    alike = float(np.quantile(np.concatenate([_distance(s) for _, s in passed["128"]]), share))
    print(f"\n{share:.0%} of the matches at 40-d are nearer than {BOUND}; at 128-d as many as {alike:.3f}")
    print(f"{'':46}AUC by five seeds           inliers of the same, of others (medians)")
    for dimension, bound in (("40", BOUND), ("128", BOUND), ("128", alike)):
        ours = _nearest(photos, pairs, dimension, bound)
        theirs = _kd_tree(photos, pairs, dimension, bound)
        equal = sum(np.array_equal(a[0], b[0]) for a, b in zip(ours, theirs, strict=True))
        counts = np.array([len(found) for found, _ in ours])
        means = counts[same].mean(), counts[~same].mean()
        print(f" {dimension}-d, bound {bound:.3f}: the same matches by KD-tree in {equal} of {len(pairs)}")
        print(f"  {means[0]:.0f} matches of the same, {means[1]:.0f} of others", end="; ")
        print(f"their number alone: AUC {separation(counts, same):.3f}")
        for name, matches, change in (
            ("lmr's matches, lmr's RANSAC", ours, {}),
            ("the recipe's matches, lmr's RANSAC", theirs, {}),
            ("lmr's matches, lmr's RANSAC, 20,000 trials", ours, {"max_trials": 20_000}),
            ("lmr's matches, lmr's RANSAC, 8 px", ours, {"max_residual_px": 8.0}),
        ):
            recipe: Recipe = replace(DELF_RECIPE, **change)
            _tell(name, [_ours(photos, pairs, matches, recipe, seed) for seed in range(SEEDS)], same)
        if bound != BOUND:  # with DELF's own bound it is the recipe, which has its line already
            name = "lmr's matches, scikit-image's RANSAC"
            _tell(name, [_scikit(photos, pairs, ours, seed) for seed in range(SEEDS)], same)


def _nearest(photos: list[Photo], pairs: NDArray[np.int64], dimension: str, bound: float | None) -> Matches:
    largest = max(len(photo["xy"]) for photo in photos)
    product = np.empty(product_size(largest, largest), np.float32)
    return [
        nearest_features(
            photos[q][dimension],
            photos[g][dimension],
            product,
            max_distance=bound,
            max_ratio=None,
            mutual=False,
        )
        for q, g in pairs
    ]


def _kd_tree(photos: list[Photo], pairs: NDArray[np.int64], dimension: str, bound: float) -> Matches:
    found = []
    for q, g in pairs:
        matches = delf_matches(photos[q], photos[g], dimension, bound)
        rows = photos[q][dimension][matches[:, 0]], photos[g][dimension][matches[:, 1]]
        found.append((matches, np.einsum("nd,nd->n", *rows).astype(np.float64)))
    return found


def _distance(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(2 - 2 * similarity, 0))


def _ours(
    photos: list[Photo], pairs: NDArray[np.int64], matches: Matches, recipe: Recipe, seed: int
) -> list[int]:
    seeded = replace(recipe, seed=seed)
    return [
        len(_agree(photos[q]["xy"], photos[g]["xy"], *found, seeded)[1])
        if len(found[0]) >= seeded.needed
        else 0
        for (q, g), found in zip(pairs, matches, strict=True)
    ]


def _scikit(photos: list[Photo], pairs: NDArray[np.int64], matches: Matches, seed: int) -> list[int]:
    return [
        delf_inliers(photos[q], photos[g], found, seed)
        for (q, g), (found, _) in zip(pairs, matches, strict=True)
    ]


def _tell(name: str, by_seed: list[list[int]], same: NDArray[np.bool_]) -> None:
    counts = np.array(by_seed)
    areas = [separation(one, same) for one in counts]
    print(
        f"  {name:44}{np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f})"
        f"{np.median(counts[:, same]):12.0f}{np.median(counts[:, ~same]):6.0f}",
        flush=True,
    )
