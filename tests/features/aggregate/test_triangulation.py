"""Triangulation embedding: against its definition written out, and what regions and photos have in common."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.features.aggregate.triangulation import (
    Vocabulary,
    train_vocabulary,
    triangulate_photos,
    triangulate_regions,
)
from lmr.features.regions import rmac_boxes


def features(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.abs(np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def small_vocabulary() -> Vocabulary:
    return train_vocabulary(features(600), 4, 0, dimension=5)


def by_definition(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return the vector as the paper writes it, one feature at a time."""
    total = np.zeros(vocabulary.dimension)
    for x in descriptors.astype(np.float64):
        offsets = (x - vocabulary.mean) @ vocabulary.projection - vocabulary.words
        directions = offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
        total += (directions.ravel() - vocabulary.embedded_mean) @ vocabulary.embedded_projection
    rooted = np.sign(total) * np.sqrt(np.abs(total))
    return rooted / max(np.linalg.norm(rooted), 1e-30)


def one(descriptors: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    return triangulate_photos(descriptors, np.array([len(descriptors)]), vocabulary)[0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(1, 99))
def test_is_the_triangulation_embedding(n: int, seed: int) -> None:
    vocabulary = small_vocabulary()
    descriptors = features(n, seed=seed)
    vector = one(descriptors, vocabulary)
    assert vector.shape == (vocabulary.dimension,) == (20,)
    assert vector.dtype == np.float32
    # The root makes much of rounding near zero.
    np.testing.assert_allclose(vector, by_definition(descriptors, vocabulary), atol=5e-3)


def test_the_sample_itself_is_whitened() -> None:
    vocabulary, sample = small_vocabulary(), features(600)
    reduced = (sample - vocabulary.mean) @ vocabulary.projection
    offsets = reduced[:, None] - vocabulary.words
    directions = (offsets / np.linalg.norm(offsets, axis=2, keepdims=True)).reshape(600, -1)
    white = (directions - vocabulary.embedded_mean) @ vocabulary.embedded_projection
    np.testing.assert_allclose(white.T @ white / 600, np.eye(20), atol=0.02)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12))
def test_many_photos_equal_one_by_one(counts: list[int]) -> None:
    vocabulary, descriptors = small_vocabulary(), features(sum(counts), seed=1)
    together = triangulate_photos(descriptors, np.array(counts, np.int64), vocabulary)
    assert together.shape == (len(counts), vocabulary.dimension)
    parts = np.split(descriptors, np.cumsum(counts)[:-1]) if counts else []
    for row, part in zip(together, parts, strict=True):
        np.testing.assert_allclose(row, one(part, vocabulary), atol=5e-3)
        np.testing.assert_allclose(np.linalg.norm(row), len(part) > 0, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 80), st.integers(20, 120), st.integers(20, 120))
def test_a_region_is_the_vector_of_the_features_inside(n: int, width: int, height: int) -> None:
    vocabulary = small_vocabulary()
    rng = np.random.default_rng(n)
    xy = (rng.uniform(0, 1, (n, 2)) * [width, height] - 0.5).astype(np.float32)
    descriptors = features(n, seed=n + 1)
    descriptors[::7] = 0
    boxes = rmac_boxes(width, height)
    regions = triangulate_regions(xy, descriptors, vocabulary, boxes)
    assert regions.shape == (len(boxes), vocabulary.dimension)
    assert regions.dtype == np.float32
    for region, (left, top, right, bottom) in zip(regions, boxes, strict=True):
        x, y = xy.T + 0.5
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        np.testing.assert_allclose(region, one(descriptors[inside], vocabulary), atol=5e-3)


def test_edges_of_a_box_count_once() -> None:
    # Two boxes side by side; the pixels left and right of their border, by the places of their centres.
    vocabulary, descriptors = small_vocabulary(), features(2, seed=1)
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10]], np.float32)
    regions = triangulate_regions(np.array([[9, 5], [10, 5]], np.float32), descriptors, vocabulary, boxes)
    for region, descriptor in zip(regions, descriptors, strict=True):
        np.testing.assert_allclose(region, one(descriptor[None], vocabulary), atol=5e-3)


def test_features_without_descriptor_count_for_nothing() -> None:
    vocabulary, descriptors = small_vocabulary(), features(30, seed=1)
    with_zeros = np.concatenate([descriptors, np.zeros((4, 12), np.float32)])
    np.testing.assert_allclose(one(with_zeros, vocabulary), one(descriptors, vocabulary), atol=5e-3)
    np.testing.assert_array_equal(one(with_zeros[30:], vocabulary), np.zeros(vocabulary.dimension))


def test_a_feature_at_a_word_has_no_direction_from_it() -> None:
    # One word for each of two features: each lies exactly on its word.
    descriptors = features(2, seed=1)
    vocabulary = train_vocabulary(np.repeat(descriptors, 5, axis=0), 2, 0)
    vectors = triangulate_photos(descriptors, np.array([1, 1]), vocabulary)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_the_seed_decides() -> None:
    sample = features(3000)
    first, same, other = (train_vocabulary(sample, 3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.words, same.words)
    np.testing.assert_array_equal(first.embedded_projection, same.embedded_projection)
    assert not np.array_equal(first.words, other.words)


def test_fewer_features_than_the_embedding_has_dimensions() -> None:
    vocabulary = train_vocabulary(features(20), 4, 0, dimension=10)
    assert vocabulary.dimension == 19
    assert triangulate_photos(features(7), np.array([7]), vocabulary).shape == (1, 19)


def test_too_few_features_to_learn_from() -> None:
    with pytest.raises(LmrError, match="5 visual words cannot be learned from 4"):
        train_vocabulary(features(4), 5, 0)


def test_counts_must_agree() -> None:
    with pytest.raises(LmrError, match="do not agree"):
        triangulate_photos(features(5), np.array([2, 2]), small_vocabulary())
