"""The mutual kNN graph against the published codes', on untidy lists, and by shards."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array, vstack

from lmr.errors import LmrError
from lmr.retrieval.diffusion.affinity import (
    affinity,
    affinity_rows,
    graph_of_edges,
    transition,
    transition_rows,
)
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters
from tests.support.shared import shared


def golden_csr(golden: dict[str, np.ndarray], name: str, n: int) -> csr_array:
    return csr_array(tuple(golden[f"{name}/{part}"] for part in ("data", "indices", "indptr")), shape=(n, n))


def test_golden_yang() -> None:
    golden = np.load(shared("golden/diffusion_fyang93/diffusion.npz"))
    gallery = golden["gallery"]
    sims, ids = top_k(gallery, [(0, gallery)], 50)
    np.testing.assert_array_equal(ids, golden["old/knn_ids"])
    got, expected = affinity(ids, sims, gamma=3), golden_csr(golden, "old/affinity", 2000)
    np.testing.assert_array_equal(got.indptr, expected.indptr)
    np.testing.assert_array_equal(got.indices, expected.indices)
    np.testing.assert_allclose(got.data, expected.data, rtol=1e-6, atol=1e-6)
    laplacian = eye_array(2000) - 0.99 * transition(got)
    assert abs(laplacian - golden_csr(golden, "old/laplacian", 2000)).max() < 1e-6


@pytest.mark.parametrize("k", [50, 20])
def test_golden_iscen_in_double_precision(k: int) -> None:
    golden = np.load(shared("golden/diffusion_regional/regional.npz"))
    sims = golden["vectors"] @ golden["vectors"].T
    ids = np.argsort(-sims, axis=1, kind="stable")[:, :k]
    got = affinity(ids, np.take_along_axis(sims, ids, 1), gamma=3)
    expected = golden_csr(golden, f"k{k}_kq{50 if k == 50 else 10}/affinity", 1000)
    assert got.nnz == expected.nnz
    assert abs(got - expected).max() < 1e-14


def test_an_edge_needs_both_lists_whatever_else_they_hold() -> None:
    # 0 and 1 list one another; 2 lists 0 only; 3 lists itself; -1 and repeats are about; 4 and 5: negative.
    ids = np.int32(
        [[1, 0, 2, 1], [-1, 0, 0, 1], [2, 0, -1, -1], [3, -1, 3, -1], [5, -1, 4, -1], [4, 4, -1, -1]]
    )
    sims = np.float32(
        [[0.5, 1, 0.4, 0.5], [0, 0.5, 0.5, 1], [1, 0.4, 0, 0], [1, 0, 1, 0], [-0.2, 0, 1, 0], [-0.2, 0, 0, 0]]
    )
    ids[0, 2] = 3  # 0 does not list 2 back
    got = affinity(ids, sims, gamma=2).toarray()
    expected = np.zeros((6, 6))
    expected[0, 1] = expected[1, 0] = 0.25
    np.testing.assert_allclose(got, expected, atol=1e-7)
    np.testing.assert_allclose(transition(csr_array(got)).toarray(), expected * 4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 299), unique=True, max_size=4))
def test_sharded_is_unsharded_to_the_bit_and_symmetric(seed: int, cuts: list[int]) -> None:
    x = clusters(300, 6, seed)
    sims, ids = top_k(x, [(0, x)], 9, exclude_self_start=0 if seed % 2 else None)
    a = affinity(ids, sims, gamma=3, threads=2)
    s = transition(a)
    bounds = [0, *sorted(cuts), 300]
    spans = list(itertools.pairwise(bounds))
    rows = [affinity_rows(ids, sims, *span, gamma=3) for span in spans]
    degrees = np.concatenate([part.sum(axis=1, dtype=np.float64) for part in rows])
    normalised = [transition_rows(part, start, degrees) for part, (start, _) in zip(rows, spans, strict=True)]
    for whole, parts in ((a, rows), (s, normalised)):
        assert abs(whole - whole.T).max() == 0
        assert whole.diagonal().max() == 0
        assert (vstack(parts, format="csr") != whole).nnz == 0
    assert np.linalg.eigvalsh(s.toarray()).max() < 1 + 1e-5


def test_stored_edges_are_viewed_and_not_copied() -> None:
    values, columns = np.float32([2, 3, 4]), np.int32([1, 0, 1])
    matrix = graph_of_edges(values, columns, np.int64([0, 1, 3]))
    np.testing.assert_array_equal(matrix.toarray(), [[0, 2], [3, 4]])
    assert np.shares_memory(matrix.data, values)
    assert np.shares_memory(matrix.indices, columns)


def test_bad_input_is_refused() -> None:
    ids, sims = np.int32([[1], [2]]), np.float32([[1], [1]])
    with pytest.raises(LmrError, match="outside the graph"):
        affinity(ids, sims, gamma=3)
    with pytest.raises(LmrError, match="do not fit"):
        affinity(ids, sims[:1], gamma=3)
    with pytest.raises(LmrError, match="negative"):
        affinity(ids - 1, sims, gamma=-1)
    with pytest.raises(LmrError, match="degrees"):
        transition_rows(affinity(ids - 1, sims, gamma=1), 0, np.ones(3))
