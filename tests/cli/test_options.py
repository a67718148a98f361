"""One option, one meaning: which scheduler, and with which certificates."""

import pytest
from typer.testing import CliRunner

from lmr.cli.main import COMMANDS as TABLE
from lmr.cli.main import app
from lmr.errors import ClusterError
from tests.support.command_tree import command_at


def commands(group, path):
    if not hasattr(group, "commands"):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(pair for name in TABLE for pair in commands(command_at(name), (name,)))


def options(name):
    return {path: p for path, command in COMMANDS.items() for p in command.params if name in p.opts}


def meaning(option):
    return option.envvar, option.help, option.default, option.required, option.multiple, tuple(option.opts)


@pytest.mark.parametrize("name", ["--scheduler", "--tls"])
def test_an_option_means_the_same_on_every_command(name):
    found = options(name)
    assert len(found) >= 10
    assert len({meaning(option) for option in found.values()}) == 1, found


def test_every_command_that_takes_a_scheduler_reads_the_environment():
    arguments = {path: p for path, c in COMMANDS.items() for p in c.params if p.name == "address"}
    assert {*arguments} == {("cluster", "worker"), ("cluster", "retire")}
    takers = {**options("--scheduler"), **arguments}
    assert {
        ("run",), ("submit",), ("runs",), ("status",), ("watch",), ("cancel",), ("dashboard",),
        ("cluster", "status"), ("cluster", "scale"), ("cluster", "autoscale"),
    } <= {*takers}  # fmt: skip
    assert {p.envvar for p in takers.values()} == {"DASK_SCHEDULER_ADDRESS"}
    # Who takes a scheduler takes the certificates for it.
    assert {*takers} <= {*options("--tls")}


@pytest.mark.parametrize(
    "command",
    ["runs", "status", "status a", "watch a", "cancel a", "dashboard", "cluster worker", "cluster retire"],
)
def test_the_environment_is_honoured(command, monkeypatch, tmp_path):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://::1")
    monkeypatch.setenv("LMR_TLS", str(tmp_path))
    result = CliRunner().invoke(app, command.split())
    assert isinstance(result.exception, ClusterError)
    assert result.exception.got == "tls://::1"
    assert "tls://[::1]:8786" in result.exception.fix
    # What the fix says is then taken: the certificates are looked at next.
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://[::1]:8786")
    result = CliRunner().invoke(app, command.split())
    assert f"in {tmp_path}" in str(result.exception)


@pytest.mark.parametrize("command", ["status", "watch", "cancel"])
def test_without_a_scheduler_a_run_s_folder_is_pointed_out(command, monkeypatch, tmp_path):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    for run, fix in (
        (str(tmp_path), f"lmr info {tmp_path} tells what is there; or give --scheduler"),
        ("s3://bucket/a run", "lmr info 's3://bucket/a run' tells what is there; or give --scheduler"),
        ("toy-run-1234", "give --scheduler tls://host:8786, or set DASK_SCHEDULER_ADDRESS; of a run without"),
        (None, "give --scheduler tls://host:8786, or set DASK_SCHEDULER_ADDRESS; of a run without"),
    ):
        result = CliRunner().invoke(app, [command, *([run] if run else [])])
        assert isinstance(result.exception, ClusterError)
        assert result.exception.fix.startswith(fix), result.exception


def test_without_a_scheduler_the_dashboard_command_claims_nothing(monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    shown = CliRunner().invoke(app, ["dashboard", "--port", "9000"]).output
    assert "no scheduler was named, so none was asked" in shown
    assert "the dashboard listens at" not in shown
    assert "-L 127.0.0.1:9000:127.0.0.1:8787 HOST" in shown
    # What is printed to be run is nothing but the command.
    assert CliRunner().invoke(app, ["dashboard", "--ssh", "me@host", "--print"]).output.startswith("ssh -N ")
