from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.errors import ShardError
from lmr.storage import datasets
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset


@pytest.fixture
def dataset(tmp_path):
    return Dataset(str(tmp_path / "data"), "toy", "0123456789ab", 3)


def rows(n=4):
    return table({"n": np.arange(n), "d": np.ones((n, 3), np.float16)})


def test_a_shard_reads_back_with_its_facts(dataset):
    size = dataset.write(1, rows(), seconds=1.5)
    assert dataset.present() == {1: size}
    assert column(dataset.read(1), "d").dtype == np.float16
    assert dataset.read(1, ["n"]).column_names == ["n"]
    assert dataset.facts(1)["rows"] == 4
    assert dataset.facts(1)["seconds"] == 1.5


@pytest.mark.parametrize("group", [1, 3, 4, 10, None])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (4, 8), (8, 12), (2, 3), (0, 10), (9, 10)])
def test_a_range_of_rows_can_be_read_alone(dataset, group, start, stop):
    dataset.write(0, rows(10), row_group_rows=group)
    found = column(dataset.read(0, ["n"], rows=range(start, stop)), "n")
    assert found.tolist() == list(range(start, min(stop, 10)))


def test_a_large_shard_is_cut_into_groups_that_are_read_one_by_one(dataset, monkeypatch):
    dataset.write(0, rows(100))
    monkeypatch.setattr(datasets, "GROUP_BYTES", rows(100).nbytes // 10)
    dataset.write(1, rows(100))
    one, many = (list(dataset.read_groups(shard, ["n"])) for shard in (0, 1))  # as it was before, and now
    assert [group.num_rows for group in one] == [100]
    assert [group.num_rows for group in many] == [10] * 10
    assert pa.concat_tables(many).equals(pa.concat_tables(one))
    assert dataset.read(0).equals(dataset.read(1))


def test_a_damaged_group_is_told_as_its_shards(dataset, monkeypatch):
    monkeypatch.setattr(datasets, "GROUP_BYTES", 100)
    dataset.write(0, rows(1000))
    path = Path(dataset.shard_url(0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="shard toy/00000 is damaged"):
        list(dataset.read_groups(0))


def test_an_empty_shard_keeps_its_columns(dataset):
    dataset.write(0, rows(0))
    assert column(dataset.read(0), "d").shape == (0, 3)


def test_a_missing_shard_is_named(dataset):
    with pytest.raises(ShardError, match=r"shard toy/00002 is missing\ngot: no file .*part-00002"):
        dataset.read(2)


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_truncated_shard_is_refused_by_name(dataset, keep):
    dataset.write(0, rows())
    path = Path(dataset.shard_url(0))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ShardError, match=r"shard toy/00000 is damaged(.|\n)*delete .*part-00000"):
        dataset.read(0)


def test_a_foreign_file_is_refused(dataset, tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"n": [1]}), dataset.shard_url(0))
    with pytest.raises(ShardError, match="a Parquet file that lmr did not write"):
        dataset.read(0)
    (tmp_path / "data" / "part-00001.parquet").write_text("hello")
    with pytest.raises(ShardError, match="shard toy/00001 is damaged"):
        dataset.read(1)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Dataset("", "other", "0123456789ab", 3), "step 'other', not 'toy'"),
        (Dataset("", "toy", "ffffffffffff", 3), "fingerprint 'ffffffffffff', not '0123456789ab'"),
    ],
)
def test_a_shard_of_another_step_or_setting_is_refused(dataset, other, told):
    Dataset(dataset.url, other.step, other.fingerprint, 3).write(0, rows())
    with pytest.raises(ShardError, match=told):
        dataset.read(0)


def test_a_shard_under_anothers_number_is_refused(dataset, tmp_path):
    dataset.write(0, rows())
    (tmp_path / "data" / "part-00000.parquet").rename(dataset.shard_url(1))
    with pytest.raises(ShardError, match="shard 0, not 1"):
        dataset.read(1)


def test_a_shard_with_rows_missing_is_refused(dataset):
    dataset.write(0, rows())
    whole = pq.read_table(dataset.shard_url(0))
    pq.write_table(whole.slice(0, 3), dataset.shard_url(0))
    with pytest.raises(ShardError, match="3 of 4 rows"):
        dataset.read(0)


def test_another_schema_version_is_refused(dataset, monkeypatch):
    from lmr.storage import datasets

    monkeypatch.setattr(datasets, "SCHEMA_VERSION", 99)
    dataset.write(0, rows())
    monkeypatch.undo()
    with pytest.raises(ShardError, match="schema 99, not 1"):
        dataset.read(0)


def test_half_written_files_are_not_shards(dataset, tmp_path):
    dataset.write(0, rows())
    (tmp_path / "data" / ".part-00001.parquet.123.tmp").write_text("half")
    (tmp_path / "data" / "part-00009.parquet").write_text("of a larger run")
    assert sorted(dataset.present()) == [0]
