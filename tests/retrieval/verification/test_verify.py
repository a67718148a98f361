"""Verification: the recipe's counts, the planted transform, independence of company, and bad input."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError, SettingsError
from lmr.retrieval.verification.verify import (
    DELF_RECIPE,
    Features,
    Model,
    Recipe,
    Verification,
    verify_pairs,
)
from tests.support.shared import shared

MODELS: list[Model] = ["affine", "similarity", "homography", "fundamental"]
ONE_PAIR = np.array([[0, 0]])


def descriptors(n: int, seed: int, d: int = 40) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photo(xy: NDArray[Any], rows: NDArray[np.float32], **more: NDArray[np.float32]) -> Features:
    return Features(xy=xy.astype(np.float32), descriptors=rows, offsets=np.array([0, len(xy)]), **more)


def delf(**settings: Any) -> Recipe:
    """DELF's recipe with some of it changed."""
    return replace(DELF_RECIPE, **settings)


def places(n: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0, 800, size=(n, 2))


def planted(model: Model, n: int = 300, agreeing: int = 120, seed: int = 0) -> tuple[Features, Features, Any]:
    """A pair whose first `agreeing` matches follow one transform of the given kind, within a pixel or so."""
    rng = np.random.default_rng(seed)
    rows = descriptors(n, seed)
    on_gallery, on_query = places(n, seed + 1), places(n, seed + 2)
    maps: dict[str, Any] = {
        "affine": [[0.9, 0.3, 20], [-0.2, 1.1, 60], [0, 0, 1]],
        "similarity": [[0.8, -0.4, 90], [0.4, 0.8, -30], [0, 0, 1]],
        "homography": [[0.9, 0.1, 10], [0.05, 1.1, -20], [2e-4, 1e-4, 1]],
    }
    if model == "fundamental":
        # A stereo pair: x moves by a disparity of its own, y stays.
        moved = on_gallery + np.column_stack([rng.uniform(20, 200, size=n), np.zeros(n)])
        wanted = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) / np.sqrt(2)
    else:
        wanted = np.array(maps[model])
        homogeneous = np.column_stack([on_gallery, np.ones(n)]) @ wanted.T
        moved = homogeneous[:, :2] / homogeneous[:, 2:]
    on_query[:agreeing] = moved[:agreeing] + rng.normal(scale=0.3, size=(agreeing, 2))
    return photo(on_query, rows), photo(on_gallery, rows), wanted


def test_putative_counts_and_inliers_hold_against_the_recipe() -> None:
    """Per pair: each seed at least the recipe's least less 3; the median at least its less 5 %."""
    folder = shared("golden/verification")
    golden, facts = (
        np.load(folder / "features_and_matches.npz"),
        json.loads((folder / "pairs.json").read_text()),
    )
    names = sorted({pair[side] for pair in facts["pairs"] for side in ("image_1", "image_2")})
    xy = [np.ascontiguousarray(golden[f"loc/{name}"][:, ::-1]) for name in names]
    photos = Features(
        xy=np.concatenate(xy),
        descriptors=np.concatenate([golden[f"des/{name}"] for name in names]),
        offsets=np.cumsum([0] + [len(rows) for rows in xy]),
    )
    pairs = np.array(
        [[names.index(pair["image_2"]), names.index(pair["image_1"])] for pair in facts["pairs"]]
    )
    for name, config in facts["configs"].items():
        runs = [
            verify_pairs(
                photos,
                photos,
                pairs,
                delf(
                    max_distance=config["distance_upper_bound"],
                    max_residual_px=config["residual_threshold"],
                    seed=seed,
                ),
            )
            for seed in range(7)
        ]
        inliers = np.array([run.inliers for run in runs])
        expected = {
            key: np.array([pair[name][key] for pair in facts["pairs"]])
            for key in ("min", "median", "putative")
        }
        np.testing.assert_array_equal(runs[0].tentative, expected["putative"])
        assert (inliers >= expected["min"] - 3).all()
        assert (np.median(inliers, axis=0) >= 0.95 * expected["median"]).all()


def test_edge_cases_of_the_recipe() -> None:
    folder = shared("golden/verification")
    golden, facts = (
        np.load(folder / "features_and_matches.npz"),
        json.loads((folder / "pairs.json").read_text()),
    )
    recipe = delf(max_distance=0.9, max_residual_px=10)
    for case in facts["edge_cases"]:
        xy, rows = golden[f"loc/{case['image']}"], golden[f"des/{case['image']}"]
        first, second = (photo(xy[: case[n]], rows[: case[n]]) for n in ("n1", "n2"))
        found = verify_pairs(second, first, ONE_PAIR, recipe)
        assert (found.tentative[0], found.inliers[0]) == (case["putative"], case["inliers"]), case["name"]


@pytest.mark.parametrize("model", MODELS)
def test_finds_the_planted_transform(model: Model) -> None:
    query, gallery, wanted = planted(model)
    found = verify_pairs(query, gallery, ONE_PAIR, delf(model=model, max_residual_px=3))
    assert found.tentative.tolist() == [300]
    planted_found = (found.matches[:, 0] < 120).sum()
    assert planted_found >= 118
    # By chance an epipolar line of 6 px passes near more of the other 180 than a place does.
    assert found.inliers[0] - planted_found <= (12 if model == "fundamental" else 2)
    transform = found.transform[0] / (
        np.linalg.norm(found.transform[0]) if model == "fundamental" else found.transform[0, 2, 2]
    )
    if model == "fundamental":
        transform = transform * np.sign((transform * wanted).sum())
        assert (transform * wanted).sum() > 0.999
    else:
        corners = np.array([[0, 0, 1], [800, 0, 1], [0, 800, 1], [800, 800, 1]])
        here, there = corners @ transform.T, corners @ wanted.T
        np.testing.assert_allclose(here[:, :2] / here[:, 2:], there[:, :2] / there[:, 2:], atol=2)


@pytest.mark.parametrize("model", MODELS)
def test_the_inliers_are_those_of_the_returned_transform(model: Model) -> None:
    query, gallery, _ = planted(model, seed=3)
    found = verify_pairs(query, gallery, ONE_PAIR, delf(model=model, max_residual_px=4))
    m = found.transform[0].astype(np.float64)
    g, q = (np.column_stack([side.xy.astype(np.float64), np.ones(300)]) for side in (gallery, query))
    mapped = g @ m.T
    if model == "fundamental":
        back = q @ m
        residual = np.abs((q * mapped).sum(1)) / np.sqrt(
            (mapped[:, :2] ** 2).sum(1) + (back[:, :2] ** 2).sum(1)
        )
    else:
        residual = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - q[:, :2], axis=1)
    # Here feature i matches feature i.
    assert (
        found.matches[:, 0].tolist() == found.matches[:, 1].tolist() == np.flatnonzero(residual < 4).tolist()
    )


def several(seed: int, sizes: list[int], d: int = 8) -> Features:
    """Photos of few, often confusable features, some of them unusable."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    rows = descriptors(12, 99, d)[rng.integers(0, 12, n)] + rng.normal(scale=0.05, size=(n, d))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[rng.random(n) < 0.05] = np.nan
    return Features(
        xy=rng.uniform(0, 300, size=(n, 2)).astype(np.float32),
        descriptors=rows,
        offsets=np.cumsum([0, *sizes]),
        scale=rng.uniform(1, 20, size=n).astype(np.float32),
        orientation=rng.uniform(0, 6, size=n).astype(np.float32),
    )


def rows_of(found: Verification, i: int) -> tuple[Any, ...]:
    span = slice(found.offsets[i], found.offsets[i + 1])
    return (
        int(found.inliers[i]),
        int(found.tentative[i]),
        found.transform[i].tobytes(),
        found.matches[span].tolist(),
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(0, 60), min_size=2, max_size=5),
    model=st.sampled_from(MODELS),
    weak_geometry=st.booleans(),
    mutual=st.booleans(),
)
def test_a_pair_does_not_depend_on_its_company(
    seed: int, sizes: list[int], model: Model, weak_geometry: bool, mutual: bool
) -> None:
    """All at once, in another order, and each alone with only its two photos: the same to the last bit."""
    query, gallery = several(seed, sizes), several(seed + 1, sizes[::-1])
    recipe = delf(model=model, weak_geometry=weak_geometry, mutual=mutual, max_trials=200)
    pairs = np.array([(q, g) for q in range(len(sizes)) for g in range(len(sizes))])
    together = verify_pairs(query, gallery, pairs, recipe)
    order = np.random.default_rng(seed).permutation(len(pairs))
    shuffled = verify_pairs(query, gallery, pairs[order], recipe)
    for place, i in enumerate(order):
        assert rows_of(shuffled, place) == rows_of(together, i)
    for i, (q, g) in enumerate(pairs[:6]):
        alone = verify_pairs(cut(query, q), cut(gallery, g), ONE_PAIR, recipe)
        assert rows_of(alone, 0) == rows_of(together, i)


def cut(features: Features, i: int) -> Features:
    span = slice(features.offsets[i], features.offsets[i + 1])
    assert features.scale is not None
    assert features.orientation is not None
    return photo(
        features.xy[span],
        features.descriptors[span],
        scale=features.scale[span],
        orientation=features.orientation[span],
    )


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", range(9))
def test_few_features(model: Model, n: int) -> None:
    """All agree once there is one more than a sample needs, and min_tentative is reached."""
    query, gallery, _ = planted(model, n=n, agreeing=n)
    found = verify_pairs(query, gallery, ONE_PAIR, delf(model=model))
    enough = {"affine": 4, "similarity": 4, "homography": 5, "fundamental": 8}[model]
    assert found.tentative.tolist() == [n]
    assert found.inliers.tolist() == [n if n >= enough else 0]
    assert np.isnan(found.transform).all() == (n < enough)
    assert found.offsets.tolist() == [0, len(found.matches)]


@pytest.mark.parametrize("model", MODELS)
def test_identical_photos_agree_entirely(model: Model) -> None:
    same = photo(places(200, 4), descriptors(200, 5))
    found = verify_pairs(same, same, ONE_PAIR, delf(model=model))
    assert found.inliers.tolist() == [200]


def in_one_place(n: int) -> NDArray[np.float64]:
    return np.full((n, 2), 100.0)


def on_a_line(n: int) -> NDArray[np.float64]:
    return np.arange(n)[:, None] * [2.0, 1.0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("side", ["query", "gallery", "both"])
def test_features_in_one_place_are_no_evidence(model: Model, side: str) -> None:
    rows, xy = descriptors(100, 0), places(100, 1)
    query = photo(in_one_place(100) if side != "gallery" else xy, rows)
    gallery = photo(in_one_place(100) if side != "query" else xy, rows)
    assert verify_pairs(query, gallery, ONE_PAIR, delf(model=model)).inliers.tolist() == [0]


@pytest.mark.parametrize(
    ("model", "inliers"), [("affine", 0), ("similarity", 100), ("homography", 0), ("fundamental", 0)]
)
def test_features_on_one_line_determine_a_similarity_only(model: Model, inliers: int) -> None:
    line = photo(on_a_line(100), descriptors(100, 0))
    assert verify_pairs(line, line, ONE_PAIR, delf(model=model)).inliers.tolist() == [inliers]


@pytest.mark.parametrize("model", MODELS)
def test_one_texture_everywhere_is_no_evidence(model: Model) -> None:
    """Each feature equals each: all match the first of the gallery, and that decides nothing."""
    rows = np.repeat(descriptors(1, 0), 1500, axis=0)
    found = verify_pairs(
        photo(places(1500, 1), rows), photo(places(1500, 2), rows), ONE_PAIR, delf(model=model)
    )
    assert (found.tentative[0], found.inliers[0]) == (1500, 0)


def test_unusable_features_are_passed_over_and_the_others_keep_their_numbers() -> None:
    query, gallery, _ = planted("affine")
    clean = verify_pairs(query, gallery, ONE_PAIR, delf(max_residual_px=3))
    rows, xy = query.descriptors.copy(), gallery.xy.copy()
    rows[5], rows[7], xy[9] = np.nan, 0, np.nan
    found = verify_pairs(
        photo(query.xy, rows), photo(xy, gallery.descriptors), ONE_PAIR, delf(max_residual_px=3)
    )
    assert found.tentative.tolist() == [297]
    lost = {5, 7, 9}
    assert set(found.matches[:, 0]) == set(clean.matches[:, 0]) - lost
    assert (found.matches[:, 0] == found.matches[:, 1]).all()


def test_weak_geometry_keeps_the_common_zoom_and_turn() -> None:
    """With 8 % of true matches RANSAC alone does not see them; their common zoom and turn show them."""
    rng = np.random.default_rng(0)
    n, true = 500, 40
    query, gallery, _ = planted("similarity", n=n, agreeing=true)
    scale, turn = np.exp(rng.uniform(0, 3, size=(2, n))), rng.uniform(0, 2 * np.pi, size=(2, n))
    scale[0, :true], turn[0, :true] = 2 * scale[1, :true], turn[1, :true] + 6
    with_both = [
        photo(side.xy, side.descriptors, scale=s.astype(np.float32), orientation=t.astype(np.float32))
        for side, s, t in zip((query, gallery), scale, turn, strict=True)
    ]
    settings = {"max_residual_px": 3.0, "max_trials": 30}
    without = verify_pairs(*with_both, ONE_PAIR, delf(**settings))
    found = verify_pairs(*with_both, ONE_PAIR, delf(**settings, weak_geometry=True))
    assert without.inliers[0] < 20
    assert found.inliers[0] >= 38
    assert found.tentative[0] == without.tentative[0] == n


def test_early_exit_below_min_tentative() -> None:
    query, gallery, _ = planted("affine", n=100, agreeing=100)
    assert verify_pairs(query, gallery, ONE_PAIR, delf(min_tentative=101)).inliers.tolist() == [0]
    assert verify_pairs(query, gallery, ONE_PAIR, delf(min_tentative=100)).inliers.tolist() == [100]


def test_no_pairs() -> None:
    query, gallery, _ = planted("affine")
    found = verify_pairs(query, gallery, np.empty((0, 2), dtype=np.int64))
    assert (found.inliers.shape, found.transform.shape, found.matches.shape) == ((0,), (0, 3, 3), (0, 2))
    assert found.offsets.tolist() == [0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_distance": 0.0},
        {"max_ratio": -1.0},
        {"model": "projective"},
        {"max_residual_px": 0.0},
        {"max_residual_px": float("nan")},
        {"min_tentative": -1},
        {"max_trials": 0},
        {"confidence": 1.0},
        {"seed": -1},
    ],
)
def test_refuses_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))} is out of range"):
        delf(**wrong)


def test_refuses_input_that_does_not_fit() -> None:
    query, gallery, _ = planted("affine", n=10, agreeing=10)
    with pytest.raises(LmrError, match="do not fit"):
        verify_pairs(query, photo(gallery.xy, descriptors(10, 0, d=128)), ONE_PAIR)
    for pairs in ([[0, 1]], [[-1, 0]]):
        with pytest.raises(LmrError, match="names a photo that is not there"):
            verify_pairs(query, gallery, np.array(pairs))
    with pytest.raises(LmrError, match="not rows of"):
        verify_pairs(query, gallery, np.array([0, 0]))
    with pytest.raises(LmrError, match="weak_geometry needs scales"):
        verify_pairs(query, gallery, ONE_PAIR, delf(weak_geometry=True))
    with pytest.raises(LmrError, match="do not fit together"):
        photo(gallery.xy, gallery.descriptors, scale=np.ones(3, dtype=np.float32))
    with pytest.raises(LmrError, match="do not divide them"):
        Features(xy=gallery.xy, descriptors=gallery.descriptors, offsets=np.array([0, 9]))
