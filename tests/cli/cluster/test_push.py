"""A dry run of the whole push: AWS played by moto's server, the run and its scheduler and workers real."""

import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import boto3
import pytest

from lmr.cli.cluster import autoscale
from lmr.cluster.client import Where
from lmr.cluster.commands import worker_command
from lmr.errors import CloudError
from lmr.scheduler.run import run
from lmr.storage.arrow import column
from tests.support import servers
from tests.support.command_line import cluster, running, up
from tests.support.toys import Quiet, workflow

SHARDS, MEASURED = 16, 6


def worker(address, tls, host, folder):
    """Start a worker that a machine of its own would have: with an address of its own."""
    command = worker_command(address, tls=str(tls), workers=1)
    log = folder / f"{host}.log"
    # Three workers that start at once on two busy cores need their time.
    more = ("--host", f"tls://{host}", "--death-timeout", "240")
    there = replace(command, arguments=(*command.arguments, *more))
    return servers.started(there, log), log


def until(true):
    for _ in range(1200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def row(text, kind):
    """The row of a group in the table of `autoscale`: tasks, now, target."""
    return [int(part) for part in re.search(rf"│ {kind} +│ +(\d+) │ +(\d+) │ +(\d+) │", text).groups()]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_whole_push(home, moto_aws, tmp_path, monkeypatch):
    with pytest.raises(CloudError, match=r"49\.85 USD per hour, limit 30\.00"):
        up("--cpu", 10, "--gpu", 2, "--limit-per-hour", 30, "--yes")
    assert "at most" in up("--cpu", 1, "--limit-per-hour", 30, "--hours", 8, "--yes")
    with pytest.raises(CloudError, match=r"46\.55 USD per hour, limit 30\.00"):
        cluster("scale", "--name", "push", "--cpu", 10, "--yes")
    assert "machines   2 CPU and 0 GPU asked for" in cluster("scale", "--name", "push", "--cpu", 2, "--yes")
    assert len(running()) == 3
    tls, calls, ended = home / ".lmr" / "push", tmp_path / "calls", []
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    with ExitStack() as stack:
        # The certificates that `up` made and handed to the machines are those of this cluster.
        address = stack.enter_context(servers.scheduler(tmp_path, tls))
        started = [worker(address, tls, host, tmp_path) for host in hosts]
        processes = [stack.enter_context(process) for process, _ in started]
        for _, log in started:
            servers.said(log, "Registered to", seconds=240)

        # A spot machine is announced to be taken: its workers retire.
        assert cluster("retire", address, "--tls", tls, "--host", hosts[2]) == "1 workers retired\n"

        # A run of which six tasks are measured, a second each, and the others are held back.
        faults = dict.fromkeys(range(SHARDS), "six, then wait")
        steps = workflow(calls, shards=SHARDS, faults={"numbers": faults})
        where = Where(scheduler=address, tls=str(tls))
        root = str(tmp_path / "run")
        going = threading.Thread(target=lambda: ended.append(run([steps[-1]], root, where, Quiet())))
        going.start()
        stack.callback(going.join)
        stack.callback((calls / "open").touch)
        until(lambda: len(list((tmp_path / "run" / "numbers").rglob("part-*"))) >= MEASURED)

        ask = ("autoscale", "--name", "push", "--scheduler", address, "--tls", tls, "--boot-minutes", 0)
        calm = cluster(*ask, "--deadline", "6h", "--dry-run")
        tasks, now, target = row(calm, "cpu")
        assert 2 * (SHARDS - MEASURED) + 1 <= tasks <= 2 * SHARDS - 1
        assert (now, target) == (2, 1)
        assert row(calm, "gpu") == [0, 0, 0]
        assert len(running()) == 3

        # At least ten tasks of a second each, one at a time per machine, in three seconds.
        soon = row(cluster(*ask, "--deadline", "3s", "--dry-run"), "cpu")[2]
        assert 4 <= soon <= 6
        hurry = cluster(*ask, "--deadline", "0.5s", "--once")
        assert row(hurry, "cpu")[1:] == [2, 6]
        assert "but for the limit per hour" in hurry
        assert len(running()) == 7
        assert "2 on 2 machines" in cluster("status", "--name", "push", "--scheduler", address, "--tls", tls)

        # A spot machine is lost without a word.
        lost = next(one for one in running() if {"Key": "lmr:group", "Value": "cpu"} in one["Tags"])
        boto3.client("autoscaling").terminate_instance_in_auto_scaling_group(
            InstanceId=lost["InstanceId"], ShouldDecrementDesiredCapacity=False
        )
        os.killpg(processes[1].pid, signal.SIGKILL)
        assert "asked for  6 CPU" in cluster("status", "--name", "push", "--scheduler", "tcp://127.0.0.1:9")

        # The final push, one command: it sees the run to its end and takes the cluster down.
        def sleep(seconds):
            (calls / "open").touch()
            time.sleep(seconds)

        monkeypatch.setattr(autoscale, "pause", sleep)
        push = cluster(*ask, "--deadline", "6h", "--every", "0.5s", "--down", "--poll-seconds", 0.1)
        going.join(120)
    assert row(push, "cpu")[1:] == [6, 1]
    assert "nothing billable is left of the cluster push in us-east-1 but its bucket" in push
    assert running() == []
    # The loss cost the run nothing: it ended well, every shard is there and the sum is right.
    (outcome,) = ended
    assert [s.step for s in outcome.summaries] == ["numbers", "scaled", "total"]
    assert [len(step.dataset(root).present()) for step in steps] == [SHARDS, SHARDS, 1]
    assert column(steps[-1].dataset(root).read(0), "total")[0] == 2 * sum(range(10 * SHARDS))
