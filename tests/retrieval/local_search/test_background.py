"""Votes for landmarks of many photos: the background of a feature does not depend on the landmark's size."""

import numpy as np
import pytest

from lmr.evaluation.protocols.scorers import average_precision_at_100
from lmr.retrieval.local_search.background import Background, gallery_background
from lmr.retrieval.local_search.inverted_file import (
    build_sub_index,
    first_descriptors,
    list_distances,
    nearest_lists,
    open_index,
    search_sub_index,
    train_quantiser,
)
from lmr.retrieval.local_search.votes import chance_votes, vote

SIZES = (20, 50, 100, 300)
DISTRACTORS, PER_PHOTO, DIMENSION, LANDMARK, SHOWN = 700, 70, 48, 42, 28
PROBES, K = 16, 20


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class World:
    """Photos of 70 features; those of a landmark show 28 of its 42, seen with noise, among random ones."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        # Descriptors of real features are neither uniform nor apart: they lie in clusters of all densities.
        self.middles = unit(self.rng.normal(size=(400, DIMENSION)))
        self.spread = self.rng.uniform(0.05, 0.2, 400)
        self.landmarks = [self.random(LANDMARK) for _ in SIZES]
        photos, self.right = [], []
        for landmark, size in zip(self.landmarks, SIZES, strict=True):
            self.right.append(set(range(len(photos), len(photos) + size)))
            photos += [self.photo(landmark) for _ in range(size)]
        photos += [self.random(PER_PHOTO) for _ in range(DISTRACTORS)]
        self.count = len(photos)
        self.descriptors = np.concatenate(photos)
        self.rows = np.repeat(np.arange(self.count), PER_PHOTO)
        trained = train_quantiser(self.descriptors, lists=512, code_bytes=None, seed=0)
        half = len(self.rows) // 2 // PER_PHOTO * PER_PHOTO
        parts = [slice(0, half), slice(half, None)]
        self.halves = [
            open_index(build_sub_index(trained, self.descriptors[part], self.rows[part])) for part in parts
        ]
        self.whole = open_index(build_sub_index(trained, self.descriptors, self.rows))

    def random(self, count):
        which = self.rng.integers(0, len(self.middles), count)
        noise = self.rng.normal(size=(count, DIMENSION)) * self.spread[which, None]
        return unit(self.middles[which] + noise)

    def photo(self, landmark):
        seen = landmark[self.rng.permutation(len(landmark))[:SHOWN]]
        noisy = unit(seen + self.rng.normal(size=seen.shape, scale=0.04))
        return np.concatenate([noisy, self.random(PER_PHOTO - SHOWN)])


@pytest.fixture(scope="module")
def world():
    return World()


def precision_by_size(world, *, k=K, own_background=True, draws=3):
    """AP@100 of queries for each landmark, in the mean over some photos of it."""
    known = gallery_background(lambda: [world.whole], k=k, probes=PROBES) if own_background else None
    found = []
    for number, landmark in enumerate(world.landmarks):
        each = []
        for _ in range(draws):
            query = world.photo(landmark)
            distances, rows = search_sub_index([world.whole], query, k=k, probes=PROBES)
            ranked, _ = vote(
                *(np.zeros(len(query), np.int64), distances, rows),
                n_queries=1,
                words=nearest_lists(world.whole, query),
                background=known.lengths(world.whole, query) if known else None,
            )
            each.append(average_precision_at_100([p for p in ranked[0] if p >= 0], world.right[number]))
        found.append(float(np.mean(each)))
    return found


def test_large_landmarks_keep_their_votes(world):
    found = dict(zip(SIZES, precision_by_size(world), strict=True))
    assert min(found[20], found[50], found[100]) >= 0.95
    assert found[300] >= 0.8


def test_without_a_background_of_their_own_they_lose_them(world):
    # What the test above would say of the k-th neighbour as background.
    found = dict(zip(SIZES, precision_by_size(world, own_background=False), strict=True))
    assert found[300] < 0.8


def test_the_division_into_sub_indexes_changes_no_background(world):
    one, two = ([world.whole], world.halves)
    np.testing.assert_array_equal(first_descriptors(one, 1024), first_descriptors(two, 1024))
    assert gallery_background(lambda: one, k=K, probes=PROBES) == gallery_background(
        lambda: two, k=K, probes=PROBES
    )


def test_the_background_is_that_of_unrelated_features(world):
    known = gallery_background(lambda: [world.whole], k=K, probes=PROBES)
    query = world.random(200)
    distances, _ = search_sub_index([world.whole], query, k=K, probes=PROBES)
    # A quarter of the gallery's features has nearer neighbours, and so has about a quarter of others.
    nearer = np.sqrt(distances[:, -1]) < known.lengths(world.whole, query)
    assert 0.1 < nearer.mean() < 0.4
    assert 0 < known.vote < 0.5


def test_a_gallery_without_features_has_no_background():
    rng = np.random.default_rng(0)
    trained = train_quantiser(unit(rng.normal(size=(200, 8))), lists=2, code_bytes=None, seed=0)
    empty = open_index(build_sub_index(trained, np.zeros((0, 8), np.float32), np.zeros(0, np.int64)))
    known = gallery_background(lambda: [empty], k=5, probes=2)
    assert known.ratio == 0
    assert known.vote > 0
    assert not known.lengths(empty, unit(rng.normal(size=(3, 8)))).any()


def test_a_gallery_smaller_than_the_list_of_neighbours_has_no_background_of_its_own():
    rng = np.random.default_rng(0)
    few = unit(rng.normal(size=(6, 8)))
    trained = train_quantiser(few, lists=1, code_bytes=None, seed=0)
    index = open_index(build_sub_index(trained, few, np.arange(6)))
    assert gallery_background(lambda: [index], k=20, probes=1).ratio == 0


def test_list_distances_are_those_to_the_centroids(world):
    query = world.random(5)
    centroids = world.whole.quantizer.reconstruct_n(0, world.whole.nlist)
    squares = np.sort(((query[:, None] - centroids[None]) ** 2).sum(axis=2), axis=1)
    np.testing.assert_allclose(list_distances(world.whole, query, 16), squares[:, 15], rtol=1e-3)


def test_chance_does_not_depend_on_the_list_of_candidates(world):
    query = world.photo(world.landmarks[0])
    distances, rows = search_sub_index([world.whole], query, k=K, probes=PROBES)
    owners, known = np.zeros(len(query), np.int64), Background(0.0, 0.1)
    common = {"n_queries": 2, "usual": known.vote}
    chance = chance_votes(owners, distances, rows, n_photos=world.count, **common)
    lengths = np.sqrt(distances)
    votes = lengths.max(axis=1, keepdims=True) - lengths
    single = (votes.sum() + 20 * 0.1) / (np.count_nonzero(votes) + 20)
    assert chance[0] == pytest.approx(2 * (single + votes.sum() / world.count), rel=1e-5)
    # A query without features: what a vote weighs as a rule.
    assert chance[1] == pytest.approx(0.2)
    # One tiny vote does not make every vote look strong.
    tiny = chance_votes(
        np.zeros(1, np.int64), np.array([[0.25, 0.25 + 1e-6]], np.float32), rows[:1, :2], n_photos=9, **common
    )
    assert tiny[0] > 0.18
