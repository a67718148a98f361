"""What a workflow takes on some machines: arithmetic on costs and rates."""

from dataclasses import replace

import pytest

from lmr.errors import ClusterError
from lmr.runtime.forecast import MachineGroup, check_fits, forecast, rate_of, warnings_of
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Step, Whole

GB = 1e9


def make(shard, settings):
    raise AssertionError("a forecast makes nothing")


def step(name="verify", *, shards=100, work=1000.0, task_bytes=0.6e9, mapped=0.0, gpu=False, inputs=()):
    return Step(
        name=name,
        folder=name,
        make=make,
        settings=Settings(),
        inputs={f"i{n}": Whole(one) for n, one in enumerate(inputs)},
        shards=shards,
        resources={"GPU": 1} if gpu else {"CPU": 1},
        cost=Cost(
            rows=1000,
            bytes_per_row=1e6,
            task_bytes=task_bytes,
            work=work,
            unit="pair",
            mapped_bytes=mapped,
        ),
    )


def machines(count=2, processors=10, memory=100, disk=200, gpus=0, usd=5.0, name="m5.24xlarge"):
    return MachineGroup(
        name=name,
        count=count,
        processors=processors,
        memory_bytes=memory * GB,
        disk_bytes=disk * GB,
        gpus=gpus,
        usd_per_hour=usd,
    )


def only(found):
    (one,) = found.steps
    return one


def test_hours_are_rounds_of_tasks_and_the_price_is_that_of_all_machines():
    # 100 tasks of 10 units at 36 s each: 360 s a task, 5 rounds on 20 workers.
    found = forecast([step()], {"verify": 36.0}, [machines()])
    assert found.hours == pytest.approx(0.5)
    assert found.core_hours == pytest.approx(10.0)
    assert found.usd == pytest.approx(0.5 * 2 * 5.0)
    assert (only(found).workers, only(found).limit) == (20, "processors")
    assert forecast([step()], {"verify": 36.0}, [machines()], speed=2.0).hours == pytest.approx(0.25)


def test_a_last_round_that_is_not_full_takes_as_long_as_a_full_one():
    assert forecast([step(shards=21, work=21)], {"verify": 3600.0}, [machines()]).hours == pytest.approx(2.0)


def test_few_tasks_and_one_task_are_no_quicker_on_more_machines():
    for shards, limit in ((1, "one task"), (5, "tasks")):
        one, ten = (
            forecast([step(shards=shards)], {"verify": 36.0}, [machines(count=count)]) for count in (1, 10)
        )
        assert one.hours == ten.hours == pytest.approx(10 / shards)
        assert only(ten).limit == limit


def test_memory_decides_how_many_tasks_run_at_a_time():
    found = forecast([step(task_bytes=19.35 * GB)], {"verify": 36.0}, [machines()])
    assert (only(found).workers, only(found).limit) == (10, "memory")  # five of 20 GB in each 100
    assert only(found).machine_bytes == pytest.approx(100 * GB)


def test_gpu_machines_make_what_needs_a_gpu_and_nothing_else():
    groups = [machines(), machines(count=1, gpus=4, name="g5")]
    found = forecast([step(), step("extract", gpu=True)], {"verify": 36.0, "extract": 36.0}, groups)
    assert [one.workers for one in found.steps] == [20, 4]
    assert found.bottleneck.name == "extract"
    with pytest.raises(ClusterError, match="extract: it needs a GPU"):
        check_fits([step("extract", gpu=True)], [machines()])


def test_a_rate_that_was_not_measured_stays_unknown():
    found = forecast([step(), step("rank")], {"verify": 36.0}, [machines()])
    assert found.unknown == ("rank",)
    assert found.steps[1].hours is None
    assert found.hours == pytest.approx(0.5)
    assert rate_of("verify_queries", {"verify": 2.0}) == 2.0
    assert rate_of("verify", {}) is None


def test_a_task_that_fits_no_machine_is_refused():
    with pytest.raises(ClusterError, match=r"verify does not fit") as caught:
        check_fits([step(task_bytes=120 * GB)], [machines(), machines(memory=50)])
    assert "120.7 GB, and m5.24xlarge has 100.0 GB" in str(caught.value)
    check_fits([step(task_bytes=90 * GB)], [machines(), machines(memory=50)])


def test_small_disks_memory_and_slow_storage_are_warned_of():
    rates = {"verify": 36.0, "search": 36.0}
    whole = step("search")
    easy = forecast([whole, step(inputs=(whole,))], rates, [machines()])
    assert warnings_of(easy) == []
    assert easy.steps[1].read_bytes == pytest.approx(2 * 1000 * 1e6)  # once per machine
    shared = replace(step(), inputs={"groups": Whole(whole, shared_out=True)})
    assert forecast([whole, shared], rates, [machines()]).steps[1].read_bytes == pytest.approx(1000 * 1e6)
    big = forecast([step(mapped=120 * GB)], rates, [machines()])
    disk, memory = warnings_of(big)
    assert "unpacks 120 GB on each machine" in disk
    assert "maps 120 GB beside 12 GB of its workers, which is 1.3 times a machine's memory" in memory
    # A machine that makes no task of the step is not asked.
    idle = forecast([step()], rates, [machines(), machines(count=1, memory=1, gpus=1, name="g5")])
    assert warnings_of(idle) == []
    slow = warnings_of(easy, storage_bytes_per_second=1e5)
    assert [text.split(" asks")[0] for text in slow] == ["search", "verify"]
    assert warnings_of(easy, storage_bytes_per_second=1e9) == []
