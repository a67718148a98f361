"""What a scheduler has to do, read from a real scheduler's books."""

import time

import distributed
import pytest

from lmr.cluster.address import own_host
from lmr.cluster.commands import worker_command
from lmr.scheduler.backlog import Backlog, Pending, read_backlog, retire_hosts
from tests.support import servers


def demand(*pending):
    return Backlog(pending, {}, {})


def test_what_is_unmeasured_counts_with_the_mean_of_the_others():
    steps = (
        Pending("extract", "GPU", 10, 2.0),
        Pending("search", "CPU", 30, 4.0),
        Pending("verify", "CPU", 10, 8.0),
        Pending("diffuse", "CPU", 20, None),
    )
    assert demand(*steps).of("GPU") == (10, 20.0, 0)
    assert demand(*steps).of("CPU") == (60, 60 * (30 * 4 + 10 * 8) / 40, 20)
    assert demand(steps[3]).of("CPU") == (20, 0.0, 20)
    assert demand().of("CPU") == (0, 0.0, 0)


def test_what_is_unmeasured_counts_by_its_rate_where_one_is_known():
    measured = Pending("extract", "CPU", 10, 2.0, task_work=100.0, known_rate=9.0)
    before = Pending("verify", "CPU", 10, None, task_work=1000.0, known_rate=0.002)
    unknown = Pending("diffuse", "CPU", 5, None, task_work=100.0)
    assert demand(before).of("CPU") == (10, 20.0, 0)
    assert demand(before).of("CPU", {"verify": 0.003}) == (10, pytest.approx(30.0), 0)
    # What is measured here counts more than what was measured before.
    assert demand(measured, before).of("CPU", {"extract": 1.0}) == (20, 40.0, 0)
    assert demand(measured, unknown).of("CPU") == (15, 30.0, 5)
    assert demand(measured, unknown).of("CPU", {"diffuse": 0.01}) == (15, 25.0, 0)


def _held(dask_scheduler):
    return sum(task.state == "memory" for task in dask_scheduler.tasks.values())


@pytest.mark.cluster
def test_pending_tasks_by_step_and_resource_with_their_measured_mean(tmp_path):
    log = tmp_path / "worker.log"
    with (
        servers.scheduler(tmp_path) as address,
        servers.started(worker_command(address, workers=1), log),
        distributed.Client(address) as client,
    ):
        client.wait_for_workers(1, timeout=120)
        done = [
            client.submit(time.sleep, seconds, key=f"search-{i:08x}", resources={"CPU": 1}, pure=False)
            for i, seconds in enumerate((0.1, 0.3))
        ]
        distributed.wait(done)
        # No worker has a GPU: these wait.
        waiting = [
            client.submit(time.sleep, 0, key=f"extract-{i:08x}", resources={"GPU": 1}, pure=False)
            for i in range(5)
        ]
        after = client.submit(lambda _: None, waiting[0], key="search-ffffffff", resources={"CPU": 1})
        bookkeeping = client.submit(len, waiting, key="extract_done-00000000")
        # What a client submits arrives a little later.
        while sum(p.tasks for p in read_backlog(client).pending) < 6:
            time.sleep(0.05)
        found = read_backlog(client)
        assert [(p.step, p.resource, p.tasks) for p in found.pending] == [
            ("extract", "GPU", 5),
            ("search", "CPU", 1),
        ]
        assert found.pending[0].task_seconds is None
        # Sleeps of 0.1 s and 0.3 s; a busy machine adds to both, and the mean of others is not among them.
        assert 0.2 <= found.pending[1].task_seconds < 5
        assert found.workers == 1
        (host,) = found.slots
        assert found.slots[host] == {"CPU": 1}
        assert own_host(address) == "127.0.0.1"
        assert retire_hosts(client, ["192.0.2.1"]) == 0
        # Nobody else could hold what this worker has made, so that is let go first.
        del done
        while client.run_on_scheduler(_held):
            time.sleep(0.05)
        assert retire_hosts(client, [host]) == 1
        deadline = time.monotonic() + 120
        while read_backlog(client).workers:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        del after, bookkeeping
