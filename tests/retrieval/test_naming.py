"""Ingredients of recognition: each changes what it concerns, and a weight of 0 leaves it out."""

import doctest
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lmr.retrieval import label_check, naming
from lmr.retrieval.label_check import suspect_labels
from lmr.retrieval.naming import INGREDIENTS, Distractors, Found, NamingRecipe, name_after_each

OFF = NamingRecipe(
    photo_background_weight=0,
    vote_weight=0,
    inlier_weight=0,
    unverified_weight=0,
    margin=0,
    background_weight=0,
    frequency_weight=0,
    alpha=1,
)
WEIGHT = {
    "photo_background": {"photo_background_weight": 0.5},
    "votes": {"vote_weight": 1.0, "vote_saturation": 1.0},
    "inliers": {"inlier_weight": 1.0},
    "unverified": {"unverified_weight": 0.5},
    "margin": {"margin": 0.5},
    "background": {"background_weight": 1.0},
    "frequency": {"frequency_weight": 1.0},
}


def example(queries=30, photos=40, landmarks=5):
    rng = np.random.default_rng(4)
    ranked = np.argsort(rng.random((queries, photos)), axis=1)
    found = Found(
        neighbours=ranked[:, :8],
        similarities=np.sort(rng.random((queries, 8)), axis=1)[:, ::-1],
        candidates=ranked[:, 4:12],
        votes=20 * rng.random((queries, 8)),
        inliers=rng.integers(0, 60, (queries, 8)),
    )
    distractors = Distractors(rng.random(queries), rng.random(photos), rng.random(landmarks))
    return found, rng.integers(-1, landmarks, photos), distractors


def test_worked_examples():
    for module, count in ((naming, 2), (label_check, 1)):
        result = doctest.testmod(module)
        assert result.attempted >= count
        assert result.failed == 0


def test_with_all_weights_at_zero_neighbours_alone_speak():
    named, _ = name_after_each(*example(), OFF)
    assert list(named) == list(INGREDIENTS)
    first = named["neighbours"]
    for one in named.values():
        assert np.array_equal(one.landmarks, first.landmarks)
        assert np.array_equal(one.confidence, first.confidence)


@pytest.mark.parametrize("ingredient", WEIGHT)
def test_an_ingredient_changes_what_comes_after_it_and_nothing_before(ingredient):
    inputs = example()
    without, _ = name_after_each(*inputs, OFF)
    named, _ = name_after_each(*inputs, replace(OFF, **WEIGHT[ingredient]))
    names = list(INGREDIENTS)
    # The fifth and sixth are in the confidence from the fifth on.
    for before in names[: names.index(ingredient)]:
        assert np.array_equal(named[before].confidence, without[before].confidence)
    assert not np.array_equal(named[ingredient].confidence, without[ingredient].confidence)


def test_what_lowers_a_confidence_never_raises_one_or_changes_a_name():
    found, landmarks, distractors = example()
    named, _ = name_after_each(found, landmarks, distractors, NamingRecipe())
    lowering = [named[one] for one in ("inliers", "unverified", "margin", "background", "frequency")]
    for before, after in pairwise(lowering):
        assert np.array_equal(before.landmarks, after.landmarks)
        assert (after.confidence <= before.confidence).all()


def test_the_photo_that_speaks_most_is_of_the_named_landmark():
    found, landmarks, distractors = example()
    named, photos = name_after_each(found, landmarks, distractors, NamingRecipe())
    given = photos >= 0
    assert given.any()
    assert np.array_equal(landmarks[photos[given]], named["frequency"].landmarks[given])


def test_a_lone_wrong_label_is_accused_and_its_neighbours_are_not():
    landmarks = np.array([0, 0, 0, 1, 0, -1])  # photo 3 shows landmark 0
    pairs = np.array([(a, b) for a in range(6) for b in range(6) if a != b])
    found = suspect_labels(pairs[:, 0], pairs[:, 1], np.full(len(pairs), 40), landmarks, min_inliers=10)
    assert found.photos.tolist() == [3]
    assert (found.landmarks[0], found.others[0], found.own[0]) == (0, 4, 0)
    none = suspect_labels(pairs[:, 0], pairs[:, 1], np.full(len(pairs), 10), landmarks, min_inliers=10)
    assert none.photos.tolist() == []
