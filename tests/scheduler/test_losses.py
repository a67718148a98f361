"""Losing workers, and workers that differ: on a cluster of processes, with attempts counted on disk."""

import signal
import time

import pytest

from lmr.cluster.client import Where, open_client
from lmr.runtime.finish import RunFailed, raise_if_failed
from lmr.scheduler import runs
from lmr.scheduler.backlog import retire_hosts
from lmr.scheduler.run import submit
from tests.support.clusters import cluster
from tests.support.faults import attempts, marks, sleepers

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def submitted(made, step, tmp_path):
    return submit([step], str(tmp_path / "run"), Where(scheduler=made.address), workflow="toy").name


def settled(made, name):
    with open_client(Where(scheduler=made.address)) as client:
        ending = runs.follow(client, name, lambda counts: None)
        return raise_if_failed(ending), runs.find_run(client, name)


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_worker_costs_what_it_had_in_hand_and_no_more(tmp_path, number):
    # No lives at all by Dask's own count: it would blame every shard that was assigned to the lost worker.
    with cluster(tmp_path / "logs", workers=2, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as made:
        name = submitted(made, sleepers(tmp_path, 16), tmp_path)
        until(lambda: [worker for _, worker in marks(tmp_path, "ended")].count("w0") >= 3)
        made.signal("w0", number)
        (summary,), _ = settled(made, name)
    count = attempts(tmp_path)
    assert sorted(count) == list(range(16))
    assert sum(count.values()) <= 16 + 1
    # Shards whose receipts were lost with the worker are found in storage, not made again; the last one may
    # have been ended and not stored, or stored after the worker was given up.
    lost = [worker for _, worker in marks(tmp_path, "ended")].count("w0")
    assert lost - 1 <= summary.again <= lost
    # They were made by this run all the same: nothing was there before.
    assert (summary.made, summary.found) == (16, 0)


def test_a_shard_that_crashes_its_process_is_set_aside_and_its_neighbours_are_not(tmp_path):
    with cluster(tmp_path / "logs") as made:
        # Two threads, so that a neighbour would be in hand when the process dies.
        made.worker("w0", "--nanny", "--nthreads=2", "--resources=CPU=2")
        name = submitted(made, sleepers(tmp_path, 6, faults={2: "segfault"}), tmp_path)
        with pytest.raises(
            RunFailed, match=r"shard sleep/00002 was set aside\ngot: its worker process died 3 t"
        ) as failure:
            settled(made, name)
        with open_client(Where(scheduler=made.address)) as client:
            assert runs.find_run(client, name).deaths == 3
    assert [receipt.shard for receipt in failure.value.failed] == [2]
    assert attempts(tmp_path) == {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 1}


def test_a_shard_that_outgrows_its_worker_is_set_aside(tmp_path):
    with cluster(tmp_path / "logs") as made:
        made.worker("w0", "--nanny", "--memory-limit=1GiB")
        name = submitted(made, sleepers(tmp_path, 4, faults={1: "memory"}), tmp_path)
        with pytest.raises(RunFailed, match=r"shard sleep/00001 was set aside") as failure:
            settled(made, name)
    assert [receipt.shard for receipt in failure.value.failed] == [1]
    assert attempts(tmp_path) == {0: 1, 1: 3, 2: 1, 3: 1}


def test_a_worker_that_is_told_to_leave_finishes_its_shard_though_another_is_idle(tmp_path):
    with cluster(tmp_path / "logs") as made:
        for worker in ("w0", "w1"):
            made.worker(worker, LMR_LEAVE_NOTICE=str(tmp_path / f"notice-{worker}"))
        name = submitted(made, sleepers(tmp_path, 1, seconds=8), tmp_path)
        until(lambda: marks(tmp_path, "begun"))
        ((_, leaving),) = marks(tmp_path, "begun")
        (tmp_path / f"notice-{leaving}").touch()
        until(lambda: made.has_ended(leaving))
        settled(made, name)
    # Dask's own way to retire a worker gives the shard to the idle one at once.
    assert marks(tmp_path, "begun") == marks(tmp_path, "ended") == [(0, leaving)]


def test_what_waits_for_a_leaving_worker_is_given_back_at_once(tmp_path):
    notice = tmp_path / "notice"
    with cluster(tmp_path / "logs") as made:
        made.worker("spot", LMR_LEAVE_NOTICE=str(notice), TOY_SECONDS="120")
        submitted(made, sleepers(tmp_path, 4), tmp_path)
        until(lambda: marks(tmp_path, "begun"))
        with open_client(Where(scheduler=made.address)) as client:
            # There is nobody else, and tasks that ask for a resource are assigned at once.
            assert client.run_on_scheduler(assigned) == 4
            notice.touch()
            until(lambda: client.run_on_scheduler(assigned) == 1)
    assert len(marks(tmp_path, "begun")) == 1


def assigned(dask_scheduler):
    return sum(len(worker.processing) for worker in dask_scheduler.workers.values())


def test_the_last_host_can_be_retired_though_nobody_can_take_its_results(tmp_path):
    with cluster(tmp_path / "logs", workers=1) as made:
        name = submitted(made, sleepers(tmp_path, 4, seconds=1.5), tmp_path)
        until(lambda: marks(tmp_path, "ended"))
        with open_client(Where(scheduler=made.address)) as client:
            assert retire_hosts(client, ["127.0.0.1"]) == 1
        until(lambda: made.has_ended("w0"))
        made.worker("w1")
        (summary,), _ = settled(made, name)
    # Shards whose receipts went with it are found in storage.
    assert summary.again == [worker for _, worker in marks(tmp_path, "ended")].count("w0")
    assert attempts(tmp_path) == dict.fromkeys(range(4), 1)


def test_a_slow_worker_does_not_hold_up_the_end(tmp_path):
    with cluster(tmp_path / "logs") as made:
        made.worker("slow", TOY_SECONDS="60")
        made.worker("fast", TOY_SECONDS="0.1")
        name = submitted(made, sleepers(tmp_path, 12), tmp_path)
        settled(made, name)
        # The run has ended, and the slow worker is still at its first shard.
        assert [shard for shard, worker in marks(tmp_path, "ended") if worker == "slow"] == []
        # What waited for it was made by the fast one; what it had in hand was begun twice.
        begun = [shard for shard, worker in marks(tmp_path, "begun") if worker == "slow"]
        assert len(begun) == 1
        assert sum(attempts(tmp_path).values()) == 12 + 1


def test_a_step_of_one_shard_is_not_left_to_an_old_machine(tmp_path):
    with cluster(tmp_path / "logs") as made:
        made.worker("old", "--preload=tests.support.old_machine", TOY_SECONDS="120")
        name = submitted(made, sleepers(tmp_path, 1), tmp_path)
        until(lambda: marks(tmp_path, "begun"))
        made.worker("new")
        settled(made, name)
        # The run has ended, and the old machine is still at it.
        assert marks(tmp_path, "ended") == [(0, "new")]
