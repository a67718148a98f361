"""What a task held is given back when it ends: the next one of its process begins as low as the first."""

import numpy as np
import pyarrow as pa

from lmr.runtime.own_memory import own_bytes
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.storage.datasets import Dataset

HELD_BYTES = 120_000_000


def greedy(shard, settings):
    """Hold small arrays of which every fiftieth is let go of last, and a table of Arrow's."""
    arrays = [np.ones(100_000, np.float32) for _ in range(HELD_BYTES // 2 // 400_000)]
    rows = pa.table({"x": pa.array([bytes([i]) * 1_000_000 for i in range(HELD_BYTES // 2_000_000)])})
    del arrays[::2]
    return rows.append_column("n", pa.array([len(arrays)] * rows.num_rows))


def test_a_task_leaves_its_process_as_it_was(tmp_path):
    dataset = Dataset(str(tmp_path / "data"), "greedy", "0123456789ab", 2)
    task = ShardTask(
        output=dataset, make=greedy, settings=None, inputs={}, arguments={}, failures=str(tmp_path / "failed")
    )
    before = own_bytes()
    receipts = [make_shard(task, shard) for shard in range(2)]
    assert max(receipt.peak_bytes for receipt in receipts) > before + HELD_BYTES
    # What is left are libraries, and what Arrow's allocator keeps of the first; without being told to give it
    # back, it keeps more than twice as much as the tasks held.
    assert own_bytes() < before + HELD_BYTES
