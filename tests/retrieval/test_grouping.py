"""Groups of photos: against NetworkX-free plain Python, and what one wrong pair may do."""

import itertools

import numpy as np
import pytest

from lmr.retrieval.grouping import group_photos, supported


def plain_components(pairs, n):
    groups = [{i} for i in range(n)]
    for a, b in pairs:
        one = next(g for g in groups if a in g)
        other = next(g for g in groups if b in g)
        if one is not other:
            groups.remove(other)
            one |= other
    return {frozenset(g) for g in groups if len(g) > 1}


def as_sets(labels):
    return {frozenset(np.flatnonzero(labels == g).tolist()) for g in range(labels.max(initial=-1) + 1)}


def random_pairs(seed, n, count):
    rng = np.random.default_rng(seed)
    every = np.array(list(itertools.combinations(range(n), 2)))
    return every[rng.choice(len(every), count, replace=False)], rng.integers(21, 300, count)


@pytest.mark.parametrize("seed", range(20))
def test_without_support_the_groups_are_the_connected_parts(seed):
    pairs, inliers = random_pairs(seed, 40, 25)
    found = group_photos(pairs[:, 0], pairs[:, 1], inliers, 40, support=False)
    assert as_sets(found) == plain_components(pairs.tolist(), 40)


@pytest.mark.parametrize("seed", range(20))
def test_support_is_a_third_photo(seed):
    pairs, _ = random_pairs(seed, 20, 40)
    known = {frozenset(pair) for pair in pairs.tolist()}
    right = [
        any({frozenset((a, c)), frozenset((b, c))} <= known for c in range(20) if c not in (a, b))
        for a, b in pairs.tolist()
    ]
    assert supported(pairs[:, 0], pairs[:, 1], 20).tolist() == right


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_the_pairs_changes_nothing(seed):
    pairs, inliers = random_pairs(seed, 40, 50)
    order = np.random.default_rng(seed).permutation(len(pairs))
    found = group_photos(pairs[:, 0], pairs[:, 1], inliers, 40)
    again = group_photos(pairs[order, 0], pairs[order, 1], inliers[order], 40)
    np.testing.assert_array_equal(found, again)


def clique(photos):
    return list(itertools.combinations(photos, 2))


def test_one_wrong_pair_joins_no_two_places():
    pairs = np.array([*clique(range(5)), *clique(range(5, 9)), (2, 7)])
    strong = np.full(len(pairs), 30)
    strong[-1] = 900
    found = group_photos(pairs[:, 0], pairs[:, 1], strong, 9)
    assert as_sets(found) == {frozenset(range(5)), frozenset(range(5, 9))}
    assert found[0] == 0  # the larger one
    joined = group_photos(pairs[:, 0], pairs[:, 1], strong, 9, support=False)
    assert as_sets(joined) == {frozenset(range(9))}


def test_a_photo_alone_goes_where_most_agrees():
    pairs = np.array([*clique(range(3)), *clique(range(3, 6)), (1, 6), (4, 6)])
    inliers = np.array([30] * 6 + [25, 80])
    assert as_sets(group_photos(pairs[:, 0], pairs[:, 1], inliers, 7)) == {
        frozenset({0, 1, 2}),
        frozenset({3, 4, 5, 6}),
    }


def test_no_pairs_no_groups():
    empty = np.empty(0, np.int32)
    assert group_photos(empty, empty, empty, 4).tolist() == [-1] * 4
    assert group_photos(empty, empty, empty, 0).tolist() == []


def test_blocks_of_rows_change_nothing(monkeypatch):
    pairs, _ = random_pairs(3, 40, 80)
    whole = supported(pairs[:, 0], pairs[:, 1], 40)
    monkeypatch.setattr("lmr.retrieval.grouping._ROWS_AT_ONCE", 7)
    np.testing.assert_array_equal(supported(pairs[:, 0], pairs[:, 1], 40), whole)
