import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.retrieval.expansion.fuse import add_evidence, chance_mass


def ranked(photos, scores, found, evidence, *, weight=0.5, depth=10, background=1.0):
    arrays = np.array(photos, int), np.array(scores, float), np.array(found, int), np.array(evidence, float)
    rows, totals = add_evidence(*arrays, background=background, weight=weight, depth=depth)
    return rows.tolist(), totals


def test_strong_evidence_lifts_and_none_does_not():
    rows, totals = ranked([1, 2, 3], [0.9, 0.8, 0.7], [3, 2], [np.e, 1.0])
    assert rows == [3, 1, 2]
    np.testing.assert_allclose(totals, [1.2, 0.9, 0.8], rtol=1e-6)


def test_a_photo_that_only_the_evidence_knows_starts_from_the_lowest_score():
    rows, totals = ranked([1, 2], [0.9, 0.1], [7, 8], [np.e**2, np.e])
    assert rows == [7, 1, 8, 2]
    np.testing.assert_allclose(totals, [1.1, 0.9, 0.6, 0.1], rtol=1e-6)


def test_without_weight_or_evidence_the_search_stays():
    assert ranked([5, 1], [0.1, 0.9], [7], [9.0], weight=0)[0] == [1, 5]
    assert ranked([5, 1], [0.1, 0.9], [-1], [9.0])[0] == [1, 5]
    assert ranked([5, 1], [0.1, 0.9], [7], [0.0], background=0.0)[0] == [1, 5]


def test_without_scores_the_evidence_ranks_alone():
    assert ranked([], [], [4, 9, 2], [1.0, 5.0, 3.0])[0] == [9, 2, 4]
    assert ranked([-1, -1], [0.0, 0.0], [-1], [1.0])[0] == []


def test_one_more_photo_with_hardly_a_vote_changes_nothing():
    # The weakest photo was the background: a tiny one put B eleven above A.
    before, scores = ranked([1, 2], [0.9, 0.85], [2], [1.05])
    after, totals = ranked([1, 2, 3], [0.9, 0.85, 0.1], [2, 3], [1.05, 1e-6])
    assert before == after[:2]
    np.testing.assert_allclose(scores, totals[:2], rtol=1e-6)


def test_a_single_candidate_has_its_evidence():
    assert ranked([1, 2], [0.9, 0.8], [2], [10.0])[0] == [2, 1]


def test_evidence_needs_something_to_be_compared_with():
    for background in (0.0, -1.0, np.nan):
        with pytest.raises(LmrError, match="above 0"):
            ranked([1], [0.5], [1], [1.0], background=background)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.1, 100)), unique_by=lambda t: t[0]), st.integers(1, 8)
)
def test_the_scale_of_evidence_and_the_order_of_rows_do_not_matter(pairs, depth):
    found, evidence = [p for p, _ in pairs], [e for _, e in pairs]
    photos, scores = [3, 11, 25], [0.5, 0.4, 0.4]
    base, totals = ranked(photos, scores, found, evidence, depth=depth)
    scaled, more = ranked(
        photos[::-1], scores[::-1], found[::-1], [8 * e for e in evidence[::-1]], depth=depth, background=8.0
    )
    assert base == scaled
    np.testing.assert_allclose(totals, more, rtol=1e-5)
    assert len(base) <= depth
    assert len(set(base)) == len(base)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0, 1e9), min_size=2, max_size=6),
    st.integers(0, 5),
    st.floats(0, 1e9),
    st.floats(1e-6, 1e3),
)
def test_more_evidence_lifts_its_photo_alone_and_never_without_bound(evidence, which, more, background):
    which %= len(evidence)
    photos = list(range(len(evidence)))
    zero = [0.0] * len(photos)

    def by_photo(some):
        rows, totals = ranked(photos, zero, photos, some, weight=1.0, background=background)
        return np.array(totals)[np.argsort(rows)]

    before = by_photo(evidence)
    after = by_photo([e + more * (i == which) for i, e in enumerate(evidence)])
    assert after[which] >= before[which]
    np.testing.assert_array_equal(np.delete(after, which), np.delete(before, which))
    assert after.max() <= np.log(10_000) + 1e-5


def test_chance_is_an_even_share_in_a_small_gallery_and_a_thousandth_in_a_large_one():
    mass = np.array([6.0, 3.0, 1.0])
    assert chance_mass(mass, 4) == pytest.approx(10 * (0.25 + 0.001))
    assert chance_mass(mass, 1_000_000) == pytest.approx(0.01, rel=1e-2)
    # What reached a photo hardly at all makes no difference.
    assert chance_mass(np.append(mass, 1e-9), 4) == pytest.approx(chance_mass(mass, 4))
    assert chance_mass(np.zeros(0), 4) == 0
