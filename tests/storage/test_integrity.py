"""One flipped bit in what is stored is told, not read; what an earlier lmr stored is read as before."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.cluster.client import Where
from lmr.errors import ShardError, StorageError
from lmr.scheduler.run import run
from lmr.storage.arrow import Ragged, array_table, table
from lmr.storage.datasets import Dataset
from lmr.storage.json_files import read_json, write_json
from tests.support.toys import Quiet, workflow

RNG = np.random.default_rng(0)
KINDS = {
    "packed rows": table({"d": RNG.random((40, 3)).astype(np.float16), "n": np.arange(40)}),
    "lists": table({"l": Ragged(np.arange(80, dtype=np.int32)[:, None], np.arange(41) * 2)}),
    "text and bytes": table({"id": [f"p{i}" for i in range(40)], "b": [b"x" * i for i in range(40)]}),
    "gaps": table({"o": [None if i % 3 == 0 else i for i in range(40)]}),
    "named arrays": array_table({"index": RNG.bytes(400), "probes": np.array([3])}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_told_or_changes_nothing(tmp_path, kind):
    dataset = Dataset(str(tmp_path), "toy", "0123456789ab", 1)
    dataset.write(0, KINDS[kind])
    path = Path(dataset.shard_url(0))
    data, whole, facts = path.read_bytes(), dataset.read(0), dataset.facts(0)
    told = 0
    bits = RNG.permutation(len(data) * 8)[:400]
    for bit in bits:
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        try:
            assert dataset.read(0).equals(whole), f"bit {bit} of {len(data)} bytes"
            assert dataset.facts(0) == facts
        except ShardError:
            told += 1
    assert told > 0.9 * len(bits)


@pytest.mark.parametrize("part", ["pages", "footer"])
def test_damage_is_told_with_a_fix_that_works(tmp_path, part):
    _, _, total = steps = workflow(tmp_path / "calls")
    root = str(tmp_path / "run")
    run(steps, root, Where(), Quiet())
    whole = total.dataset(root).read(0)
    path = Path(steps[1].dataset(root).shard_url(1))
    data = bytearray(path.read_bytes())
    at = 40 if part == "pages" else len(data) - 200
    data[at] ^= 1
    path.write_bytes(data)
    os.remove(total.dataset(root).shard_url(0))
    with pytest.raises(Exception, match="shard scaled/00001 is damaged") as told:
        run(steps, root, Where(), Quiet())
    (fix,) = set(re.findall(r"fix: delete (\S+) and run the same command again", str(told.value)))
    os.remove(fix)
    run(steps, root, Where(), Quiet())
    assert total.dataset(root).read(0).equals(whole)


def test_shards_without_checksums_are_read(tmp_path):
    dataset = Dataset(str(tmp_path), "toy", "0123456789ab", 1)
    facts = {"schema": 1, "step": "toy", "fingerprint": "0123456789ab", "shard": 0, "shards": 1, "rows": 40}
    rows = KINDS["packed rows"]
    pq.write_table(
        rows.replace_schema_metadata({"lmr": json.dumps(facts)}),
        dataset.shard_url(0),
        compression="lz4",
        use_dictionary=False,
        write_statistics=False,
    )
    assert dataset.read(0).equals(rows)
    assert dataset.facts(0) == facts


def test_a_shard_is_plain_parquet_for_others(tmp_path):
    dataset = Dataset(str(tmp_path), "toy", "0123456789ab", 1)
    dataset.write(0, KINDS["lists"], row_group_rows=7)
    assert pq.read_table(dataset.shard_url(0)).equals(KINDS["lists"])


def test_a_footer_longer_than_one_request_is_verified(tmp_path):
    dataset = Dataset(str(tmp_path), "toy", "0123456789ab", 1)
    rows = pa.table({f"column {i:04d}": [i] for i in range(1500)})
    dataset.write(0, rows)
    assert dataset.read(0).equals(rows)
    path = Path(dataset.shard_url(0))
    data = bytearray(path.read_bytes())
    assert int.from_bytes(data[-8:-4], "little") > 1 << 16
    data[-100_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="its footer is not the one that was written"):
        dataset.read(0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "the file: "),
        (b"[1]", "the file: "),
        (b'{"a": "b"}', "a: Input should be a valid integer"),
        (b'{"a": 1e400}', "a: "),
        (b"\xff\xfe", "the file: "),
        (b"[" * 100_000, "the file: "),
    ],
)
def test_json_of_another_shape_is_told(tmp_path, text, told):
    path = tmp_path / "run.json"
    path.write_bytes(text)
    with pytest.raises(StorageError, match=r"run\.json is not what lmr wrote") as error:
        read_json(str(path), dict[str, int], fix="delete it")
    assert told in error.value.got
    assert error.value.fix == "delete it"


@pytest.mark.parametrize("value", [{"a": 12345, "b": 7}, [{"a": 12345}]])
def test_a_flipped_bit_in_json_is_told_and_files_of_an_earlier_lmr_are_read(tmp_path, value):
    path, kind = tmp_path / "file.json", dict[str, int] if isinstance(value, dict) else list[dict[str, int]]
    path.write_text(json.dumps(value))
    assert read_json(str(path), kind, fix="") == value
    write_json(str(path), value)
    assert read_json(str(path), kind, fix="") == value
    path.write_text(path.read_text().replace("12345", "12347"))
    with pytest.raises(StorageError, match="does not fit its digest"):
        read_json(str(path), kind, fix="")
