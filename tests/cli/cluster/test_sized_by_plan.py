"""`autoscale` sizes a group by measured rates before a task has ended; scheduler, worker and run are real."""

import time

import pytest

from lmr.api.rates import Rate, Rates, write_rates
from lmr.cluster.client import Where, open_client
from lmr.cluster.commands import worker_command
from lmr.runtime.graph import make_plan
from lmr.scheduler import runs
from tests.cli.cluster.test_push import row
from tests.support import servers
from tests.support.command_line import cluster, running, up
from tests.support.toys import calls_of, let_go, workflow

SHARDS = 4


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_group_is_sized_by_the_plan_before_the_first_task_ends(home, moto_aws, tmp_path):
    up("--cpu", 1, "--limit-per-hour", 60, "--yes")
    tls, calls, rates = home / ".lmr" / "push", tmp_path / "calls", tmp_path / "rates.json"
    # A step that states no work is reckoned by its shards: eight of 1,000 s, and one of 100 s.
    seconds = {"numbers": 1000.0, "scaled": 1000.0, "total": 100.0}
    steps = {
        name: Rate(seconds_per_unit=each, unit="shard", work=1.0, tasks=1) for name, each in seconds.items()
    }
    write_rates(str(rates), Rates(measured={"date": "2026-11-28", "gallery": 10}, steps=steps))
    made = workflow(calls, shards=SHARDS, faults={"numbers": dict.fromkeys(range(SHARDS), "wait")})
    with servers.scheduler(tmp_path, tls) as address:
        command = worker_command(address, tls=str(tls), workers=1)
        where = Where(scheduler=address, tls=str(tls))
        with servers.started(command, tmp_path / "worker.log"), open_client(where) as client:
            client.wait_for_workers(1, timeout=120)
            record = runs.send(client, make_plan([made[-1]], str(tmp_path / "run")))
            while not calls_of(calls, "numbers"):  # the first task is being made, and does not end
                time.sleep(0.05)
            ask = ("autoscale", "--name", "push", "--scheduler", address, "--tls", tls, "--boot-minutes", 5)
            unknown = cluster(*ask, "--deadline", "50m", "--dry-run")
            assert "no task of it has been measured yet" in unknown.replace("\n", " ")
            assert row(unknown, "cpu") == [2 * SHARDS + 1, 1, 1]
            # 8,100 s of work; the one that is there does 3,000 s of it, new ones 2,700 s each.
            sized = cluster(*ask, "--deadline", "50m", "--rates", rates, "--once")
            assert row(sized, "cpu") == [2 * SHARDS + 1, 1, 3]
            assert len(running()) == 1 + 3
            let_go(calls)
            assert runs.follow(client, record.name, lambda progress: None).whole
