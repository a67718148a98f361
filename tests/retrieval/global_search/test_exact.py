"""Exact neighbours: right, sorted, and the same however the gallery is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.global_search.exact import GALLERY_TILE, best_listed, similarities, top_k
from tests.support.descriptor_clusters import clusters


def by_sorting(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int) -> tuple[object, object]:
    sims = (queries.astype(np.float64) @ gallery.astype(np.float64).T).astype(np.float32)
    ids = np.lexsort((np.broadcast_to(np.arange(len(gallery)), sims.shape), -sims), axis=1)[:, :k]
    return np.take_along_axis(sims, ids, 1), ids


def test_finds_what_a_full_sort_finds_across_tiles() -> None:
    gallery = clusters(GALLERY_TILE + 900, 24, seed=1)
    queries = clusters(300, 24, seed=2)
    sims, ids = top_k(queries, [(0, gallery)], 20, threads=2)
    expected_sims, expected_ids = by_sorting(queries, gallery, 20)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(sims, expected_sims)
    assert sims.dtype == np.float32
    assert ids.dtype == np.int32


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sharded_is_unsharded_to_the_bit_with_ties(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    gallery = clusters(120, 7, seed)
    gallery[60:] = gallery[:60]  # every row twice: exact ties everywhere
    gallery = gallery[np.random.default_rng(seed).permutation(120)]
    queries = gallery[data.draw(st.integers(0, 60)) :][:50]
    k = data.draw(st.integers(1, 30))
    whole = top_k(queries, [(0, gallery)], k)
    cuts = sorted(data.draw(st.sets(st.integers(1, 119), max_size=6)))
    blocks = [(a, gallery[a:b]) for a, b in zip([0, *cuts], [*cuts, 120], strict=True)]
    shuffled = data.draw(st.permutations(blocks))
    half = data.draw(st.integers(1, 49))
    parts = [top_k(part, shuffled, k) for part in (queries[:half], queries[half:])]
    for whole_array, *part_arrays in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(whole_array, np.concatenate(part_arrays))


def test_ties_go_to_the_smaller_id_whatever_comes_first() -> None:
    gallery = np.tile(np.float32([[1, 0]]), (6, 1))
    _, ids = top_k(gallery[:1], [(3, gallery[3:]), (0, gallery[:3])], 4)
    assert ids.tolist() == [[0, 1, 2, 3]]


def test_excludes_itself_but_not_its_copy() -> None:
    gallery = clusters(40, 8, seed=3)
    gallery[7] = gallery[3]
    sims, ids = top_k(gallery[2:10], [(0, gallery)], 5, exclude_self_start=2)
    assert not (ids == np.arange(2, 10)[:, None]).any()
    assert ids[1, 0] == 7
    assert sims[1, 0] == pytest.approx(1, abs=1e-6)


def test_photos_without_descriptor_are_not_found_and_find_nothing() -> None:
    gallery = -np.abs(
        clusters(10, 6, seed=4)
    )  # all similarities to the query are negative: a zero row would win
    gallery[4] = 0
    queries = np.abs(clusters(2, 6, seed=5))
    queries[1] = 0
    sims, ids = top_k(queries, [(0, gallery)], 12)
    assert sorted(ids[0].tolist()) == [-1, -1, -1, 0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert ids[0, -3:].tolist() == [-1, -1, -1]
    assert np.isneginf(sims[0, -3:]).all()
    assert (ids[1] == -1).all()


def test_rows_marked_invalid_are_not_found() -> None:
    gallery = clusters(30, 6, seed=6)
    valid = np.ones(30, dtype=bool)
    valid[[2, 11]] = False
    _, ids = top_k(gallery, [(0, gallery[:17]), (17, gallery[17:])], 30, valid=valid)
    assert all(sorted(row.tolist()) == [-1, -1, *np.flatnonzero(valid).tolist()] for row in ids)


def test_float16_gallery_is_searched_as_its_float32_values(tmp_path: object) -> None:
    gallery = clusters(500, 16, seed=7).astype(np.float16)
    on_disk = np.memmap(f"{tmp_path}/gallery", dtype=np.float16, mode="w+", shape=gallery.shape)
    on_disk[:] = gallery
    queries = clusters(9, 16, seed=8)
    for a, b in zip(
        top_k(queries, [(0, on_disk)], 6), top_k(queries, [(0, gallery.astype(np.float32))], 6), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_listed_similarities_are_those_of_the_search() -> None:
    gallery, queries = clusters(200, 13, seed=9), clusters(20, 13, seed=10)
    sims, ids = top_k(queries, [(0, gallery)], 15)
    ids[3, 10:] = -1
    sims[3, 10:] = -np.inf
    np.testing.assert_array_equal(similarities(queries, ids, gallery), sims)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_of_a_list_are_those_of_a_search_among_the_listed(dtype: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gallery = clusters(40, 13, seed=12).astype(dtype)
    gallery[20:] = gallery[:20]  # ties
    queries = gallery[2:7].astype(np.float32)
    ids = rng.integers(-1, 40, (5, 30)).astype(np.int32)  # with repeats, holes and the query itself
    sims, best = best_listed(queries, ids, gallery, 8, exclude_self_start=2)
    for row in range(5):
        listed = np.isin(np.arange(40), ids[row])
        listed[row + 2] = False
        expected = top_k(queries[row : row + 1], [(0, gallery)], 8, valid=listed)
        np.testing.assert_array_equal(sims[row], expected[0][0])
        np.testing.assert_array_equal(best[row], expected[1][0])


def test_float16_is_read_by_its_bits_to_the_last_one() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)][:, None]
    ids = np.arange(len(finite), dtype=np.int32)[None]
    read = similarities(np.ones((1, 1), np.float32), ids, finite)
    np.testing.assert_array_equal(read[0], finite[:, 0].astype(np.float32))


def test_bad_input_is_refused() -> None:
    gallery = clusters(10, 6, seed=11)
    with pytest.raises(LmrError, match="does not fit the queries"):
        top_k(gallery, [(0, gallery[:, :5])], 3)
    broken = gallery.copy()
    broken[3, 2] = np.nan
    with pytest.raises(LmrError, match="row 3"):
        top_k(gallery, [(0, broken)], 3)
    with pytest.raises(LmrError, match="must be positive"):
        top_k(gallery, [(0, gallery)], 0)
    with pytest.raises(LmrError, match="shorter than the gallery"):
        top_k(gallery, [(0, gallery)], 3, valid=np.ones(9, dtype=bool))
