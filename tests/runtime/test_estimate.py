"""How long a run will still take: arithmetic on counts, and rates read from shards."""

import pytest

from lmr.runtime.estimate import Left, Measured, StepWork, rates_of, seconds_left
from lmr.runtime.graph import make_plan
from lmr.runtime.rates import work_of
from lmr.scheduler.pace import Pace
from lmr.scheduler.run import run
from tests.support.toys import NumberSettings, Quiet, workflow


def step(shards=10, work=100.0, kind="extract", **more):
    return StepWork(shards=shards, work=work, kind=kind, **more)


def test_a_step_takes_what_its_finished_shards_took():
    # Four shards of 10 units took 80 s: 2 s a unit. Six are left, for three workers: two rounds of 20 s.
    left = seconds_left({"a": step()}, {"a": 4}, {"a": Measured(made=4, seconds=80)}, {"": 3})
    assert left == Left(40.0)


def test_queries_are_reckoned_at_the_rate_of_the_gallery_and_by_their_work():
    steps = {"a": step(), "a_queries": step(shards=2, work=5)}
    left = seconds_left(steps, {"a": 10}, {"a": Measured(made=10, seconds=200)}, {"": 1})
    assert left == Left(pytest.approx(10.0))


def test_a_step_of_one_shard_is_no_quicker_on_many_workers():
    steps = {"a": step(shards=1, work=50, known_rate=2.0)}
    assert seconds_left(steps, {}, {}, {"": 64}) == Left(100.0)


def test_what_is_being_made_is_half_done():
    steps = {"a": step(shards=1, work=50, known_rate=2.0)}
    assert seconds_left(steps, {}, {"a": Measured(running=1)}, {"": 64}) == Left(50.0)


def test_only_workers_with_the_resource_count():
    steps = {"a": step(known_rate=1.0, resources=("GPU",))}
    assert seconds_left(steps, {}, {}, {"": 10, "GPU": 2, "CPU": 8}) == Left(50.0)
    # Where nobody declares one, it is not asked for.
    assert seconds_left(steps, {}, {}, {"": 10}) == Left(10.0)


def test_a_rate_of_this_run_takes_the_place_of_an_earlier_one():
    steps = {"a": step(known_rate=7.0), "b": step(kind="other", known_rate=3.0)}
    assert rates_of(steps, {"a": Measured(made=1, seconds=20)}) == {"extract": 2.0, "other": 3.0}


def test_steps_of_which_nothing_is_known_are_named():
    steps = {"a": step(known_rate=1.0), "b": step(kind="other"), "c": step(kind="third")}
    assert seconds_left(steps, {"c": 10}, {}, {"": 1}) == Left(100.0, ("b",))


def test_a_step_without_shards_or_work_takes_nothing():
    assert seconds_left({"a": step(shards=0, work=0.0)}, {}, {}, {}) == Left(0.0)
    assert seconds_left({"a": step(work=0.0, known_rate=1.0)}, {}, {}, {}) == Left(0.0)


def test_the_clock_of_a_step_starts_with_its_first_task_and_ends_with_its_last():
    now = [100.0]
    pace = Pace(clock=lambda: now[0])
    assert pace.measured("a").elapsed_seconds is None  # it waits
    pace.begin("a")
    now[0] = 104.0
    assert pace.measured("a", running=1) == Measured(running=1, elapsed_seconds=4.0)
    pace.end("a", 4.0, speed=2.0)
    now[0] = 110.0
    assert pace.measured("a").elapsed_seconds == 10.0
    # On workers of half that speed, the same work would take twice as long.
    assert pace.measured("a", ended=True, speed=1.0) == Measured(made=1, seconds=8.0, elapsed_seconds=4.0)
    pace.forget(["a"])
    assert pace.measured("a") == Measured()


def test_shards_of_an_earlier_run_tell_how_long_the_same_step_takes(tmp_path):
    root, slow = str(tmp_path / "run"), dict.fromkeys(range(2), "slow")
    before = workflow(tmp_path / "calls", shards=2, faults={"numbers": slow})
    run([before[-1]], root)
    now = workflow(tmp_path / "calls", shards=4, numbers_=NumberSettings(offset=1))
    plan = make_plan([now[-1]], root)
    assert work_of(plan)["numbers"].known_rate is None
    work = work_of(plan, [step.dataset(root) for step in before])
    assert (work["numbers"].shards, work["total"].shards) == (4, 1)
    left = seconds_left({"numbers": work["numbers"]}, {}, {}, {"": 2})
    # Four shards on two workers: two rounds, each as long as a shard of the earlier run.
    took = [before[0].dataset(root).facts(shard)["seconds"] for shard in range(2)]
    assert min(took) >= 1.0
    assert left.seconds == pytest.approx(sum(took))


def test_a_run_in_this_process_says_how_long_it_will_take(tmp_path):
    heard = []

    class Listening(Quiet):
        def progressed(self, progress):
            heard.append(progress)

    slow = dict.fromkeys(range(3), "slow")
    first, *_ = workflow(tmp_path / "calls", shards=3, faults={"numbers": slow})
    run([first], str(tmp_path / "run"), None, Listening())
    begun = heard[0]
    assert begun.counts["numbers"] == 0
    assert begun.measured["numbers"].running == 1
    assert begun.left.unknown == ("numbers",)
    after_two = next(p for p in heard if p.counts["numbers"] == 2)
    assert after_two.left.seconds == pytest.approx(1.0, abs=0.6)
    assert heard[-1].left == Left(0.0)
