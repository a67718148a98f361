import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from lmr.errors import StorageError
from lmr.storage import mapped
from lmr.storage.arrow import Ragged, table
from lmr.storage.datasets import Dataset


@pytest.fixture
def dataset(tmp_path):
    made = Dataset(str(tmp_path / "data"), "toy", "0123456789ab", 3)
    for shard, n in enumerate((2, 0, 3)):
        values = np.full((n, 4), shard, np.float32)
        lists = Ragged(np.full((2 * n, 2), shard, np.float16), np.arange(n + 1) * 2)
        made.write(shard, table({"x": values, "n": np.full(n, shard), "r": lists}))
    return made


def total(dataset):
    return float(mapped.stack(dataset, "x").sum())


def test_a_stack_holds_all_shards_in_order(dataset):
    np.testing.assert_array_equal(mapped.stack(dataset, "x")[:, 0], [0, 0, 2, 2, 2])
    np.testing.assert_array_equal(mapped.stack(dataset, "n"), [0, 0, 2, 2, 2])
    lists = mapped.stack_ragged(dataset, "r")
    assert lists.offsets.tolist() == [0, 2, 4, 6, 8, 10]
    assert lists[4].tolist() == [[2, 2], [2, 2]]


def test_shards_are_read_once_per_machine(dataset, tmp_path):
    mapped.stack(dataset, "x")
    os.remove(dataset.shard_url(2))
    assert total(dataset) == 24


def test_several_processes_may_ask_at_once(dataset):
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(total, [dataset] * 6)) == [24.0] * 6


def test_the_least_recently_used_goes_first(dataset, cache_folder, monkeypatch):
    mapped.stack(dataset, "x")
    unpacked = cache_folder / "lmr-unpacked"
    os.utime(unpacked / "toy-0123456789ab-x", (1, 1))
    monkeypatch.setenv("LMR_CACHE_GB", "0.0000008")
    rows = mapped.stack(dataset, "n")
    assert [f.name for f in unpacked.iterdir() if f.is_dir()] == ["toy-0123456789ab-n"]
    assert rows.tolist() == [0, 0, 2, 2, 2]
    assert total(dataset) == 24  # unpacked again


def test_a_failed_unpacking_leaves_nothing(dataset, cache_folder):
    os.remove(dataset.shard_url(1))
    with pytest.raises(StorageError, match="toy/00001 is missing"):
        mapped.stack(dataset, "x")
    assert [f for f in (cache_folder / "lmr-unpacked").iterdir() if f.is_dir()] == []


def test_a_folder_that_cannot_be_made_is_named(dataset, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set LMR_CACHE"):
        mapped.stack(dataset, "x")
