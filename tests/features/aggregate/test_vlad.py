"""VLAD: against its definition written out, and what regions and many photos have in common with one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.features.aggregate import vlad as module
from lmr.features.aggregate.vlad import Vocabulary, train_vocabulary, vlad, vlad_photos, vlad_regions
from lmr.features.regions import rmac_boxes


def features(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.abs(np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def small_vocabulary(words: int = 5, dimension: int = 7) -> Vocabulary:
    return train_vocabulary(features(600), words, 0, dimension=dimension)


def by_definition(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """VLAD as the papers write it, one feature at a time."""
    sums = np.zeros(vocabulary.words.shape)
    for x in descriptors.astype(np.float64):
        y = (x - vocabulary.mean) @ vocabulary.projection
        offsets = y - vocabulary.words
        distances = np.linalg.norm(offsets, axis=1)
        nearest = int(np.argmin(distances))
        sums[nearest] += offsets[nearest] / distances[nearest]
    rooted = np.sign(sums) * np.sqrt(np.abs(sums))
    return (rooted / max(np.linalg.norm(rooted), 1e-30)).ravel()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(0, 99))
def test_is_vlad(n: int, seed: int) -> None:
    vocabulary = small_vocabulary()
    descriptors = features(n, seed=seed)
    vector = vlad(descriptors, vocabulary)
    assert vector.shape == (vocabulary.dimension,) == (35,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, by_definition(descriptors, vocabulary), atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_many_photos_equal_one_by_one(counts: list[int], rows_at_once: int) -> None:
    vocabulary = small_vocabulary()
    descriptors = features(sum(counts))
    before, module.ROWS_AT_ONCE = module.ROWS_AT_ONCE, rows_at_once
    try:
        together = vlad_photos(descriptors, np.array(counts, np.int64), vocabulary)
    finally:
        module.ROWS_AT_ONCE = before
    assert together.shape == (len(counts), vocabulary.dimension)
    parts = np.split(descriptors, np.cumsum(counts)[:-1]) if counts else []
    for row, part in zip(together, parts, strict=True):
        # The root makes much of rounding near zero.
        np.testing.assert_allclose(row, vlad(part, vocabulary), atol=2e-3)
        np.testing.assert_allclose(np.linalg.norm(row), len(part) > 0, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 80), st.integers(20, 120), st.integers(20, 120))
def test_a_region_is_the_vlad_of_the_features_inside(n: int, width: int, height: int) -> None:
    vocabulary = small_vocabulary()
    rng = np.random.default_rng(n)
    xy = (rng.uniform(0, 1, (n, 2)) * [width, height] - 0.5).astype(np.float32)
    descriptors = features(n, seed=n)
    boxes = rmac_boxes(width, height)
    regions = vlad_regions(xy, descriptors, vocabulary, boxes)
    assert regions.shape == (len(boxes), vocabulary.dimension)
    assert regions.dtype == np.float32
    for region, (left, top, right, bottom) in zip(regions, boxes, strict=True):
        x, y = xy.T + 0.5
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        np.testing.assert_allclose(region, vlad(descriptors[inside], vocabulary), atol=2e-3)


def test_edges_of_a_box_count_once() -> None:
    # Two boxes side by side; the pixels left and right of their border, by the places of their centres.
    vocabulary = small_vocabulary()
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], np.float32)
    descriptors = features(2)
    regions = vlad_regions(np.array([[9, 5], [10, 5]], np.float32), descriptors, vocabulary, boxes)
    for region, descriptor in zip(regions, descriptors, strict=True):
        np.testing.assert_allclose(region, vlad(descriptor[None], vocabulary), atol=2e-3)


def test_order_of_features_does_not_matter() -> None:
    vocabulary, descriptors = small_vocabulary(), features(50)
    np.testing.assert_allclose(
        vlad(descriptors, vocabulary), vlad(descriptors[::-1].copy(), vocabulary), atol=2e-3
    )


def test_features_without_descriptor_count_for_nothing() -> None:
    vocabulary, descriptors = small_vocabulary(), features(30)
    with_zeros = np.concatenate([descriptors, np.zeros((4, 12), np.float32)])
    np.testing.assert_allclose(vlad(with_zeros, vocabulary), vlad(descriptors, vocabulary), atol=2e-3)
    np.testing.assert_array_equal(vlad(with_zeros[30:], vocabulary), np.zeros(vocabulary.dimension))


def test_words_are_where_the_features_are() -> None:
    rng = np.random.default_rng(0)
    centres = features(4, 16)
    rows = np.repeat(centres, 50, axis=0) + 0.02 * rng.standard_normal((200, 16)).astype(np.float32)
    # More words than centres, or k-means may leave two centres to one word.
    # Three coordinates hold four centres; further ones would be the noise, whitened.
    vocabulary = train_vocabulary(rows, 20, 0, dimension=3)
    projected = (centres - vocabulary.mean) @ vocabulary.projection
    distances = np.linalg.norm(projected[:, None] - vocabulary.words[None], axis=2)
    between = np.linalg.norm(projected[:, None] - projected[None], axis=2)
    assert distances.min(axis=1).max() < 0.3 * between[~np.eye(4, dtype=bool)].min()


def test_the_seed_decides() -> None:
    sample = features(3000)
    first, same, other = (train_vocabulary(sample, 2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.words, same.words)
    np.testing.assert_array_equal(first.projection, same.projection)
    assert not np.array_equal(first.words, other.words)


def test_zero_rows_are_not_learned_from() -> None:
    sample = features(200)
    padded = np.concatenate([sample, np.zeros((50, 12), np.float32)])
    np.testing.assert_array_equal(train_vocabulary(sample, 3, 0).words, train_vocabulary(padded, 3, 0).words)


def test_too_few_features_to_learn_from() -> None:
    with pytest.raises(LmrError, match="5 visual words cannot be learned from 4"):
        train_vocabulary(features(4), 5, 0)


def test_counts_must_agree() -> None:
    with pytest.raises(LmrError, match="do not agree"):
        vlad_photos(features(5), np.array([2, 2]), small_vocabulary())
