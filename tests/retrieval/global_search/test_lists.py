"""Lists of descriptors: within the lists that a query visits the search is exact, however it is cut."""

import numpy as np
import pytest
from numba import njit

from lmr.retrieval.global_search import lists as module
from lmr.retrieval.global_search._candidates import pack
from lmr.retrieval.global_search._products import BLOCK, WIDTH, first_bit, multiply_block
from lmr.retrieval.global_search.approximate import build_ann_index, search_ann_index
from lmr.retrieval.global_search.exact import best_listed, top_k
from lmr.retrieval.global_search.lists import Lists, nearest_lists, search_lists
from tests.support.descriptor_clusters import clusters


@njit
def block(queries, query, rows, group, bars, products, hits):
    multiply_block(queries, query, rows, group, bars, products, hits)


@njit
def lowest(bits):
    return first_bit(bits)


GALLERY = clusters(3000, 24, seed=4, size=30)
GALLERY[7] = 0
QUERIES = np.concatenate([GALLERY[:400], clusters(100, 24, seed=5, size=10)])


def plainly(index, queries, k):
    """Every row of the lists of each query's nearest centroids, compared in float64."""
    sims = queries.astype(np.float64) @ index.centroids.astype(np.float64).T
    visited = np.argsort(-sims, axis=1, kind="stable")[:, : index.probes]
    rows = [
        np.concatenate([index.rows[index.starts[one] : index.starts[one + 1]] for one in some])
        for some in visited
    ]
    listed = np.full((len(queries), max(map(len, rows))), -1, np.int32)
    for place, some in enumerate(rows):
        listed[place, : len(some)] = some
    listed[~queries.any(axis=1)] = -1
    return best_listed(queries, listed, GALLERY, k)


@pytest.fixture
def index():
    found = build_ann_index(GALLERY, "IVF40,Flat")
    found.probes = 6
    return found


@pytest.mark.parametrize("k", [1, 10, 400])
def test_what_the_visited_lists_hold_is_found_exactly(index, k):
    sims, ids = search_ann_index(index, QUERIES, k, GALLERY)
    wanted = plainly(index, QUERIES, k)
    np.testing.assert_array_equal(ids, wanted[1])
    np.testing.assert_array_equal(sims, wanted[0])
    assert (ids[7] == -1).all()
    assert not (ids == 7).any()


def test_the_result_is_the_same_however_queries_are_cut(index, monkeypatch):
    whole = search_ann_index(index, QUERIES, 10, GALLERY, exclude_self_start=0)
    threaded = search_ann_index(index, QUERIES, 10, GALLERY, exclude_self_start=0, threads=3)
    for name, value in (("QUERIES_AT_ONCE", 90), ("QUERY_TILE", 7), ("ROW_TILE", 5), ("COARSE_TILE", 11)):
        monkeypatch.setattr(module, name, value)
    cut = search_ann_index(index, QUERIES, 10, GALLERY, exclude_self_start=0)
    one = [search_ann_index(index, QUERIES[i : i + 1], 10, GALLERY, exclude_self_start=i) for i in range(30)]
    for part in range(2):
        np.testing.assert_array_equal(threaded[part], whole[part])
        np.testing.assert_array_equal(cut[part], whole[part])
        np.testing.assert_array_equal(np.concatenate([found[part] for found in one]), whole[part][:30])


def test_an_odd_dimension_and_rows_of_any_length_are_searched_exactly():
    rng = np.random.default_rng(3)
    gallery = clusters(1500, 25, seed=6, size=20) * rng.uniform(0.3, 3, (1500, 1)).astype(np.float32)
    queries = -5 * gallery[:60]
    index = build_ann_index(gallery, "IVF20,Flat")
    index.probes = 20
    found = search_ann_index(index, queries, 12, gallery)
    wanted = top_k(queries, [(0, gallery)], 12)
    for part in range(2):
        np.testing.assert_array_equal(found[part], wanted[part])


def test_a_block_of_products_is_that_of_whole_numbers_and_tells_who_is_wanted():
    rng = np.random.default_rng(7)
    left = rng.integers(-5000, 5000, (2 * BLOCK, 26)).astype(np.int16)
    right = rng.integers(-5000, 5000, (3 * WIDTH, 26)).astype(np.int16)
    packed = np.empty((3, 13, WIDTH), np.int32)
    pack(right.astype(np.float32) / 4, np.arange(3 * WIDTH, dtype=np.int32), np.float32(4), packed)
    bars = rng.integers(-(10**8), 10**8, BLOCK).astype(np.int32)
    products, hits = np.empty((BLOCK, WIDTH), np.int32), np.empty(BLOCK, np.uint32)
    block(left.view(np.int32), BLOCK, packed, 2, bars, products, hits)
    wanted = left[BLOCK:].astype(np.int32) @ right[2 * WIDTH :].astype(np.int32).T
    np.testing.assert_array_equal(products, wanted)
    told = (hits[:, None] >> np.arange(WIDTH, dtype=np.uint32)) & 1
    np.testing.assert_array_equal(told, wanted >= bars[:, None])
    assert [lowest(np.uint32(bits)) for bits in (1, 12, 1 << 31)] == [0, 2, 31]


def test_copies_beyond_all_room_are_taken_in_the_order_of_their_rows():
    # Five hundred copies of one photo, and as many that differ by less than products can tell.
    one = clusters(2, 24, seed=9, size=1)[0]
    copies = np.repeat(one[None], 1000, axis=0)
    copies[::2] *= np.float32(1 - 2**-23)
    gallery = np.concatenate([copies, clusters(200, 24, seed=10, size=20)])
    index = build_ann_index(gallery, "IVF4,Flat")
    index.probes = 4
    _, ids = search_ann_index(index, one[None], 20, gallery)
    np.testing.assert_array_equal(ids[0], np.arange(1, 40, 2))


def test_of_centroids_that_are_level_the_first_are_visited():
    centroids = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    queries = np.array([[1, 0.5, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    found = np.sort(nearest_lists(centroids, queries, 7), axis=1)
    np.testing.assert_array_equal(found, [[0, 1, 2, 3, 4, 5, 6], [0, 1, 10, 11, 12, 13, 14], range(7)])
    np.testing.assert_array_equal(np.sort(nearest_lists(centroids, queries, 15), axis=1)[0], range(15))


def test_stored_halves_are_searched_as_they_are(index):
    halves = GALLERY.astype(np.float16)
    found = build_ann_index(halves, "IVF40,Flat")
    found.probes = 40
    _, ids = search_ann_index(found, halves[:50].astype(np.float32), 1, halves)
    same = [i for i in range(50) if i != 7]
    np.testing.assert_array_equal(ids[same, 0], same)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [0.0, 1e-38, 1e-20, 1.0])
def test_a_gallery_without_a_descriptor_holds_nothing_for_a_query_of_any_length(length):
    empty = Lists(GALLERY[:4], np.zeros(5, np.int64), np.empty(0, np.int32), longest=0.0, probes=2)
    found = search_lists(empty, QUERIES[:3] * np.float32(length), 5, np.zeros((9, 24), np.float16))
    assert (found == -1).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("length", [1e-38, 1e-20, 1e6])
def test_a_query_of_unusual_length_is_searched_without_a_word(length, index):
    found = search_lists(index, QUERIES[:3] * np.float32(length), 5, GALLERY)
    assert found.max() < len(GALLERY)
