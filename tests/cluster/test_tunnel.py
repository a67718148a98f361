"""The way to a dashboard: the commands, and one real tunnel through an ssh daemon on loopback."""

import os
import shutil
import socket
import sys
import time
import urllib.request

import pytest

from lmr.cluster.commands import Command
from lmr.cluster.tunnel import Place, become, run_tunnel, tunnel_command
from lmr.errors import ClusterError
from tests.support import servers
from tests.support.ssh_daemon import server


def test_commands():
    local, private = Place("127.0.0.1", 8787), Place("10.1.2.3", 8787)
    assert tunnel_command(local, ssh="me@host", local_port=9000)[-2:] == [
        "127.0.0.1:9000:127.0.0.1:8787",
        "me@host",
    ]
    assert tunnel_command(Place("::1", 8787), ssh="host")[-2] == "127.0.0.1:8787:[::1]:8787"
    assert "AWS-StartPortForwardingSession" in tunnel_command(local, ssm="i-1")
    remote = tunnel_command(private, ssm="i-1")
    assert "AWS-StartPortForwardingSessionToRemoteHost" in remote
    assert '"host": ["10.1.2.3"]' in remote[-1]
    with pytest.raises(ClusterError, match="one tunnel at a time"):
        tunnel_command(local, ssh="host", ssm="i-1")


@pytest.mark.parametrize(
    ("command", "there", "missing"),
    [
        (["ssh", "-N", "host"], [], "ssh"),
        (["aws", "ssm", "start-session"], [], "aws"),
        (["aws", "ssm", "start-session"], ["aws"], "session-manager-plugin"),
    ],
)
def test_a_tunnel_without_its_program_says_what_to_install(command, there, missing, tmp_path, monkeypatch):
    for name in there:
        program(tmp_path / name, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    for open_ in (run_tunnel, become):
        with pytest.raises(ClusterError, match=f"the tunnel needs {missing}\n(.|\n)*fix: install"):
            open_(command)


@pytest.mark.cluster
@pytest.mark.system
@pytest.mark.skipif(
    shutil.which("sshd", path=f"{os.defpath}:/usr/sbin") is None,
    reason="needs an OpenSSH server (Debian: apt-get install openssh-server)",
)
def test_a_dashboard_on_a_private_address_is_seen_through_a_real_tunnel(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # An address that is private and not the one that the tunnel ends at.
    with (
        servers.scheduler(tmp_path, dashboard_host="127.0.0.2") as address,
        server("one", tmp_path) as config,
    ):
        (tmp_path / "ssh_config").write_text(config)
        (tmp_path / "bin").mkdir()
        ssh = f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n'
        program(tmp_path / "bin" / "ssh", ssh)
        start = (sys.executable, "-m", "lmr", "dashboard", "--scheduler", address, "--ssh", "one")
        path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        log = tmp_path / "tunnel.log"
        with servers.started(Command((*start, "--port", str(port)), path), log) as tunnel:
            url = servers.said(log, r"(http://\S+/status) while this runs")[1]
            status, page = answer(url, tunnel)
            assert status == 200
            assert "Dask" in page
        # The tunnel is gone with its command.
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
            pass


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def answer(url, tunnel):
    """Wait until the tunnel is open."""
    for _ in range(300):
        assert tunnel.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return response.status, response.read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer at {url}")
