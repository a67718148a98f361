"""The sub-indexes searched together are one index, the quantiser is deterministic, bad input is refused."""

from itertools import pairwise
from pathlib import Path
from unittest import mock

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.local_search import inverted_file
from lmr.retrieval.local_search.codebook import train_centroids
from lmr.retrieval.local_search.inverted_file import (
    build_sub_index,
    default_lists,
    list_sizes,
    nearest_lists,
    open_index,
    search_sub_index,
    train_quantiser,
)

DIMENSION = 16


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def some(n: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(n, DIMENSION)))


TRAINED = {code: train_quantiser(some(2000), lists=32, code_bytes=code, seed=1) for code in (None, 8)}


@pytest.mark.parametrize("code_bytes", [None, 8])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_sub_indexes_searched_together_equal_one_index(code_bytes: int | None, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 120))
    copies = data.draw(st.integers(1, 4))  # equal descriptors of different photos: ties
    cuts = sorted(data.draw(st.lists(st.integers(0, n * copies), max_size=4)))
    descriptors = np.concatenate([some(n, seed=n)] * copies)
    rows = np.arange(n * copies) // 3
    queries = np.concatenate([descriptors[:20], some(5, seed=7)])
    order = np.random.default_rng(n).permutation(len(rows))  # photos may come in any order

    trained = TRAINED[code_bytes]
    whole = open_index(build_sub_index(trained, descriptors[order], rows[order]))
    edges = [0, *cuts, n * copies]
    parts = [open_index(build_sub_index(trained, descriptors[a:b], rows[a:b])) for a, b in pairwise(edges)]
    expected = search_sub_index([whole], queries, k=5, probes=8)
    for at_once in (1, 64, inverted_file.LISTS_AT_ONCE):  # alone, by twos, all together
        with mock.patch.object(inverted_file, "LISTS_AT_ONCE", at_once):
            distances, photos = search_sub_index(iter(parts), queries, k=5, probes=8)
        np.testing.assert_array_equal(distances, expected[0])
        np.testing.assert_array_equal(photos, expected[1])
    assert sum(part.ntotal for part in parts) == whole.ntotal, "each has its own lists again"
    assert sum(list_sizes(part).sum() for part in parts) == whole.ntotal


def test_all_lists_probed_find_what_exhaustive_search_finds() -> None:
    gallery, queries = some(3000, seed=3), some(50, seed=4)
    index = open_index(build_sub_index(TRAINED[None], gallery, np.arange(3000)))
    distances, rows = search_sub_index([index], queries, k=3, probes=32)
    exact = 2 - 2 * queries @ gallery.T
    assert (rows[:, 0] == exact.argmin(axis=1)).mean() > 0.95  # 8 bits a component are nearly lossless
    np.testing.assert_allclose(distances[:, 0], exact.min(axis=1), atol=0.02)


def test_fewer_neighbours_than_asked_for_are_marked_missing() -> None:
    index = open_index(build_sub_index(TRAINED[None], some(2), np.array([5, 9])))
    empty = open_index(build_sub_index(TRAINED[None], some(0), np.zeros(0, np.int64)))
    distances, rows = search_sub_index([empty, index], some(2), k=4, probes=32)
    assert rows.tolist() == [[5, 9, -1, -1], [9, 5, -1, -1]]
    assert np.isinf(distances[:, 2:]).all()
    assert np.isfinite(distances[:, :2]).all()


def test_no_queries_and_rows_of_zeros_find_nothing() -> None:
    gallery = np.concatenate([some(10), np.zeros((3, DIMENSION), np.float32)])
    index = open_index(build_sub_index(TRAINED[8], gallery, np.arange(13)))
    assert index.ntotal == 10
    assert search_sub_index([index], some(0), k=4, probes=4)[1].shape == (0, 4)
    queries = np.concatenate([np.zeros((1, DIMENSION), np.float32), some(1)])
    rows = search_sub_index([index], queries, k=2, probes=32)[1]
    assert rows[0].tolist() == [-1, -1]
    assert rows[1, 0] == 0


def test_a_file_is_mapped_and_gives_what_the_bytes_give(tmp_path: Path) -> None:
    built = build_sub_index(TRAINED[8], some(500), np.arange(500))
    path = tmp_path / "index.faiss"
    path.write_bytes(built)
    from_file = search_sub_index([open_index(path)], some(30), k=5, probes=8)
    from_bytes = search_sub_index([open_index(built)], some(30), k=5, probes=8)
    np.testing.assert_array_equal(from_file[0], from_bytes[0])
    np.testing.assert_array_equal(from_file[1], from_bytes[1])


def test_threads_do_not_change_results() -> None:
    index = open_index(build_sub_index(TRAINED[8], some(2000), np.arange(2000)))
    one, two = (search_sub_index([index], some(300, seed=2), k=5, probes=8, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("code_bytes", [None, 4])
def test_the_same_seed_trains_the_same_bytes_and_another_does_not(code_bytes: int | None) -> None:
    first, again, other = (
        train_quantiser(some(3000), lists=300, code_bytes=code_bytes, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 3000), count=st.integers(1, 600))
def test_centroids_are_as_many_as_asked_for(n: int, count: int) -> None:
    if count > n:
        with pytest.raises(LmrError, match="cannot be trained"):
            train_centroids(some(n), count, seed=0)
    else:
        assert train_centroids(some(n), count, seed=0).shape == (count, DIMENSION)


def test_two_levels_quantise_nearly_as_well_as_plain_k_means() -> None:
    rng = np.random.default_rng(0)
    sample = unit(
        rng.normal(size=(60, DIMENSION))[rng.integers(0, 60, 20000)]
        + 0.3 * rng.normal(size=(20000, DIMENSION))
    )
    plain = faiss.Kmeans(DIMENSION, 300, niter=12, seed=1)
    plain.train(sample)
    two_levels = train_centroids(sample, 300, seed=1)
    error = faiss.knn(sample, two_levels, 1)[0].mean()
    assert error < 1.1 * faiss.knn(sample, plain.centroids, 1)[0].mean()


def test_many_lists_are_reached_through_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmr.retrieval.local_search.codebook.FLAT_CENTROIDS", 100)
    gallery = some(3000)
    first, again = (train_quantiser(gallery, lists=128, code_bytes=None, seed=1) for _ in range(2))
    assert first == again
    index = open_index(build_sub_index(first, gallery, np.arange(3000)))
    rows = search_sub_index([index], gallery[:200], k=1, probes=16)[1]
    assert (rows[:, 0] == np.arange(200)).mean() > 0.98


def test_list_sizes_and_words_agree_with_the_index() -> None:
    gallery = some(400)
    index = open_index(build_sub_index(TRAINED[None], gallery, np.arange(400)))
    words = nearest_lists(index, gallery)
    np.testing.assert_array_equal(np.bincount(words, minlength=32), list_sizes(index))


@pytest.mark.parametrize(
    ("n", "lists"), [(1, 1), (100, 2), (10_000, 256), (1_000_000, 4096), (10**9, 131_072)]
)
def test_default_lists(n: int, lists: int) -> None:
    assert default_lists(n) == lists


def with_nan() -> NDArray[np.float32]:
    rows = some(300)
    rows[[7, 9], 3] = np.nan
    return rows


def refused(match: str) -> "pytest.RaisesExc[LmrError]":
    return pytest.raises(LmrError, match=match)


def test_bad_descriptors_are_refused() -> None:
    index = open_index(build_sub_index(TRAINED[8], some(100), np.arange(100)))
    with refused("finite") as caught:
        build_sub_index(TRAINED[8], with_nan(), np.arange(300))
    assert "2 of 300 rows" in str(caught.value)
    assert "row 7" in str(caught.value)
    with refused("finite"):
        search_sub_index([index], with_nan(), k=2, probes=2)
    with refused("finite"):
        train_quantiser(with_nan(), lists=4, code_bytes=None, seed=0)
    with refused("16 dimensions"):
        search_sub_index([index], unit(np.ones((3, 12))), k=2, probes=2)
    with refused("16 dimensions"):
        build_sub_index(TRAINED[8], unit(np.ones((3, 12))), np.arange(3))
    with refused("unit length"):
        build_sub_index(TRAINED[8], 512 * some(5), np.arange(5))
    with refused("float32"):
        build_sub_index(TRAINED[8], some(5).astype(np.float64), np.arange(5))
    with refused("row of its photo"):
        build_sub_index(TRAINED[8], some(5), np.arange(4))


def test_bad_training_is_refused() -> None:
    with refused("64 centroids cannot be trained from 50"):
        train_quantiser(some(50), lists=64, code_bytes=None, seed=0)
    with refused("at least 256"):
        train_quantiser(some(50), lists=4, code_bytes=4, seed=0)
    with refused("must divide") as caught:
        train_quantiser(some(500), lists=4, code_bytes=5, seed=0)
    assert "1, 2, 4, 8, 16" in str(caught.value)
    with refused("needs descriptors"):
        default_lists(0)


def test_sub_indexes_of_different_quantisers_are_refused() -> None:
    other = train_quantiser(some(2000), lists=32, code_bytes=8, seed=2)
    indexes = [open_index(build_sub_index(trained, some(9), np.arange(9))) for trained in (TRAINED[8], other)]
    with refused("different quantisers"):
        search_sub_index(indexes, some(2), k=2, probes=2)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.faiss").write_bytes(b"not an index at all")
    for source in (tmp_path / "x.faiss", tmp_path / "missing.faiss", b"not an index at all"):
        with refused("cannot open the index"):
            open_index(source)
