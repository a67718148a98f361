"""Regional diffusion against the original's run, the solver against dense algebra, and the fall-backs."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import LmrError
from lmr.retrieval.diffusion.affinity import affinity, transition
from lmr.retrieval.diffusion.online import (
    after_diffusion,
    diffuse,
    diffuse_cut,
    generalised_max_weights,
    pool_regions,
    restart,
)
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters
from tests.support.shared import shared


def nearest(sims: NDArray[np.float64], k: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    ids = np.argsort(-sims, axis=1, kind="stable")[:, :k].astype(np.int32)
    return ids, np.take_along_axis(sims, ids, 1)


def dense(ids: NDArray[np.int32], values: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    y = np.zeros((len(ids), n))
    row, column = np.nonzero(ids >= 0)
    y[row, ids[row, column]] = values[row, column]
    return y


@pytest.mark.parametrize(
    ("case", "k", "kq"),
    [("k50_kq50", 50, 50), ("k200_kq200", 200, 200), ("k20_kq10", 20, 10), ("k3_kq10", 3, 10)],
)
@pytest.mark.parametrize("precision", [np.float64, np.float32])
def test_golden_iscen(case: str, k: int, kq: int, precision: type) -> None:
    golden = np.load(shared("golden/diffusion_regional/regional.npz"))
    vectors, queries = golden["vectors"], golden["queries"]
    ids, sims = nearest(vectors @ vectors.T, k)
    s = transition(affinity(ids, sims.astype(precision), gamma=3))
    region_ids, region_sims = nearest(queries @ vectors.T, kq)
    y_ids, y = restart(
        region_ids, region_sims.astype(precision), golden["query_of_vector"], 20, gamma=3, nodes=kq
    )
    nodes = diffuse(s, y_ids, y, threads=2)
    weights = generalised_max_weights(vectors, golden["image_of_vector"])
    np.testing.assert_allclose(weights, golden["pooling_weights"], rtol=1e-10)
    images = pool_regions(nodes, golden["image_of_vector"], 200, weights=weights)
    expected = golden[f"{case}/image_scores"]
    assert images.dtype == precision
    if precision == np.float64:
        np.testing.assert_allclose(dense(y_ids, y, 1000)[:5], golden[f"{case}/y"], rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(nodes[:5], golden[f"{case}/node_scores"], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(images, expected, rtol=1e-9, atol=1e-10)
        np.testing.assert_array_equal(np.argsort(-images, axis=1, kind="stable"), golden[f"{case}/ranks"])
    else:
        np.testing.assert_allclose(images, expected, rtol=0, atol=1e-5 * expected.max())


def test_golden_iscen_truncated() -> None:
    golden = np.load(shared("golden/diffusion_regional/regional.npz"))
    vectors, queries, owner = golden["vectors"], golden["queries"], golden["query_of_vector"]
    image = golden["image_of_vector"]
    a = affinity(*nearest(vectors @ vectors.T, 50), gamma=3)
    top, _ = nearest(golden["global_queries"] @ golden["global_vectors"].T, 60)
    cuts = np.stack([np.flatnonzero(np.isin(image, row)) for row in top]).astype(np.int32)
    found = [nearest(queries[owner == q] @ vectors[cuts[q]].T, 50) for q in range(20)]
    region_ids = np.concatenate([cuts[q][ids] for q, (ids, _) in enumerate(found)])
    y_ids, y = restart(region_ids, np.concatenate([s for _, s in found]), owner, 20, gamma=3, nodes=50)
    scores = diffuse_cut(a, cuts, y_ids, y, renormalise=True, threads=2)
    nodes = dense(cuts, scores, 1000)
    np.testing.assert_allclose(nodes[:5], golden["k50_kq50_trunc60/node_scores"], rtol=1e-9, atol=1e-10)
    images = pool_regions(nodes, image, 200, weights=generalised_max_weights(vectors, image))
    np.testing.assert_allclose(images, golden["k50_kq50_trunc60/image_scores"], rtol=1e-9, atol=1e-10)
    ranks = np.argsort(-images, axis=1, kind="stable")
    np.testing.assert_array_equal(ranks, golden["k50_kq50_trunc60/ranks"])


@pytest.fixture(scope="module")
def graph() -> tuple[NDArray[np.float32], csr_array, csr_array]:
    x = clusters(240, 8, seed=30)
    sims, ids = top_k(x, [(0, x)], 8, exclude_self_start=0)
    a = affinity(ids, sims.astype(np.float64), gamma=3)
    return x, a, transition(a)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 30))
def test_cuts_equal_a_dense_solve_of_each_cut(
    graph: tuple[NDArray[np.float32], csr_array, csr_array], seed: int, renormalise: bool, q: int
) -> None:
    _, a, s = graph
    rng = np.random.default_rng(seed)
    cuts = np.stack([rng.permutation(240)[:60] for _ in range(q)]).astype(np.int32)
    cuts[rng.random(cuts.shape) < 0.1] = -1
    ids = rng.integers(-1, 240, (q, 5)).astype(np.int32)  # some outside the cut, some twice
    values = rng.random((q, 5))
    m = a if renormalise else s
    got = diffuse_cut(
        m, cuts, ids, values, renormalise=renormalise, alpha=0.8, tolerance=1e-12, iterations=400
    )
    for row in range(q):
        nodes = cuts[row][cuts[row] >= 0]
        part = m[nodes][:, nodes].toarray()
        if renormalise:
            degrees = part.sum(axis=1)
            root = np.divide(1, np.sqrt(degrees), out=np.zeros(len(nodes)), where=degrees > 0)
            part = root[:, None] * part * root
        y = np.zeros(240)
        np.add.at(y, ids[row][ids[row] >= 0], values[row][ids[row] >= 0])
        exact = np.linalg.solve(np.eye(len(nodes)) - 0.8 * part, y[nodes])
        np.testing.assert_allclose(got[row][cuts[row] >= 0], exact, atol=1e-9)
        assert (got[row][cuts[row] < 0] == 0).all()


def test_a_restart_that_is_named_many_times_adds_up(
    graph: tuple[NDArray[np.float32], csr_array, csr_array],
) -> None:
    _, _, s = graph
    cuts, ids = np.int32([[5, 6], [6, 5], [7, -1]]), np.int32([[5], [5], [7]])
    once = diffuse_cut(s, cuts, ids, np.ones((3, 1)), renormalise=False)
    many = diffuse_cut(s, cuts, np.tile(ids, 100), np.full((3, 100), 0.01), renormalise=False)
    np.testing.assert_allclose(many, once, rtol=1e-12)


def test_the_whole_graph_is_the_cut_that_holds_all(
    graph: tuple[NDArray[np.float32], csr_array, csr_array],
) -> None:
    x, _, s = graph
    sims, ids = top_k(x[:13], [(0, x)], 4)
    everything = np.tile(np.arange(240, dtype=np.int32), (13, 1))
    cut = diffuse_cut(s, everything, ids, sims, renormalise=False)
    np.testing.assert_allclose(cut, diffuse(s, ids, sims), rtol=1e-9, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 49), unique=True, max_size=3), st.integers(1, 3))
def test_sharded_is_unsharded(
    graph: tuple[NDArray[np.float32], csr_array, csr_array], seed: int, cuts: list[int], threads: int
) -> None:
    x, a, s = graph
    a, s = a.astype(np.float32), s.astype(np.float32)
    queries = clusters(50, 8, seed)
    sims, ids = top_k(queries, [(0, x)], 70)
    bounds = [0, *sorted(cuts), 50]
    spans = list(itertools.pairwise(bounds))
    y = restart(ids[:, :6], sims[:, :6], np.arange(50), 50, gamma=3, nodes=6)
    parts = [
        restart(ids[i:j, :6], sims[i:j, :6], np.arange(j - i), j - i, gamma=3, nodes=6) for i, j in spans
    ]
    np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), y[0])
    whole = diffuse(s, *y, threads=threads)
    np.testing.assert_array_equal(np.concatenate([diffuse(s, *p) for p in parts]), whole)
    for renormalise in (True, False):
        m = a if renormalise else s
        whole = diffuse_cut(m, ids, *y, renormalise=renormalise, threads=threads)
        pieces = [
            diffuse_cut(m, ids[i:j], *p, renormalise=renormalise)
            for (i, j), p in zip(spans, parts, strict=True)
        ]
        # Which eight queries are solved together differs, and with it the order in which float32 is added.
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=2e-6, atol=1e-7)
        one_thread = diffuse_cut(m, ids, *y, renormalise=renormalise)
        np.testing.assert_array_equal(one_thread, whole)


def test_restart_adds_regions_and_keeps_the_largest() -> None:
    ids = np.int32([[3, 1, 2], [1, 4, -1], [0, 5, 6]])
    sims = np.float64([[0.9, 0.5, 0.1], [0.5, 0.3, 0.9], [-0.2, 0.8, 0.7]])
    got_ids, got = restart(ids, sims, np.array([0, 0, 1]), 3, gamma=2, nodes=3)
    assert got_ids.tolist() == [[1, 3, 4], [5, 6, -1], [-1, -1, -1]]
    np.testing.assert_allclose(got, [[1.0, 0.81, 0.09], [0.64, 0.49, 0], [0, 0, 0]])


def test_pooling_sums_the_regions_of_each_photo() -> None:
    scores = np.float32([[1, 2, 4, 8]])
    assert pool_regions(scores, np.array([2, 0, 2, 0]), 4).tolist() == [[10, 0, 5, 0]]
    assert pool_regions(scores, np.array([0, 0, 1, 1]), 2, weights=np.array([1, 0.5, 1, 0])).tolist() == [
        [2, 4]
    ]


def test_generalised_max_pooling_weighs_repeated_content_down() -> None:
    vectors = np.float64([[1, 0], [1, 0], [0, 1], [0, 1]])
    weights = generalised_max_weights(vectors, np.array([7, 7, 7, 2]))
    np.testing.assert_allclose(weights, [1 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_an_isolated_node_and_a_query_without_connection_keep_the_order_before() -> None:
    empty = csr_array((5, 5), dtype=np.float32)
    scores = diffuse(empty, np.int32([[2, 0], [-1, -1]]), np.float32([[0.5, 0.2], [0, 0]]))
    np.testing.assert_allclose(scores, [[0.2, 0, 0.5, 0, 0], [0, 0, 0, 0, 0]], atol=1e-7)
    photos, before = np.arange(5), np.int32([4, 3, 2, 1, -1])
    assert after_diffusion(photos, scores[0], before, 5).tolist() == [2, 0, 4, 3, 1]
    assert after_diffusion(photos, scores[1], before, 3).tolist() == [4, 3, 2]


def test_final_order_breaks_ties_by_id() -> None:
    ids, scores = np.int32([9, 4, -1, 6]), np.float32([1, 1, 5, 2])
    assert after_diffusion(ids, scores, np.int32([4, 5]), 10).tolist() == [6, 4, 9, 5]


def test_bad_input_is_refused() -> None:
    s, ids, values = csr_array((5, 5), dtype=np.float32), np.int32([[5]]), np.float32([[1]])
    with pytest.raises(LmrError, match="restarts do not fit"):
        diffuse(s, ids, values)
    with pytest.raises(LmrError, match="alpha"):
        diffuse(s, ids - 1, values, alpha=1.0)
    with pytest.raises(LmrError, match="square"):
        diffuse(s[:3], ids - 4, values)
    with pytest.raises(LmrError, match="cuts do not fit"):
        diffuse_cut(s, np.int32([[7]]), ids - 1, values, renormalise=False)
    with pytest.raises(LmrError, match="too long"):
        diffuse_cut(s, np.zeros((1, 1 << 21), dtype=np.int32), ids - 1, values, renormalise=False)
    with pytest.raises(LmrError, match="photo of every node"):
        pool_regions(values, np.array([3]), 3)
    with pytest.raises(LmrError, match="one query number per region"):
        restart(ids, values, np.array([0, 1]), 2, gamma=3, nodes=1)
