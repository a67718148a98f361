import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.retrieval.expansion.fuse import add_evidence


def ranked(photos, scores, found, evidence, *, weight=0.5, depth=10):
    arrays = np.array(photos, int), np.array(scores, float), np.array(found, int), np.array(evidence, float)
    rows, totals = add_evidence(*arrays, weight=weight, depth=depth)
    return rows.tolist(), totals


def test_strong_evidence_lifts_and_background_does_not():
    rows, totals = ranked([1, 2, 3], [0.9, 0.8, 0.7], [3, 2], [np.e, 1.0])
    assert rows == [3, 1, 2]
    np.testing.assert_allclose(totals, [1.2, 0.9, 0.8], rtol=1e-6)


def test_a_photo_that_only_the_evidence_knows_starts_from_the_lowest_score():
    rows, totals = ranked([1, 2], [0.9, 0.1], [7, 8], [np.e**2, 1.0])
    assert rows == [7, 1, 2, 8]
    np.testing.assert_allclose(totals, [1.1, 0.9, 0.1, 0.1], rtol=1e-6)


def test_without_weight_or_evidence_the_search_stays():
    assert ranked([5, 1], [0.1, 0.9], [7], [9.0], weight=0)[0] == [1, 5]
    assert ranked([5, 1], [0.1, 0.9], [-1], [9.0])[0] == [1, 5]
    assert ranked([5, 1], [0.1, 0.9], [7], [0.0])[0] == [1, 5]


def test_without_scores_the_evidence_ranks_alone():
    assert ranked([], [], [4, 9, 2], [1.0, 5.0, 3.0])[0] == [9, 2, 4]
    assert ranked([-1, -1], [0.0, 0.0], [-1], [1.0])[0] == []


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.1, 100)), unique_by=lambda t: t[0]), st.integers(1, 8)
)
def test_the_scale_of_evidence_and_the_order_of_rows_do_not_matter(pairs, depth):
    found, evidence = [p for p, _ in pairs], [e for _, e in pairs]
    photos, scores = [3, 11, 25], [0.5, 0.4, 0.4]
    base, totals = ranked(photos, scores, found, evidence, depth=depth)
    scaled, more = ranked(
        photos[::-1], scores[::-1], found[::-1], [8 * e for e in evidence[::-1]], depth=depth
    )
    assert base == scaled
    np.testing.assert_allclose(totals, more, rtol=1e-5)
    assert len(base) <= depth
    assert len(set(base)) == len(base)
