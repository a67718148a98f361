"""A lab of two servers, each with an ssh daemon and a home of its own, on loopback."""

import os
import re
import shutil
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import distributed
import psutil
import pytest
from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.cluster.certificates import make_certificates
from lmr.cluster.client import workers_of
from lmr.cluster.tls import security
from lmr.errors import ClusterError
from lmr.lab.hosts import read_lab
from tests.support.ssh_daemon import server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("sshd", path=f"{os.defpath}:/usr/sbin") is None,
        reason="needs an OpenSSH server (Debian: apt-get install openssh-server)",
    ),
]


@pytest.fixture
def lab(tmp_path):
    """A file of hosts: `one` is scheduler and has a worker, `two` has two workers."""
    make_certificates(tmp_path / "certs", hosts=["127.0.0.1"])
    command = tmp_path / "lmr"
    root = Path(__file__).parents[2]
    command.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m lmr "$@"\n')
    command.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(
        f'tls = "certs"\nport = {port}\nlmr = "{command}"\nssh_config = "ssh_config"\n'
        '[[host]]\nssh = "one"\nrole = "scheduler"\naddress = "127.0.0.1"\n'
        '[[host]]\nssh = "one"\nrole = "cpu"\nworkers = 1\n'
        '[[host]]\nssh = "two"\nrole = "cpu"\nworkers = 2\n'
    )
    with ExitStack() as stack:
        configs = [stack.enter_context(server(name, tmp_path)) for name in ("one", "two")]
        written = {hosts: hosts.read_text(), tmp_path / "ssh_config": "\n".join(configs)}
        (tmp_path / "ssh_config").write_text(written[tmp_path / "ssh_config"])
        yield hosts
        for path, text in written.items():  # whatever a test did to them
            path.write_text(text)
        invoke("down", hosts)


def invoke(verb, hosts):
    result = CliRunner().invoke(app, ["cluster", "lab", verb, str(hosts)], env={"COLUMNS": "200"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result.output


def states(output):
    return [re.split(r"\s*│\s*", line)[1:4] for line in output.splitlines() if line.startswith("│")]


def workers_named(lab, expected):
    """Ask the scheduler, as a client with the laptop's certificate, until all are there."""
    found = read_lab(lab)
    trusted = security(found.scheduler, str(found.tls))
    with distributed.Client(found.scheduler, security=trusted, timeout="60s") as client:
        client.wait_for_workers(len(expected), timeout=60)
        return sorted(w["name"] for w in workers_of(client).values())


def test_up_status_down(lab, tmp_path):
    up = invoke("up", lab)
    assert states(up) == [
        ["one", "scheduler", "started"],
        ["one", "cpu", "started"],
        ["two", "cpu", "started"],
    ]
    names = ["one", "two-0", "two-1"]
    assert workers_named(lab, names) == names

    # Each server holds its role's certificate; the authority's key stays on the laptop.
    kept = sorted(path.name for path in (tmp_path / "two" / ".lmr" / "lab" / "tls").iterdir())
    assert kept == ["ca.pem", "worker.key", "worker.pem"]
    assert (tmp_path / "two" / ".lmr" / "lab" / "tls" / "worker.key").stat().st_mode & 0o077 == 0

    assert [state for *_, state in states(invoke("up", lab))] == ["already"] * 3
    status = invoke("status", lab)
    assert [state for *_, state in states(status)] == ["running"] * 3
    # Both servers of this test are one address to the scheduler.
    assert "the scheduler knows 3 workers on 1 servers; 0 tasks are pending" in status

    groups = [int(path.read_text()) for path in tmp_path.glob("*/.lmr/lab/*.pid")]
    assert len(groups) == 3
    assert [state for *_, state in states(invoke("down", lab))] == ["stopped"] * 3
    for group in groups:
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)
    assert [state for *_, state in states(invoke("status", lab))] == ["absent"] * 3


def test_a_killed_scheduler_comes_back_and_its_workers_with_it(lab, tmp_path):
    names = ["one", "two-0", "two-1"]
    invoke("up", lab)
    assert workers_named(lab, names) == names
    group = int((tmp_path / "one" / ".lmr" / "lab" / "scheduler.pid").read_text())
    (scheduler,) = [p for p in psutil.Process(group).children() if "scheduler" in p.cmdline()]
    scheduler.kill()
    scheduler.wait(10)
    assert workers_named(lab, names) == names
    assert "1" in invoke("status", lab).splitlines()[4].split("│")[5]  # the scheduler's restarts


def test_a_server_that_cannot_be_reached_stops_everything_before_it_starts(lab, tmp_path):
    config = tmp_path / "ssh_config"
    config.write_text(re.sub(r"(Host two\n(?:.*\n)*?\s*Port )\d+", r"\g<1>1", config.read_text()))
    with pytest.raises(ClusterError, match="cannot reach two over ssh"):
        invoke("up", lab)
    with pytest.raises(ClusterError, match="1 of 3 could not be asked: two"):
        invoke("status", lab)
    assert not (tmp_path / "one" / ".lmr").exists()


def test_without_certificates_the_command_that_makes_them_is_told(lab, tmp_path):
    shutil.rmtree(tmp_path / "certs")
    with pytest.raises(ClusterError, match=r"lmr cluster certs .*/certs --host 127.0.0.1"):
        invoke("up", lab)


def test_a_server_without_lmr_is_told(lab, tmp_path):
    lab.write_text(lab.read_text().replace(f'lmr = "{tmp_path}/lmr"', 'lmr = "nowhere/lmr"'))
    with pytest.raises(ClusterError, match="set `lmr` in the file of hosts") as caught:
        invoke("up", lab)
    assert "nowhere/lmr" in caught.value.got
