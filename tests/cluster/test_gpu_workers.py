"""Worker processes of this machine that have a GPU each; the GPUs are only names here."""

import os

import pytest

from lmr.cluster.client import Where
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Step
from lmr.scheduler.run import run
from lmr.storage.arrow import table
from tests.support.costs import cost
from tests.support.toys import Quiet


def seen(shard, settings):
    return table({"gpu": [os.environ.get("CUDA_VISIBLE_DEVICES", "all")], "process": [os.getpid()]})


def step(name, resource):
    return Step(
        name=name,
        folder=name,
        make=seen,
        settings=Settings(),
        inputs={},
        shards=12,
        cost=cost(),
        resources={resource: 1},
    )


@pytest.mark.cluster
def test_each_gpu_has_one_process_that_sees_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    steps = step("network", "GPU"), step("verify", "CPU")
    root = str(tmp_path / "run")
    run(steps, root, Where(workers=3, gpus=2), Quiet())
    network, verify = (
        {(row["gpu"], row["process"]) for i in range(12) for row in s.dataset(root).read(i).to_pylist()}
        for s in steps
    )
    assert {gpu for gpu, _ in network} <= {"3", "5"}
    assert len(network) == len({gpu for gpu, _ in network}) == len({process for _, process in network})
    assert len({process for _, process in network | verify}) <= 3
