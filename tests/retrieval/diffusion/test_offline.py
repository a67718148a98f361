"""Offline diffusion against Yang et al.'s published code, plain SciPy, and by shards."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import cg

from lmr.errors import LmrError
from lmr.retrieval.diffusion.affinity import affinity, transition
from lmr.retrieval.diffusion.offline import (
    columns_matrix,
    compare_columns,
    neighbourhoods,
    neighbourly_order,
    offline_columns,
    search_columns,
)
from lmr.retrieval.diffusion.online import restart
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters
from tests.support.shared import shared


def columns_of(x: np.ndarray, truncation: int, precision: type) -> csr_array:
    sims, ids = top_k(x, [(0, x)], truncation)
    s = transition(affinity(ids[:, :50], sims[:, :50].astype(precision), gamma=3))
    return columns_matrix(*offline_columns(s, np.arange(len(x)), ids, threads=2), len(x))


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_golden_queries_outside_the_graph(precision: type) -> None:
    golden = np.load(shared("golden/diffusion_fyang93/diffusion.npz"))
    gallery, queries = golden["gallery"], golden["queries"]
    columns = columns_of(gallery, 500, precision)
    nodes, ids = golden["old/column/nodes"], golden["old/column/ids"]
    got = np.take_along_axis(columns[nodes].toarray(), ids, 1)
    np.testing.assert_allclose(got, golden["old/column/scores"], rtol=0, atol=1e-5)
    sims, near = top_k(queries, [(0, gallery)], 10)
    np.testing.assert_array_equal(near, golden["old/query_knn_ids"])
    scores = search_columns(*restart(near, sims, np.arange(50), 50, gamma=3, nodes=10), columns).toarray()
    ranks = golden["old/ranks"].astype(int)
    np.testing.assert_allclose(
        np.take_along_axis(scores, ranks, 1), golden["old/scores"], rtol=1e-5, atol=1e-5
    )


def test_golden_queries_as_nodes() -> None:
    golden = np.load(shared("golden/diffusion_fyang93/diffusion.npz"))
    columns = columns_of(np.vstack([golden["queries"], golden["gallery"]]), 500, np.float32)
    nodes, ids = golden["new/column/nodes"], golden["new/column/ids"]
    got = np.take_along_axis(columns[nodes].toarray(), ids, 1)
    np.testing.assert_allclose(got, golden["new/column/scores"], rtol=0, atol=1e-5)
    scores = compare_columns(columns[:50], columns[50:]).toarray()
    np.testing.assert_allclose(scores, golden["new/scores"], rtol=0, atol=1e-5)


def test_untidy_lists_equal_plain_scipy() -> None:
    x = clusters(300, 8, seed=40)
    sims, ids = top_k(x, [(0, x)], 60)
    s = transition(affinity(ids[:, :10], sims[:, :10], gamma=3))
    rng = np.random.default_rng(0)
    untidy = ids.copy()
    untidy[rng.random(ids.shape) < 0.1] = -1
    untidy[rng.random(ids.shape) < 0.1] = 7
    untidy[::2, 0] = -1  # every second list lacks its own node
    cuts, scores = offline_columns(s, np.arange(300), untidy)
    laplacian = csr_array(eye_array(300) - 0.99 * s.astype(np.float64))
    for node in range(300):
        kept = cuts[node][cuts[node] >= 0]
        assert kept[0] == node
        assert (
            kept[1:].tolist() == [i for i in dict.fromkeys(untidy[node].tolist()) if i not in (-1, node)][:59]
        )
        first = np.zeros(len(kept))
        first[0] = 1
        plain, _ = cg(laplacian[kept][:, kept], first, rtol=1e-6, maxiter=20)
        np.testing.assert_allclose(scores[node, : len(kept)], plain, rtol=1e-6, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 199), unique=True, max_size=4), st.integers(1, 3))
def test_sharded_is_unsharded(seed: int, cuts: list[int], threads: int) -> None:
    x = clusters(200, 6, seed)
    sims, ids = top_k(x, [(0, x)], 40)
    s = transition(affinity(ids[:, :8], sims[:, :8], gamma=3))
    nodes = np.random.default_rng(seed).permutation(200)
    whole = offline_columns(s, nodes, ids[nodes], threads=threads)
    bounds = [0, *sorted(cuts), 200]
    shards = list(itertools.pairwise(bounds))
    parts = [offline_columns(s, nodes[i:j], ids[nodes[i:j]]) for i, j in shards]
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in parts]), whole[0])
    # Which eight nodes are solved together differs, and with it the order in which float32 is added.
    np.testing.assert_allclose(
        np.concatenate([scores for _, scores in parts]), whole[1], rtol=2e-6, atol=1e-7
    )
    for array, again in zip(whole, offline_columns(s, nodes, ids[nodes]), strict=True):
        np.testing.assert_array_equal(again, array)  # threads change nothing at all
    # Online, the scores of shards of columns add up.
    order = np.argsort(nodes)
    columns = columns_matrix(whole[0][order], whole[1][order], 200)
    y = restart(ids[:20, :5], sims[:20, :5], np.arange(20), 20, gamma=3, nodes=5)
    added = sum(search_columns(*y, columns[i:j], i).toarray() for i, j in shards)
    np.testing.assert_allclose(added, search_columns(*y, columns).toarray(), rtol=1e-5, atol=1e-7)


def test_columns_of_an_isolated_node_hold_itself_only() -> None:
    s = csr_array((4, 4), dtype=np.float32)
    columns = columns_matrix(*offline_columns(s, np.array([2]), np.int32([[1, 3, 0]])), 4)
    assert columns.toarray().tolist() == [[0, 0, 1, 0]]
    assert compare_columns(columns, csr_array((2, 4), dtype=np.float32)).toarray().tolist() == [[0, 0]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_neighbourly_order_is_a_permutation_that_keeps_clusters_together(seed: int) -> None:
    x = clusters(400, 16, seed, noise=0.2)
    _, ids = top_k(x, [(0, x)], 6, exclude_self_start=0)
    ids[3, 2:] = -1
    order = neighbourly_order(ids)
    assert sorted(order.tolist()) == list(range(400))
    place = np.argsort(order)
    apart = np.abs(place[ids[:, :1]] - place[:, None])
    assert np.median(apart) < 30  # in the order given: over 100


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 130))
def test_a_neighbourhood_grows_by_whole_steps_and_then_by_the_strongest_joined(seed: int, size: int) -> None:
    x = clusters(120, 8, seed)
    sims, ids = top_k(x, [(0, x)], 8)
    graph = affinity(ids, sims, gamma=3)
    lists = neighbourhoods(graph, np.arange(120), size)
    dense = graph.toarray()
    for node, listed in enumerate(lists):
        kept = listed[listed >= 0].tolist()
        assert kept[0] == node
        assert len(set(kept)) == len(kept)
        reached = {node}
        while len(reached) < len(kept):
            inside = sorted(reached)
            further = {int(i) for i in np.flatnonzero(dense[inside].any(axis=0))} - reached
            if len(reached) + len(further) <= size:
                assert set(kept[: len(reached) + len(further)]) == reached | further
                reached |= further
                continue
            # The sum over those of the step before is what counts; earlier ones have no edge to the new.
            strength = dense[inside].sum(axis=0)
            chosen, left = set(kept) - reached, further - set(kept)
            assert min(strength[i] for i in chosen) >= max(strength[i] for i in left) - 1e-4
            reached |= chosen
        if len(kept) < size:  # all that can be reached
            assert not set(np.flatnonzero(dense[kept].any(axis=0)).tolist()) - reached


def test_a_column_on_all_that_can_be_reached_is_the_whole_column() -> None:
    x = clusters(150, 8, seed=7, noise=0.2)
    sims, ids = top_k(x, [(0, x)], 6)
    s = transition(affinity(ids, sims, gamma=3).astype(np.float64))
    lists = neighbourhoods(s, np.arange(150), 100)
    assert 2 < (lists >= 0).sum(axis=1).max() < 100
    columns = columns_matrix(*offline_columns(s, np.arange(150), lists, iterations=200, tolerance=1e-12), 150)
    whole = np.linalg.inv(np.eye(150) - 0.99 * s.toarray())
    np.testing.assert_allclose(columns.toarray(), whole, atol=1e-8)


def test_bad_input_is_refused() -> None:
    s = csr_array((4, 4), dtype=np.float32)
    with pytest.raises(LmrError, match="nodes and lists"):
        offline_columns(s, np.array([0, 1]), np.int32([[1, 2]]))
    with pytest.raises(LmrError, match="node lies outside"):
        offline_columns(s, np.array([4]), np.int32([[1, 2]]))
    with pytest.raises(LmrError, match="listed node lies outside"):
        offline_columns(s, np.array([0]), np.int32([[1, 4]]))
    with pytest.raises(LmrError, match="different graphs"):
        compare_columns(csr_array((1, 4)), csr_array((1, 5)))
