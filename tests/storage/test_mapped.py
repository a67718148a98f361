import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from lmr.errors import StorageError
from lmr.storage import arrow, mapped
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


def test_named_arrays_are_written_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "_PART_BYTES", 100)
    arrays = {
        "long": np.arange(1000, dtype=np.float32).reshape(250, 4),
        "one": np.array([3]),
        "none": np.empty((0, 5), np.int16),
        "bytes": np.frombuffer(bytes(range(250)), np.uint8),
    }
    rows = arrow.array_table(arrays)
    groups = [rows.slice(i, 1) for i in range(rows.num_rows)]
    mapped.write_arrays(groups, tmp_path, bare=("bytes",))
    for name in ("long", "one", "none"):
        found = np.load(tmp_path / f"{name}.npy", mmap_mode="r" if len(arrays[name]) else None)
        np.testing.assert_array_equal(found, arrays[name])
        assert found.dtype == arrays[name].dtype
    assert (tmp_path / "bytes").read_bytes() == bytes(range(250))


def damaged(data, how):
    if how == "flipped":
        return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    return {"cut": data[: len(data) // 2], "empty": b"", "longer": data + b"0"}[how]


@pytest.mark.parametrize("how", ["cut", "empty", "missing", "flipped", "longer"])
@pytest.mark.parametrize("file", ["values", "values.json", "description.json", "verified.json"])
def test_a_damaged_file_is_unpacked_again_once(dataset, cache_folder, monkeypatch, file, how):
    mapped.stack(dataset, "x")
    path = cache_folder / "lmr-unpacked" / "toy-0123456789ab-x" / file
    times = path.stat()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(damaged(path.read_bytes(), how))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # nor does a disk that fails tell of it
    written = []
    write = mapped._write_stack
    monkeypatch.setattr(mapped, "_write_stack", lambda *a: written.append(1) or write(*a))
    np.testing.assert_array_equal(mapped.stack(dataset, "x")[:, 0], [0, 0, 2, 2, 2])
    np.testing.assert_array_equal(mapped.stack(dataset, "x")[:, 0], [0, 0, 2, 2, 2])
    # A damaged note of the last verification costs only another one.
    assert written == ([] if file == "verified.json" else [1])


def test_what_is_whole_and_cannot_be_opened_is_unpacked_again_once(dataset, cache_folder):
    made = []

    def write(folder):
        made.append(folder)
        (folder / "file").write_text("good" if len(made) == 2 else "bad")

    def read(folder):
        if (folder / "file").read_text() == "bad":
            raise ValueError("mmap length is greater than file size")
        return "opened"

    with pytest.raises(StorageError, match=r"cannot unpack toy(.|\n)*mmap length"):
        mapped.unpack(dataset, "k", write, read)
    assert mapped.unpack(dataset, "k", write, read) == "opened"
    assert len(made) == 2


def test_what_was_unpacked_is_flushed_to_disk_before_it_gets_its_name(dataset, cache_folder, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def flushed(number):
        done.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def named(source, target, **rest):
        done.append(("named", str(target)))
        replace(source, target, **rest)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", named)
    mapped.stack(dataset, "x")
    before = done[: done.index(("named", str(cache_folder / "lmr-unpacked" / "toy-0123456789ab-x")))]
    flushed_names = [os.path.basename(one) for one in before if isinstance(one, str)]
    assert {"values", "values.json", "description.json"} <= set(flushed_names)


def test_verified_files_are_not_digested_at_every_opening(dataset, monkeypatch, cache_folder):
    from lmr.storage import _sealed

    mapped.stack(dataset, "x")
    digested = []
    digest = _sealed._digest
    monkeypatch.setattr(_sealed, "_digest", lambda path: digested.append(path.name) or digest(path))
    mapped.stack(dataset, "x")
    assert digested == []
    note = cache_folder / "lmr-unpacked" / "toy-0123456789ab-x" / "verified.json"
    os.utime(note, (1, 1))  # long ago
    mapped.stack(dataset, "x")
    assert digested == ["values", "values.json"]


def test_what_a_killed_process_left_is_removed(dataset, cache_folder):
    from lmr.storage import folders

    left = folders.private_folder("unpacked") / ".toy-0123456789ab-x.abc"
    left.mkdir()
    (left / "values").write_bytes(b"half")
    mapped.stack(dataset, "x")
    assert not left.exists()
