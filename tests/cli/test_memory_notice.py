"""A local run says before it starts when its processes may not have the memory."""

from dataclasses import replace

import pytest

from lmr.cli.output.notices import memory_text
from lmr.cluster.capacity import memory_bytes
from lmr.cluster.client import Where, open_client, workers_of
from lmr.runtime.graph import Plan, StepPlan
from lmr.runtime.settings import Settings
from lmr.runtime.steps import PROCESS_BYTES, Cost, Step


def planned(task_bytes, missing=(0,)):
    cost = Cost(rows=1, bytes_per_row=1, task_bytes=task_bytes, work=1, unit="photo")
    step = Step(name="large", folder="large", make=dict, settings=Settings(), inputs={}, shards=1, cost=cost)
    small = replace(step, name="small", cost=replace(cost, task_bytes=0.0))
    return Plan(root="run", steps=(StepPlan(small, (0,), 0), StepPlan(step, missing, 0)))


@pytest.mark.parametrize(
    ("workers", "memory", "said"),
    [
        (4, 8e9, ""),
        (4, 7.9e9, "--workers 3 fits"),
        (1, 1.9e9, "photos in smaller shards take less"),
        (0, 1.9e9, "1 process(es)"),
        (4, 1.9e9, "photos in smaller shards take less"),
    ],
)
def test_too_little_memory_is_said_in_one_line(workers, memory, said):
    text = memory_text(planned(2e9 - PROCESS_BYTES), workers, memory)
    assert said in text
    assert bool(text) == bool(said)
    assert "\n" not in text
    if said:
        assert "a task of large takes up to 2.0 GB" in text


def test_what_is_there_already_takes_no_memory():
    assert memory_text(planned(2e9, missing=()), 1, 1e9) == ""


@pytest.mark.cluster
def test_workers_of_this_machine_share_all_its_memory():
    with open_client(Where(workers=1)) as client:
        (worker,) = workers_of(client).values()
    assert worker["memory_limit"] == memory_bytes()
