"""Merged sub-indexes find what the sub-indexes find, to the last digit."""

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.retrieval.local_search.inverted_file import (
    build_sub_index,
    list_sizes,
    open_index,
    search_sub_index,
    train_quantiser,
)
from lmr.retrieval.local_search.on_disk import open_merged, write_merged

PARTS, ROWS, DIMENSION, LISTS = 7, 600, 32, 64


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=[8, None], ids=["product codes", "scalars"])
def indexes(request):
    """Return descriptors, and their sub-indexes, serialised; the fourth one is empty."""
    x = unit(np.random.default_rng(0).standard_normal((PARTS * ROWS, DIMENSION)))
    trained = train_quantiser(x, lists=LISTS, code_bytes=request.param, seed=0)
    photos = np.arange(len(x)) // 10
    parts = [slice(i * ROWS, (i + (i != 3)) * ROWS) for i in range(PARTS)]
    return x, [build_sub_index(trained, x[part], photos[part]) for part in parts]


def merged(serialised, at_once, folder):
    found = []
    for first in range(0, len(serialised), at_once):
        here, paths = folder / f"{first}", []
        here.mkdir()
        for i, one in enumerate(serialised[first : first + at_once]):
            paths.append(folder / f"{first}-{i}")
            paths[-1].write_bytes(one)
        write_merged(paths, here)
        moved = here.rename(folder / f"moved-{first}")
        found.append(open_merged(moved))
    return found


@pytest.mark.parametrize("at_once", [1, 3, PARTS])
def test_what_is_found_is_the_same(indexes, at_once, tmp_path):
    x, serialised = indexes
    plain = [open_index(one) for one in serialised]
    found = merged(serialised, at_once, tmp_path)
    assert sum(one.ntotal for one in found) == sum(one.ntotal for one in plain)
    np.testing.assert_array_equal(sum(map(list_sizes, found)), sum(map(list_sizes, plain)))
    queries = x[::41]
    wanted = search_sub_index(plain, queries, k=20, probes=9)
    for got, right in zip(search_sub_index(found, queries, k=20, probes=9), wanted, strict=True):
        np.testing.assert_array_equal(got, right)


def test_lists_that_are_cut_off_are_told(indexes, tmp_path):
    _, serialised = indexes
    merged(serialised[:2], 2, tmp_path)
    lists = tmp_path / "moved-0/lists"
    lists.write_bytes(lists.read_bytes()[:1000])
    with pytest.raises(LmrError, match="cut off"):
        open_merged(tmp_path / "moved-0")
