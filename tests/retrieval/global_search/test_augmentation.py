"""Database-side augmentation against deep-image-retrieval's, and as algebra."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.retrieval.global_search.augmentation import augment_descriptors
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters
from tests.support.shared import shared


@pytest.mark.parametrize(("k", "alpha"), [(1, 1), (5, 0), (5, 1), (10, 2), (10, 3), (20, 3)])
def test_golden_deep_image_retrieval(k: int, alpha: int) -> None:
    golden = np.load(shared("golden/dir_naver/descriptors.npz"))
    db = golden["expand/db"]
    sims, ids = top_k(db, [(0, db)], k, exclude_self_start=0)
    np.testing.assert_allclose(
        augment_descriptors(db, ids, sims, db, alpha=alpha),
        golden[f"expand/adba_k{k}_a{alpha}"],
        atol=1e-5,
        rtol=0,
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 1499), unique=True, max_size=5))
def test_sharded_is_unsharded_to_the_bit_on_disk_or_not(seed: int, cuts: list[int]) -> None:
    x = clusters(1500, 8, seed).astype(np.float16)
    queries = x.astype(np.float32)
    sims, ids = top_k(queries, [(0, x)], 6, exclude_self_start=0)
    whole = augment_descriptors(x, ids, sims, x, alpha=2.5)
    bounds = [0, *sorted(cuts), 1500]
    parts = [
        augment_descriptors(x[a:b], ids[a:b], sims[a:b], x, alpha=2.5) for a, b in itertools.pairwise(bounds)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_photos_without_descriptor_or_neighbours() -> None:
    x = clusters(10, 5, seed=1)
    x[3] = 0
    ids, sims = np.full((10, 2), -1, dtype=np.int32), np.full((10, 2), -np.inf, dtype=np.float32)
    ids[3], sims[3] = [1, 2], [0.5, 0.5]
    got = augment_descriptors(x, ids, sims, x, alpha=1)
    np.testing.assert_allclose(got, x, atol=1e-6)  # alone: itself; without descriptor: still without


def test_negative_similarities_count_nothing() -> None:
    x = clusters(10, 5, seed=2)
    ids = np.int32([[4, 5]])
    both = augment_descriptors(x[:1], ids, np.float32([[0.5, -0.9]]), x, alpha=3)
    one = augment_descriptors(x[:1], ids[:, :1], np.float32([[0.5]]), x, alpha=3)
    np.testing.assert_array_equal(both, one)


def test_bad_input_is_refused() -> None:
    x = clusters(10, 5, seed=3)
    with pytest.raises(LmrError, match="outside the gallery"):
        augment_descriptors(x[:1], np.int32([[10]]), np.float32([[1]]), x, alpha=1)
    with pytest.raises(LmrError, match="do not fit"):
        augment_descriptors(x[:2], np.int32([[1]]), np.float32([[1]]), x, alpha=1)
    with pytest.raises(LmrError, match="exponent"):
        augment_descriptors(x[:1], np.int32([[1]]), np.float32([[1]]), x, alpha=-1)
