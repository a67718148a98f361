"""Query expansion against deep-image-retrieval's, and the paper's with verified photos."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.retrieval.expansion.expand import expand_queries, matches_with_verified, order_with_verified
from lmr.retrieval.global_search.augmentation import augment_descriptors, weights_of
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters
from tests.support.shared import shared


@pytest.mark.parametrize(("k", "alpha"), [(1, 1), (5, 0), (5, 1), (10, 2), (10, 3), (20, 3)])
def test_golden_deep_image_retrieval(k: int, alpha: int) -> None:
    golden = np.load(shared("golden/dir_naver/descriptors.npz"))
    db, queries = golden["expand/db"], golden["expand/queries"]
    sims, ids = top_k(queries, [(0, db)], k)
    got = expand_queries(queries, ids, weights_of(sims, alpha), db)
    np.testing.assert_allclose(got, golden[f"expand/aqe_k{k}_a{alpha}"], atol=1e-5, rtol=0)


def test_golden_augmentation_then_expansion() -> None:
    golden = np.load(shared("golden/dir_naver/descriptors.npz"))
    db, queries = golden["expand/db"], golden["expand/queries"]
    sims, ids = top_k(db, [(0, db)], 10, exclude_self_start=0)
    augmented = augment_descriptors(db, ids, sims, db, alpha=3)
    sims, ids = top_k(queries, [(0, augmented)], 10)
    got = expand_queries(queries, ids, weights_of(sims, 3), augmented)
    np.testing.assert_allclose(got, golden["expand/adba10_3_then_aqe10_3/queries"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        got @ augmented.T, golden["expand/adba10_3_then_aqe10_3/scores"], atol=1e-5, rtol=0
    )


def test_a_query_without_matches_stays_itself() -> None:
    queries, gallery = clusters(3, 6, seed=1), clusters(20, 6, seed=2)
    ids = np.int32([[-1, -1], [4, -1], [-1, -1]])
    got = expand_queries(queries, ids, np.ones((3, 2)), gallery)
    np.testing.assert_allclose(got[[0, 2]], queries[[0, 2]], atol=1e-6)
    middle = queries[1] + gallery[4]
    np.testing.assert_allclose(got[1], middle / np.linalg.norm(middle), atol=1e-6)


def test_matches_are_the_first_five_and_the_verified_once_each() -> None:
    ranked = np.int32([[10, 11, 12, 13, 14, 15], [20, -1, -1, -1, -1, -1]])
    weights = np.full((2, 6), 0.5, dtype=np.float32)
    verified = np.int32([[15, 12, 15, -1], [-1, -1, -1, -1]])
    ids, got = matches_with_verified(ranked, weights, verified)
    assert dict(zip(ids[0].tolist(), got[0].tolist(), strict=True)) == {
        10: 0.5, 11: 0.5, 12: 1.0, 13: 0.5, 14: 0.5, 15: 1.0, -1: 0.0,
    }  # fmt: skip
    assert sorted(ids[0].tolist()) == [-1, -1, -1, 10, 11, 12, 13, 14, 15]
    assert ids[1].tolist().count(-1) == 8


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 20), unique=True, max_size=15),
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 90)), unique_by=lambda pair: pair[0], max_size=6),
    st.integers(1, 20),
)
def test_verified_photos_lead_and_the_rest_keeps_its_order(
    ranked: list[int], verified: list[tuple[int, int]], k: int
) -> None:
    photos, inliers = np.array([p for p, _ in verified], int), np.array([i for _, i in verified], int)
    got = order_with_verified(np.array([*ranked, -1], int), photos, inliers, k).tolist()
    head = [p for p, i in sorted(verified, key=lambda pair: (-pair[1], pair[0]))]
    assert got == (head + [p for p in ranked if p not in head])[:k]


def test_bad_input_is_refused() -> None:
    with pytest.raises(LmrError, match="inlier counts do not fit"):
        order_with_verified(np.array([1, 2]), np.array([1]), np.array([50, 60]), 5)
    with pytest.raises(LmrError, match="one list per query"):
        matches_with_verified(np.int32([[1]]), np.float32([[1]]), np.int32([[1], [2]]))
