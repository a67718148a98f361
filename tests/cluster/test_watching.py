"""Dask's processes look at themselves less often, unless the environment says how often."""

import dask
import distributed  # noqa: F401 - its settings are looked at
import pytest

from lmr.cluster.client import Where, open_client
from lmr.cluster.commands import scheduler_command, worker_command
from lmr.cluster.watching import watching, watching_environment


def test_the_settings_are_those_of_dask_and_the_environment_goes_first(monkeypatch):
    assert all(dask.config.get(key) != value for key, value in watching().items())
    given = dask.config.collect_env(watching_environment())
    assert all(dask.config.get(key, config=given) == value for key, value in watching().items())
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL", "7ms")
    assert "distributed.worker.profile.interval" not in watching()
    assert len(watching_environment()) == len(watching()) == 3


def test_schedulers_and_workers_are_started_so():
    for command in (scheduler_command(), worker_command("tcp://127.0.0.1:8786", workers=1)):
        assert command.environment["DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL"] == "500ms"


@pytest.mark.cluster
def test_local_workers_are_started_so():
    with open_client(Where(workers=1)) as client:
        (found,) = client.run(dask.config.get, "distributed.admin.tick.interval").values()
    assert found == "500ms"
