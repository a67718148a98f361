"""Inliers that are no evidence: overlays on photos, spots, lines, and transforms that no camera makes."""

import numpy as np
import pytest

from lmr.retrieval.verification.evidence import _possible, _spread, counts_as_evidence, is_chance
from lmr.retrieval.verification.verify import Features, Recipe, verify_pairs

WIDE, TALL = np.array([800.0, 600.0], np.float32), np.array([600.0, 800.0], np.float32)


def within(lo, hi, count=40, seed=0):
    return np.random.default_rng(seed).uniform(lo, hi, (count, 2)).astype(np.float32)


def counted(query, gallery, query_frame=WIDE, gallery_frame=WIDE, transform=None):
    return int(counts_as_evidence(query, gallery, query_frame, gallery_frame, transform).sum())


def test_inliers_all_over_two_views_count():
    gallery = within((50, 50), (750, 550))
    query = gallery * 0.7 + np.array([120, 60], np.float32)
    assert counted(query, gallery, transform=np.array([[0.7, 0, 120], [0, 0.7, 60], [0, 0, 1]])) == 40


@pytest.mark.parametrize(
    ("lo", "hi"),
    [((20, 560), (320, 590)), ((600, 570), (780, 595)), ((5, 5), (90, 60)), ((250, 280), (550, 320))],
    ids=["caption", "date stamp", "logo", "watermark in the middle"],
)
def test_what_lies_in_the_same_place_of_both_does_not(lo, hi):
    overlay = within(lo, hi)
    jitter = np.random.default_rng(1).normal(scale=0.5, size=overlay.shape).astype(np.float32)
    assert counted(overlay + jitter, overlay) == 0


def test_a_caption_keeps_its_distance_from_the_corner_of_a_photo_of_another_shape():
    from_right_and_bottom = within((20, 5), (300, 35))
    assert counted(WIDE - from_right_and_bottom, TALL - from_right_and_bottom, WIDE, TALL) == 0


def test_a_frame_around_both_photos_does_not_count():
    rng = np.random.default_rng(0)
    along, depth, side = rng.uniform(0, 1, 80), rng.uniform(0, 0.05, 80), rng.integers(0, 4, 80)
    places = np.where((side % 2 == 0)[:, None], np.stack([along, depth], 1), np.stack([depth, along], 1))
    places = np.where((side > 1)[:, None], 1 - places, places)
    frame = (places * WIDE).astype(np.float32)
    assert counted(frame, frame) == 0


def test_copies_count_all_over():
    copy = within((0, 0), (800, 600), count=100)
    assert counted(copy, copy) == 100


@pytest.mark.parametrize("swapped", [False, True])
def test_a_spot_or_a_thin_line_in_either_photo_does_not(swapped):
    spread, spot = within((50, 50), (750, 550)), within((400, 300), (430, 330))
    line = np.column_stack([np.linspace(100, 700, 40), np.full(40, 200.0)]).astype(np.float32)
    for weak in (spot, line):
        pair = (spread, weak) if swapped else (weak, spread)
        assert counted(*pair) == 0


def test_transforms_that_no_camera_makes():
    gallery = within((50, 50), (750, 550))
    for linear in ([[-1, 0], [0, 1]], [[1, 0], [0, 0.03]], [[0.04, 0], [0, 0.04]], [[1, 1], [1, 1]]):
        transform = np.eye(3)
        transform[:2, :2] = linear
        assert counted(gallery, gallery, transform=transform) == 0
    # Of a homography it is the linear part about the inliers that says so.
    perspective = np.array([[1, 0.1, 5], [0, 1, 0], [2e-4, 1e-4, 1]])
    mapped = np.column_stack([gallery, np.ones(40)]) @ perspective.T
    query = (mapped[:, :2] / mapped[:, 2:]).astype(np.float32)
    assert counted(query, gallery, transform=perspective) == 40


def test_several_features_of_one_place_count_once():
    gallery = np.repeat(within((50, 50), (750, 550), count=20), 3, axis=0)
    query = gallery * np.float32(0.5) + np.float32(100)
    assert counted(query, gallery) <= 20


def test_nothing_of_nothing():
    assert counted(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)) == 0


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photo(xy, descriptors, frame=WIDE):
    offsets = np.array([0, len(xy)])
    shapes = None if frame is None else frame[None]
    return Features(xy=xy.astype(np.float32), descriptors=descriptors, offsets=offsets, frame=shapes)


def test_a_landmark_is_found_behind_a_caption_that_agrees_on_more():
    rng = np.random.default_rng(0)
    caption, landmark = (
        within((20, 560), (320, 595), count=60),
        within((100, 100), (700, 500), count=30, seed=2),
    )
    seen = landmark * np.float32(0.6) + np.array([200, 50], np.float32)
    rows = unit(rng.normal(size=(90, 32)))
    query, gallery = np.concatenate([caption, seen]), np.concatenate([caption, landmark])
    plain = verify_pairs(photo(query, rows, None), photo(gallery, rows, None), np.array([[0, 0]]))
    assert plain.inliers[0] >= 60
    found = verify_pairs(photo(query, rows), photo(gallery, rows), np.array([[0, 0]]))
    assert 27 <= found.inliers[0] <= 30  # but for those that share a place
    assert found.matches[:, 0].min() == 60
    np.testing.assert_allclose(found.transform[0][:2, :2], np.eye(2) * 0.6, atol=1e-2)
    # The caption alone is nothing.
    alone = verify_pairs(photo(caption, rows[:60]), photo(caption, rows[:60]), np.array([[0, 0]]))
    assert alone.inliers.tolist() == [0]
    assert len(alone.matches) == 0
    assert np.isnan(alone.transform).all()


@pytest.mark.parametrize("matches", [50, 300, 1000])
def test_random_matches_fit_no_fundamental_matrix(matches):
    rng = np.random.default_rng(matches)
    rows = unit(rng.normal(size=(matches, 32)))
    recipe = Recipe(model="fundamental", max_trials=500)
    for _ in range(3):
        query, gallery = (photo(rng.uniform((0, 0), WIDE, (matches, 2)), rows, None) for _ in range(2))
        assert verify_pairs(query, gallery, np.array([[0, 0]]), recipe).inliers.tolist() == [0]


def test_chance_counts_what_determines_the_model():
    assert is_chance(7, 7, 7, 0.01)
    assert not is_chance(8, 8, 7, 0.01)
    assert is_chance(8, 8, 7, 1.0)


def test_transforms_and_spreads_are_judged_as_by_singular_values():
    """The closed forms of 2 × 2 matrices against NumPy's decompositions."""
    rng, found = np.random.default_rng(0), set()
    somewhere = within((100, 100), (700, 500))
    for _ in range(400):
        linear = rng.normal(size=(2, 2)) @ np.diag([1, 10.0 ** rng.uniform(-3, 0)])
        linear *= 10.0 ** rng.uniform(-2, 2)
        transform = np.eye(3)
        transform[:2, :2] = linear
        large, small = np.linalg.svd(linear, compute_uv=False)
        wanted = np.linalg.det(linear) > 0 and large <= 30 * small and 1 / 16 <= np.sqrt(large * small) <= 16
        assert _possible(transform.astype(np.float64), somewhere) == wanted
        found.add(bool(wanted))
        xy = (rng.normal(size=(30, 2)) @ linear + 400).astype(np.float32)
        centred = xy.astype(np.float64) - xy.mean(axis=0, dtype=np.float64)
        along, across = np.linalg.svd(centred, compute_uv=False) / np.sqrt(30) / 800
        np.testing.assert_allclose(_spread(xy, np.ones(30, np.bool_), WIDE), (along, across), rtol=1e-6)
    assert found == {True, False}
