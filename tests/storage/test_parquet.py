"""Reading starts no thread of Arrow's: one that outlives Python aborts the process (exit code 134)."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset
from lmr.storage.parquet import open_parquet, read_parquet

# The last way is Arrow's own, by which the test shows that it would see such threads.
COUNT = """
import json, os, sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lmr.steps.parquet_files import parquet_table
from lmr.storage.datasets import Dataset
from lmr.storage.plain import read_shard

dataset = Dataset(sys.argv[1], "toy", "0123456789ab", 1)
path = dataset.shard_url(0)
pa.set_cpu_count(4)
started = {}
for name, read in {
    "dataset": lambda: dataset.read(0),
    "range": lambda: dataset.read(0, rows=range(3, 8)),
    "shard": lambda: read_shard(path),
    "a list of a user's": lambda: parquet_table(Path(path).read_bytes(), "a.parquet"),
    "arrow": lambda: pq.ParquetFile(open(path, "rb")).read(),
}.items():
    before = set(os.listdir("/proc/self/task"))
    assert read().num_columns == 8
    started[name] = len(set(os.listdir("/proc/self/task")) - before)
print(json.dumps(started), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_reading_starts_no_thread(tmp_path):
    columns = {f"c{number}": np.arange(10) for number in range(8)}
    Dataset(str(tmp_path), "toy", "0123456789ab", 1).write(0, table(columns), row_group_rows=2)
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    started = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert started.pop("arrow") > 0
    assert started == {"dataset": 0, "range": 0, "shard": 0, "a list of a user's": 0}


def test_a_part_of_a_file_is_that_part():
    rows = pa.table({"a": range(6), "b": list("abcdef")})
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=2)
    parquet = open_parquet(sink)
    assert read_parquet(parquet).equals(rows)
    assert read_parquet(parquet, ["b"], row_groups=[2, 0]).to_pylist() == [{"b": b} for b in "efab"]
