"""Landmarks of queries: sums over a landmark's photos, what lowers a confidence, and wrong rows."""

import doctest

import numpy as np
import pytest

from lmr.errors import LmrError, SettingsError
from lmr.retrieval import recognition
from lmr.retrieval.recognition import (
    Evidence,
    background_similarity,
    inlier_strength,
    landmark_frequency,
    name_landmarks,
)

# Photos 0 and 1 show landmark 0, photo 2 landmark 1, photo 3 landmark 2; photo 4 shows none.
LANDMARKS = np.array([0, 0, 1, 2, -1])


def pairs(*rows, weight=1.0):
    queries, photos, strength = zip(*rows, strict=True)
    return Evidence(np.array(queries), np.array(photos), np.array(strength, float), weight)


def test_worked_examples():
    result = doctest.testmod(recognition)
    assert result.attempted >= 5
    assert result.failed == 0


def test_photos_of_a_landmark_speak_together():
    found = name_landmarks([pairs((0, 0, 0.4), (0, 1, 0.4), (0, 2, 0.7))], LANDMARKS, 1)
    assert found.landmarks.tolist() == [0]
    assert found.confidence == pytest.approx([0.8])
    assert found.support.tolist() == [2]


def test_kinds_of_evidence_are_weighted():
    inliers, similar = pairs((0, 0, 0.5)), [(0, 2, 0.4)]
    assert name_landmarks([inliers, pairs(*similar)], LANDMARKS, 1).landmarks.tolist() == [0]
    assert name_landmarks([inliers, pairs(*similar, weight=2)], LANDMARKS, 1).landmarks.tolist() == [1]


def test_photos_without_a_landmark_and_queries_without_a_pair_are_named_nothing():
    found = name_landmarks([pairs((0, 4, 9.0), (1, 3, 0.1), (2, 2, 0.0))], LANDMARKS, 4)
    assert found.landmarks.tolist() == [-1, 2, -1, -1]
    assert np.isneginf(found.confidence[[0, 2, 3]]).all()
    assert name_landmarks([], LANDMARKS, 2).landmarks.tolist() == [-1, -1]


def test_equal_sums_go_to_the_lowest_number_in_any_order_of_pairs():
    rows = [(0, 3, 0.5), (0, 2, 0.5), (0, 0, 0.25), (0, 1, 0.25)]
    for order in (rows, rows[::-1]):
        assert name_landmarks([pairs(*order)], LANDMARKS, 1).landmarks.tolist() == [0]


def test_a_second_landmark_takes_from_the_confidence():
    evidence = [pairs((0, 0, 0.8), (0, 2, 0.6), (1, 3, 0.8))]
    plain, wary = (name_landmarks(evidence, LANDMARKS, 2, margin=margin) for margin in (0.0, 1.0))
    assert plain.confidence == pytest.approx([0.8, 0.8])
    assert wary.confidence == pytest.approx([0.2, 0.8])
    assert wary.landmarks.tolist() == plain.landmarks.tolist() == [0, 2]


def test_each_ingredient_lowers_the_confidence_of_what_it_concerns():
    evidence = [pairs((0, 0, 0.8), (1, 2, 0.8), (2, 3, 0.8))]
    background = background_similarity(np.array([[0.5, 0.1], [0.0, 0.0], [0.0, 0.0]]), nearest=1)
    found = name_landmarks(evidence, LANDMARKS, 4, background=background.repeat([1, 1, 2]))
    assert found.confidence == pytest.approx([0.3, 0.8, 0.8, -np.inf])
    unrelated = name_landmarks([pairs((0, 2, 1), (1, 2, 1), (2, 0, 1))], LANDMARKS, 4)
    frequency = landmark_frequency(unrelated, 3)
    assert frequency == pytest.approx([0.25, 0.5, 0])
    found = name_landmarks(evidence, LANDMARKS, 4, frequency=frequency, frequency_weight=0.4)
    assert found.confidence == pytest.approx([0.7, 0.6, 0.8, -np.inf])


def test_equals_the_sums_by_hand_on_random_pairs():
    rng = np.random.default_rng(3)
    landmarks = rng.integers(-1, 5, 40)
    queries, photos = rng.integers(0, 20, 300), rng.integers(0, 40, 300)
    strength = rng.random(300)
    found = name_landmarks([Evidence(queries, photos, strength)], landmarks, 21)
    for query in range(21):
        sums = np.zeros(5)
        mine = (queries == query) & (landmarks[photos] >= 0)
        np.add.at(sums, landmarks[photos[mine]], strength[mine])
        assert found.landmarks[query] == (sums.argmax() if mine.any() else -1)
        assert found.confidence[query] == pytest.approx(sums.max() if mine.any() else -np.inf)


def test_wrong_input_is_named():
    for wrong, message in (
        (pairs((5, 0, 1)), "1 pairs name a query"),
        (pairs((0, 9, 1)), "1 pairs name a photo"),
    ):
        with pytest.raises(LmrError, match=message):
            name_landmarks([wrong], LANDMARKS, 1)
    with pytest.raises(LmrError, match="not a number"):
        name_landmarks([pairs((0, 0, float("nan")))], LANDMARKS, 1)
    with pytest.raises(LmrError, match="every pair needs"):
        name_landmarks([Evidence(np.array([0]), np.array([0, 1]), np.array([1.0]))], LANDMARKS, 1)
    with pytest.raises(SettingsError, match="saturation"):
        inlier_strength(np.array([3]), saturation=0)
