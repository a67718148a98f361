"""The step that brings own descriptors into shards."""

import numpy as np
import pytest

from lmr.runtime.steps import SHARD_BYTES
from lmr.runtime.tasks import ShardTask
from lmr.steps.both import Both
from lmr.steps.features.own import OwnSettings, own_descriptors
from lmr.steps.features.own_files import read_vectors
from lmr.steps.inputs import Inputs
from tests.support.task_memory import Job, measure

NOISE_BYTES = 20_000_000  # what allocators and readers take, whatever the task


def step_of(photos, regions, root, per_shard):
    """The gallery's step over random vectors, with its input stored."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((photos, regions, 128), dtype=np.float32)
    side = read_vectors("gallery", x, [f"p{i}" for i in range(photos)])
    both = Both(side, read_vectors("queries", x[:3], ["a", "b", "c"]))
    inputs = Inputs(photos=both.map(lambda one: one.photos()), vectors=both)
    (step,) = own_descriptors(inputs, OwnSettings(photos_per_shard=per_shard)).gallery.source.parts
    step.inputs["vectors"].store(root)
    return step


@pytest.mark.slow
@pytest.mark.parametrize("regions", [1, 8])
def test_it_takes_no_more_than_it_states(tmp_path, regions):
    root = str(tmp_path)
    small = ShardTask.of(step_of(20, regions, root, 20), root)
    step = step_of(200_000 // regions, regions, root, 120_000 // regions)
    (took,) = measure([Job(ShardTask.of(step, root), tuple(range(step.shards)), small)])
    assert not took.errors
    assert took.rows == step.cost.rows
    assert took.bytes <= step.cost.rows * step.cost.bytes_per_row + step.shards * SHARD_BYTES
    assert took.peak_bytes <= step.cost.peak_bytes
    print(f"{took.task_bytes / 1e6:.0f} MB, stated {step.cost.task_bytes / 1e6:.0f} MB")
    assert took.task_bytes - NOISE_BYTES <= step.cost.task_bytes <= 4 * took.task_bytes + NOISE_BYTES


def test_another_value_order_or_id_is_another_fingerprint(tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 8))
    ids = ["a", "b", "c", "d"]
    base = read_vectors("gallery", x, ids).given(10).fingerprint
    assert read_vectors("gallery", x.astype(np.float32) * 2, ids).given(10).fingerprint == base  # unit rows
    others = [
        read_vectors("gallery", x[::-1], ids),
        read_vectors("gallery", x, ids[::-1]),
        read_vectors("gallery", np.where(np.arange(8) == 3, -x, x), ids),
        read_vectors("gallery", x.reshape(2, 2, 8), ids[:2]),
        read_vectors("queries", x, ids),
    ]
    assert base not in [one.given(10).fingerprint for one in others]


def test_the_first_photos_only():
    x = np.random.default_rng(0).standard_normal((4, 3, 8))
    some = read_vectors("gallery", x, ["a", "b", "c", "d"]).first(2)
    assert some.ids == ("a", "b")
    assert np.array_equal(some.regions.values, read_vectors("gallery", x[:2], ["a", "b"]).regions.values)
    assert some.regions.offsets.tolist() == [0, 3, 6]
