"""The engine on a toy workflow, in process and on a real cluster, with failures counted on disk."""

import os
import pickle
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lmr.cluster.client import Where
from lmr.runtime.steps import Each, Given, Step
from lmr.scheduler.run import RunFailed, run
from lmr.storage.arrow import column, table
from tests.support.costs import cost
from tests.support.toys import NumberSettings, Quiet, ScaleSettings, calls_of, scaled, workflow


def total_of(step, root):
    return column(step.dataset(root).read(0), "total")[0]


def test_a_run_makes_every_shard_once_and_a_second_run_makes_none(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls)
    listener = Quiet()
    outcome = run([steps[-1]], root, where, listener)
    assert total_of(steps[-1], root) == 2 * sum(range(40))
    assert [(s.step, s.made, s.found) for s in outcome.summaries] == [
        ("numbers", 4, 0),
        ("scaled", 4, 0),
        ("total", 1, 0),
    ]
    assert listener.counts == {"numbers": 4, "scaled": 4, "total": 1}
    assert all(s.seconds >= 0 and s.peak_bytes > 1e6 and s.bytes > 0 for s in outcome.summaries)

    again = run([steps[-1]], root, where, Quiet())
    assert again.summaries == ()
    assert calls_of(calls, "numbers") == calls_of(calls, "scaled") == [0, 1, 2, 3]
    assert not (tmp_path / "run" / "attempts").exists() or not list((tmp_path / "run" / "attempts").iterdir())


def test_only_missing_shards_and_what_needs_them_run_again(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls)
    run([steps[-1]], root, where, Quiet())
    for step, shard in ((steps[1], 2), (steps[2], 0)):
        (tmp_path / "run" / step.folder / step.fingerprint / f"part-{shard:05d}.parquet").unlink()
    run([steps[-1]], root, where, Quiet())
    assert calls_of(calls, "numbers") == [0, 1, 2, 3]
    assert calls_of(calls, "scaled") == [0, 1, 2, 2, 3]
    assert calls_of(calls, "total") == [0, 0]


def test_a_changed_setting_redoes_only_what_depends_on_it(tmp_path, where):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    run([workflow(calls)[-1]], root, where, Quiet())
    changed = workflow(calls, scale=ScaleSettings(factor=3.0))
    run([changed[-1]], root, where, Quiet())
    assert total_of(changed[-1], root) == 3 * sum(range(40))
    assert calls_of(calls, "numbers") == [0, 1, 2, 3]
    assert calls_of(calls, "scaled") == [0, 0, 1, 1, 2, 2, 3, 3]
    run([workflow(calls, numbers_=NumberSettings(offset=1))[-1]], root, where, Quiet())
    assert len(calls_of(calls, "numbers")) == 8


def test_inputs_of_a_finished_step_are_not_remade(tmp_path):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls)
    run([steps[-1]], root, Where(), Quiet())
    for path in (tmp_path / "run" / "numbers").rglob("part-*.parquet"):
        path.unlink()
    assert run([steps[-1]], root, Where(), Quiet()).summaries == ()


@pytest.mark.parametrize(
    ("kind", "told"), [("bug", "ZeroDivisionError: a bug"), ("refuse", "no good\ngot: this\nfix: that")]
)
def test_a_failed_shard_is_named_and_all_others_are_kept(tmp_path, where, kind, told):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls, faults={"scaled": {1: kind}})
    with pytest.raises(RunFailed) as failure:
        run([steps[-1]], root, where, Quiet())
    assert told in str(failure.value)
    assert [r.shard for r in failure.value.failed] == [1]
    assert failure.value.skipped == 1  # the total
    assert sorted(steps[1].dataset(root).present()) == [0, 2, 3]
    if kind == "bug":
        assert "ZeroDivisionError" in (tmp_path / "run" / "failures" / "scaled-00001.txt").read_text()
    # Mended, the run makes what is missing only.
    run([workflow(calls)[-1]], root, where, Quiet())
    assert calls_of(calls, "scaled") == [0, 1, 1, 2, 3]
    assert calls_of(calls, "numbers") == [0, 1, 2, 3]


@pytest.mark.cluster
def test_a_shard_that_kills_three_workers_is_set_aside_and_the_rest_finishes(tmp_path):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls, shards=8, faults={"scaled": {5: "die"}})
    with pytest.raises(RunFailed) as failure:
        run([steps[-1]], root, Where(workers=2), Quiet())
    assert "shard scaled/00005 was set aside" in str(failure.value)
    assert "died 3 times" in str(failure.value)
    assert calls_of(calls, "scaled").count(5) == 3
    assert sorted(steps[1].dataset(root).present()) == [0, 1, 2, 3, 4, 6, 7]
    # The next run gives it three lives again.
    run([workflow(calls, shards=8)[-1]], root, Where(workers=2), Quiet())
    assert calls_of(calls, "scaled").count(5) == 4


@pytest.mark.slow
@pytest.mark.cluster
def test_a_worker_killed_from_outside_costs_no_finished_shard(tmp_path):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    shards = 12
    steps = workflow(calls, shards=shards, faults={"scaled": dict.fromkeys(range(shards), "slow")})

    def kill_one():
        import psutil

        while len(calls_of(calls, "scaled")) < 4:
            time.sleep(0.05)
        pids = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # one that an earlier test has left, and that has ended
                if "spawn_main" in " ".join(child.cmdline()) and child.children() == []:
                    pids.append(child.pid)
        os.kill(max(pids), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run([steps[-1]], root, Where(workers=2), Quiet())
    killer.join()
    assert total_of(steps[-1], root) == 2 * sum(range(10 * shards))
    # One worker died with one shard in hand; the last one may be begun twice, on the worker that came back.
    assert len(calls_of(calls, "scaled")) <= shards + 2
    assert len(calls_of(calls, "numbers")) <= shards + 1


def test_a_vanished_input_is_named_with_the_remedy(tmp_path):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    first, _, _ = workflow(calls)
    run([first], root, Where(), Quiet())
    rows = table({"n": [0]})
    gone = Given(name="numbers", folder="numbers", rows=rows, fingerprint=first.fingerprint)
    alone = Step(
        name="scaled",
        folder="scaled",
        make=scaled,
        settings=ScaleSettings(),
        inputs={"numbers": gone},  # given: nothing will remake it
        shards=2,
        cost=cost(),
        placement={"calls": str(calls), "faults": {}},
    )
    (tmp_path / "run" / "numbers" / first.fingerprint / "part-00001.parquet").unlink()
    with pytest.raises(RunFailed, match=r"shard numbers/00001 is missing\ngot: no file .*part-00001"):
        run([alone], root, Where(), Quiet())
    assert sorted(alone.dataset(root).present()) == [0]


def test_a_full_disk_ends_with_what_to_do(tmp_path, monkeypatch):
    import errno

    from lmr.storage import objects

    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    steps = workflow(calls)
    replace = os.replace

    def full(source, target):
        if "scaled" in str(target) and "part-00002" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(objects.os, "replace", full)
    with pytest.raises(RunFailed, match=r"No space left(.|\n)*free some space"):
        run([steps[-1]], root, Where(), Quiet())
    assert sorted(steps[1].dataset(root).present()) == [0, 1, 3]
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.slow
def test_an_unreachable_scheduler_is_named(tmp_path):
    from lmr.errors import ClusterError

    with pytest.raises(ClusterError, match=r"cannot reach a Dask scheduler at tcp://127\.0\.0\.1:9"):
        run([workflow(tmp_path)[-1]], str(tmp_path / "run"), Where(scheduler="tcp://127.0.0.1:9"), Quiet())


def test_run_failed_travels_between_processes(tmp_path):
    failure = RunFailed([], 3)
    assert str(pickle.loads(pickle.dumps(failure))) == str(failure)


def test_keys_of_two_runs_differ_but_share_the_bar():
    from dask.utils import key_split

    from lmr.runtime.graph import dask_graph, make_plan

    plan = make_plan([workflow("x")[-1]], "memory://nowhere")
    one, two = (dask_graph(plan, run) for run in ("a", "b"))
    assert one.groups["scaled"] != two.groups["scaled"]
    assert key_split((one.groups["scaled"], 3)) == key_split((two.groups["scaled"], 1)) == "scaled"
    assert one.graph.layers[one.groups["scaled"]].annotations == {"resources": {"CPU": 1}}


def test_a_graph_has_one_task_per_shard_and_a_barrier_of_one():
    from lmr.runtime.graph import dask_graph, make_plan

    steps = workflow("x", shards=1000)
    built = dask_graph(make_plan([steps[-1]], "memory://nowhere"), "r")
    assert len(built.graph.layers[built.groups["scaled"]]) == 1000
    assert len(dict(built.graph)) == 1000 + 1000 + 1 + 3 + 1


def test_each_input_needs_its_own_shard_only(tmp_path):
    root, calls = str(tmp_path / "run"), tmp_path / "calls"
    first, second, _ = workflow(calls)
    assert isinstance(second.inputs["numbers"], Each)
    run([second], root, Where(), Quiet())
    for step in (first, second):
        (tmp_path / "run" / step.folder / step.fingerprint / "part-00001.parquet").unlink()
    run([second], root, Where(), Quiet())
    assert calls_of(calls, "numbers") == calls_of(calls, "scaled") == [0, 1, 1, 2, 3]


def test_a_step_that_needs_a_gpu_is_refused_where_no_worker_has_one(tmp_path):
    from dataclasses import replace

    from lmr.errors import ClusterError
    from lmr.runtime.graph import dask_graph, make_plan

    first, _, _ = workflow(tmp_path)
    plan = make_plan([replace(first, resources={"GPU": 1})], "memory://nowhere")
    with pytest.raises(
        ClusterError, match=r"numbers needs a worker with a GPU\ngot: workers that declare CPU"
    ):
        dask_graph(plan, "r", declared=frozenset({"CPU"}))
    assert dask_graph(plan, "r", declared=None)
    # A cluster whose workers declare nothing still runs steps that ask for a CPU only.
    built = dask_graph(make_plan([first], "memory://nowhere"), "r", declared=frozenset())
    assert built.graph.layers[built.groups["numbers"]].annotations is None


@pytest.mark.cluster
def test_a_scheduler_at_an_address(tmp_path):
    from distributed import LocalCluster

    steps = workflow(tmp_path / "calls")
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0") as cluster:
        run([steps[-1]], str(tmp_path / "run"), Where(scheduler=cluster.scheduler_address), Quiet())
    assert total_of(steps[-1], str(tmp_path / "run")) == 2 * sum(range(40))


def test_tracebacks_go_when_their_shards_are_made_after_all(tmp_path):
    folder = tmp_path / "run" / "failures"
    with pytest.raises(RunFailed, match=r"report it with .*numbers-00001\.txt"):
        run([workflow(tmp_path, faults={"numbers": {1: "bug"}})[-1]], str(tmp_path / "run"))
    assert [path.name for path in folder.iterdir()] == ["numbers-00001.txt"]
    # What lmr did not write stays.
    (folder / "mine.txt").touch()
    run([workflow(tmp_path)[-1]], str(tmp_path / "run"))
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_a_traceback_stays_while_its_shard_waits_for_another(tmp_path):
    folder, root = tmp_path / "run" / "failures", str(tmp_path / "run")
    with pytest.raises(RunFailed):
        run([workflow(tmp_path, faults={"scaled": {1: "bug"}})[-1]], root)
    first, *_, last = workflow(tmp_path, faults={"numbers": {1: "refuse"}})
    Path(first.dataset(root).shard_url(1)).unlink()
    with pytest.raises(RunFailed, match="no good"):
        run([last], root)
    assert [path.name for path in folder.iterdir()] == ["scaled-00001.txt"]


def test_what_can_be_foreseen_is_not_to_be_reported(tmp_path):
    with pytest.raises(RunFailed, match="mend the cause") as failure:
        run([workflow(tmp_path, faults={"numbers": {1: "disk"}})[-1]], str(tmp_path / "run"))
    assert "report it" not in str(failure.value)
    assert not (tmp_path / "run" / "failures").exists()
