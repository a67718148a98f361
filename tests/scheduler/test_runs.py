"""Runs on a scheduler of their own process: submitted, left, watched, cancelled."""

import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from lmr.cluster.client import Where, open_client
from lmr.errors import ClusterError
from lmr.runtime.finish import RunFailed, raise_if_failed
from lmr.scheduler import runs
from lmr.scheduler.run import submit
from tests.support.clusters import ROOT, cluster
from tests.support.toys import calls_of, let_go, workflow

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), workers=2) as made:
        yield made


def leave_a_file(path):
    Path(path).write_text("closed")


def submitted(cluster, tmp_path, **toy):
    steps = workflow(tmp_path / "calls", **toy)
    finalizer = partial(leave_a_file, str(tmp_path / "closed"))
    where = Where(scheduler=cluster.address)
    return steps, submit([steps[-1]], str(tmp_path / "run"), where, workflow="toy", finalizer=finalizer)


def watched(cluster, name, hear=lambda progress: None):
    heard = []

    def listen(progress):
        heard.append(progress)
        hear(progress)

    with open_client(Where(scheduler=cluster.address)) as client:
        ending = runs.follow(client, name, listen)
        return ending, heard, runs.find_run(client, name)


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(step, tmp_path):
    """The shards of a step that are in storage."""
    return step.dataset(str(tmp_path / "run")).present()


@pytest.mark.slow
def test_a_run_goes_on_when_its_submitter_dies_and_is_watched_from_elsewhere(two_workers, tmp_path):
    code = f"""
import os, pathlib
from tests.scheduler.test_runs import submitted
class Cluster: address = {two_workers.address!r}
_, record = submitted(Cluster, pathlib.Path({str(tmp_path)!r}), shards=6, faults={{"scaled": {{5: "wait"}}}})
print(record.name, flush=True)
os._exit(9)  # no goodbye
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 9, done.stderr
    assert not (tmp_path / "closed").exists()

    def hear(progress):
        # The last one waits until the others were heard of.
        if 0 < progress.counts["scaled"] < 6:
            let_go(tmp_path / "calls")

    ending, heard, status = watched(two_workers, done.stdout.strip(), hear)
    assert [(s.step, s.made) for s in raise_if_failed(ending)] == [
        ("numbers", 6),
        ("scaled", 6),
        ("total", 1),
    ]
    assert (tmp_path / "closed").read_text() == "closed"
    assert any(0 < progress.counts["scaled"] < 6 for progress in heard)
    # What the machines are is noted, for the report too.
    assert re.match(r"2 workers on .*, speed 1\.00", status.record.notes[0])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == list(status.record.notes)
    assert (status.state, status.counts) == ("finished", {"numbers": 6, "scaled": 6, "total": 1})
    assert calls_of(tmp_path / "calls", "scaled") == list(range(6))


def test_a_second_submission_of_the_same_run_is_told_of_the_first(two_workers, tmp_path):
    toy = {"faults": {"scaled": dict.fromkeys(range(4), "wait")}}
    _, record = submitted(two_workers, tmp_path, **toy)
    watch = f"lmr watch {record.name} --scheduler {two_workers.address}"
    with pytest.raises(
        ClusterError, match=rf"this very run goes on as {record.name}\n(.|\n)*fix: {watch}; or lmr cancel"
    ):
        submitted(two_workers, tmp_path, **toy)
    with pytest.raises(ClusterError, match="a run with other settings goes on"):
        submitted(two_workers, tmp_path, shards=5)
    let_go(tmp_path / "calls")
    raise_if_failed(watched(two_workers, record.name)[0])
    assert calls_of(tmp_path / "calls", "scaled") == [0, 1, 2, 3]
    assert submitted(two_workers, tmp_path, **toy)[1] is None  # nothing is left to do


def test_two_runs_share_the_cluster(two_workers, tmp_path):
    held = {"faults": {"numbers": dict.fromkeys(range(4), "wait")}}
    first, second = (submitted(two_workers, tmp_path / name, **held)[1] for name in "ab")
    for name in "ab":
        let_go(tmp_path / name / "calls")
    assert raise_if_failed(watched(two_workers, first.name)[0])
    assert raise_if_failed(watched(two_workers, second.name)[0])
    with open_client(Where(scheduler=two_workers.address)) as client:
        names = [status.record.name for status in runs.list_runs(client)]
        # A finished run leaves nothing on the scheduler but its account.
        until(lambda: client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)
    assert names[:2] == [second.name, first.name]


def test_a_failed_run_is_told_from_any_machine_as_its_submitter_would_be(two_workers, tmp_path):
    _, record = submitted(two_workers, tmp_path, faults={"scaled": {1: "bug"}})
    ending, _, status = watched(two_workers, record.name)
    with pytest.raises(RunFailed, match=r"shard scaled/00001 failed\ngot: ZeroDivisionError: a bug"):
        raise_if_failed(ending)
    assert status.state == "failed"
    assert not (tmp_path / "closed").exists()


@pytest.mark.slow
def test_a_cancelled_run_keeps_what_is_finished_and_goes_on_when_submitted_again(two_workers, tmp_path):
    toy = {"shards": 8, "faults": {"scaled": dict.fromkeys((5, 6, 7), "wait")}}
    steps, record = submitted(two_workers, tmp_path, **toy)
    until(steps[1].dataset(str(tmp_path / "run")).present)
    with open_client(Where(scheduler=two_workers.address)) as client:
        assert runs.cancel_run(client, record.name).state == "cancelled"
        with pytest.raises(ClusterError, match=f"{record.name} was cancelled"):
            runs.follow(client, record.name, lambda counts: None)
        let_go(tmp_path / "calls")
        # What was in hand is finished.
        until(lambda: len(ended(steps[1], tmp_path)) == len(calls_of(tmp_path / "calls", "scaled")))
    kept = steps[1].dataset(str(tmp_path / "run")).present()
    assert 0 < len(kept) < 8
    _, again = submitted(two_workers, tmp_path, **toy)
    raise_if_failed(watched(two_workers, again.name)[0])
    assert calls_of(tmp_path / "calls", "scaled") == list(range(8))


def test_an_unknown_run_is_named_with_the_known_ones(two_workers):
    with (
        open_client(Where(scheduler=two_workers.address)) as client,
        pytest.raises(ClusterError, match="knows no run nothing"),
    ):
        runs.find_run(client, "nothing")


@pytest.mark.slow
def test_a_lost_scheduler_is_resumed_from_storage(tmp_path):
    toy = {"shards": 8, "faults": {"scaled": dict.fromkeys(range(8), "slow")}}
    with cluster(tmp_path / "one", workers=2) as first:
        steps, record = submitted(first, tmp_path, **toy)
        until(lambda: len(ended(steps[1], tmp_path)) >= 2)
        first.signal("scheduler")
        with pytest.raises(ClusterError):
            watched(first, record.name)
    made = len(calls_of(tmp_path / "calls", "scaled"))
    with cluster(tmp_path / "two", workers=2) as second:
        _, again = submitted(second, tmp_path, **toy)
        raise_if_failed(watched(second, again.name)[0])
    assert len(calls_of(tmp_path / "calls", "scaled")) <= 8 + 2
    assert calls_of(tmp_path / "calls", "numbers") == list(range(8))
    assert made >= 2
