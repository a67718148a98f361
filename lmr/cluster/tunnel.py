"""The way from a laptop to a dashboard that listens on a private address."""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from lmr.cluster.address import host_name
from lmr.cluster.client import connect
from lmr.errors import ClusterError

__all__ = [
    "USUAL_PLACE",
    "Place",
    "become",
    "dashboard_place",
    "lacking",
    "run_tunnel",
    "shown",
    "tunnel_command",
]

_GUIDES = "https://docs.aws.amazon.com"
_NEEDS = {
    "ssh": {"ssh": "install OpenSSH's client"},
    "aws": {
        "aws": f"install the AWS command line ({_GUIDES}/cli/latest/userguide/getting-started-install.html)",
        "session-manager-plugin": "install the Session Manager plug-in of the AWS command line"
        f" ({_GUIDES}/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html)",
    },
}


@dataclass(frozen=True)
class Place:
    """Where a dashboard listens, as seen from the scheduler's machine."""

    host: str
    port: int


USUAL_PLACE = Place("127.0.0.1", 8787)
"""Where `lmr cluster scheduler` puts a dashboard unless it is told otherwise."""


def dashboard_place(scheduler: str, tls: str | None) -> Place:
    """Ask a scheduler where its dashboard listens.

    Raises
    ------
    ClusterError
        If it cannot be reached, or has no dashboard.
    """
    with connect(scheduler, tls) as client:
        bound: tuple[str, int] | None = client.run_on_scheduler(_bound)
    if bound is None:
        raise ClusterError(
            f"the scheduler at {scheduler} has no dashboard",
            got="a scheduler without bokeh, or started with --no-dashboard",
            fix="start it with `lmr cluster scheduler`",
        )
    host, port = bound
    return Place({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def _bound(dask_scheduler: Any) -> tuple[str, int] | None:
    """Tell where the dashboard really listens; runs on the scheduler."""
    server = dask_scheduler.services.get("dashboard")
    return (server.address, server.port) if server is not None else None


def tunnel_command(
    place: Place, *, ssh: str | None = None, ssm: str | None = None, local_port: int = 8787
) -> list[str]:
    """Return the command that makes a dashboard appear at a port of this machine.

    Parameters
    ----------
    place
        Where it listens.
    ssh
        The scheduler's machine, as `ssh` knows it.
    ssm
        Or its EC2 instance, reached through AWS Systems Manager without any open port.
    local_port
        The port on this machine.
    """
    if ssh and ssm:
        raise ClusterError("one tunnel at a time", got="--ssh and --ssm", fix="give one of them")
    if ssh:
        forward = f"127.0.0.1:{local_port}:{host_name(place.host)}:{place.port}"
        # A laptop that was asleep finds a tunnel that has ended, not one that hangs.
        options = ["-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15"]
        return ["ssh", "-N", *options, "-L", forward, ssh]
    document = "AWS-StartPortForwardingSession"
    parameters = {"portNumber": [str(place.port)], "localPortNumber": [str(local_port)]}
    if place.host not in ("127.0.0.1", "localhost", "::1"):
        document += "ToRemoteHost"
        parameters["host"] = [place.host]
    options = ["--target", ssm or "", "--document-name", document, "--parameters", json.dumps(parameters)]
    return ["aws", "ssm", "start-session", *options]


def shown(command: list[str]) -> str:
    """Return a command as it is typed in a shell."""
    return shlex.join(command)


def lacking(program: str) -> dict[str, str]:
    """Return what this machine lacks for a tunnel by `ssh` or `aws`: the program and how to get it."""
    return {name: fix for name, fix in _NEEDS[program].items() if shutil.which(name) is None}


def run_tunnel(command: list[str]) -> int:
    """Run a tunnel until it ends; return its exit code.

    Raises
    ------
    ClusterError
        If `ssh`, or `aws` or its session manager plug-in, is not installed.
    """
    _check_programs(command)
    return subprocess.run(command, check=False).returncode


def become(command: list[str]) -> None:
    """Become a tunnel, so that whatever ends this process ends the tunnel; errors as of `run_tunnel`."""
    _check_programs(command)
    os.execvp(command[0], command)


def _check_programs(command: list[str]) -> None:
    for program, fix in lacking(command[0]).items():
        raise ClusterError(
            f"the tunnel needs {program}",
            got="no such program on this machine",
            fix=f"{fix}, or run elsewhere: {shown(command)}",
        )
