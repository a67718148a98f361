"""Local search without an index, against plain NumPy in float64."""

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.retrieval.global_search.nearest import nearest
from lmr.retrieval.local_search.exhaustive import search_exhaustively
from tests.support.descriptor_clusters import clusters


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery():
    """2,000 descriptors of 200 photos, some without use, and some of photo 7 once more in photo 90."""
    rows = unit(clusters(2000, 24, seed=1))
    rows[::11] = 0
    rows[900:910] = rows[70:80]
    return rows, np.repeat(np.arange(200), 10)


@pytest.fixture(scope="module")
def queries():
    rows = unit(clusters(50, 24, seed=2))
    rows[3] = 0
    return rows


def cut(gallery, size):
    rows, photos = gallery
    return [(rows[i : i + size], photos[i : i + size]) for i in range(0, len(rows), size)]


def test_the_nearest_are_those_of_all_distances(gallery, queries):
    rows, photos = gallery
    distances, found = search_exhaustively(cut(gallery, 333), queries, k=8, nearest=nearest)
    every = 2 - 2 * (queries.astype(np.float64) @ rows.T.astype(np.float64))
    every[:, ~rows.any(axis=1)] = np.inf
    for q in range(len(queries)):
        if not queries[q].any():
            assert (found[q] == -1).all()
            assert np.isinf(distances[q]).all()
            continue
        order = np.lexsort((photos, np.round(every[q], 6)))[:8]
        np.testing.assert_allclose(distances[q], np.maximum(every[q][order], 0), atol=1e-6)
        np.testing.assert_array_equal(found[q], photos[order])
    assert distances.dtype == np.float32
    assert found.dtype == np.int32


@pytest.mark.parametrize("size", [1, 77, 5000])
def test_parts_of_any_size_give_the_same_to_the_bit(gallery, queries, size):
    whole = search_exhaustively([gallery], queries, k=8, nearest=nearest)
    parts = search_exhaustively(cut(gallery, size), queries, k=8, nearest=nearest)
    for a, b in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_distances_go_in_order_of_photos(gallery):
    rows, _ = gallery
    distances, found = search_exhaustively(cut(gallery, 333), rows[71:72], k=2, nearest=nearest)
    np.testing.assert_array_equal(found, [[7, 90]])
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_too_few_neighbours_leave_the_rest_open(queries):
    rows = queries[:2]
    distances, found = search_exhaustively([(rows, np.array([4, 9]))], queries[:1], k=5, nearest=nearest)
    assert found[0].tolist()[0] == 4
    assert found[0, 2:].tolist() == [-1] * 3
    assert np.isinf(distances[0, 2:]).all()
    nothing = search_exhaustively([], queries, k=5, nearest=nearest)[1]
    assert (nothing == -1).all()
    without = search_exhaustively([(rows, np.array([4, 9]))], queries[:0], k=5, nearest=nearest)
    assert without[1].shape == (0, 5)


def test_what_is_no_descriptor_is_refused(queries):
    with pytest.raises(LmrError, match="unit length"):
        search_exhaustively([], queries * 2, k=5, nearest=nearest)
    with pytest.raises(LmrError, match="24 dimensions"):
        search_exhaustively([(np.ones((2, 3), np.float32), np.zeros(2, int))], queries, k=5, nearest=nearest)


def test_a_gpus_engine_gives_the_same_to_the_bit(gallery, queries):
    torch_engine = pytest.importorskip("lmr.retrieval.global_search._gpu_torch", reason="no torch")
    engine = torch_engine.TorchEngine("cpu")

    def there(queries, rows, k):
        return nearest(queries, rows, k, engine=engine)

    ours = search_exhaustively(cut(gallery, 700), queries, k=8, nearest=there)
    for a, b in zip(ours, search_exhaustively([gallery], queries, k=8, nearest=nearest), strict=True):
        np.testing.assert_array_equal(a, b)
