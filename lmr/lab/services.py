"""What runs on each of a lab's servers, as command lines. Nothing here runs anything.

A service is started, stopped and shown by `service.sh`, which goes to the server's shell through ssh, so
that nothing but `lmr` need be installed there.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from lmr.errors import ClusterError
from lmr.lab.hosts import Host, Lab

__all__ = ["SERVICE_SCRIPT", "Call", "copy", "differences", "manage", "prepare_host", "start", "versions"]

SERVICE_SCRIPT = files("lmr.lab").joinpath("service.sh").read_text()

CERTIFICATE = {"scheduler": "scheduler", "cpu": "worker", "gpu": "worker"}
"""Whose certificate a host of each role gets."""

MUST_AGREE = ("lmr", "python", "dask", "distributed")
"""What differs by these cannot work together; of Python, its first two numbers count."""


@dataclass(frozen=True)
class Call:
    """A command of this machine, and what it reads."""

    arguments: tuple[str, ...]
    stdin: str = ""


def versions(lab: Lab, host: Host) -> Call:
    """Ask a server for its versions."""
    return _ssh(lab, host, [_lmr(lab, host), "version", "--all"])


def differences(host: Host, here: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Refuse a server that could not work with this machine.

    Parameters
    ----------
    host
        The server.
    here, there
        Name to version, as `lmr version --all` prints them.

    Raises
    ------
    ClusterError
        If versions differ, or dask-cuda is missing where GPU workers are to run.
    """
    for name in MUST_AGREE:
        theirs, ours = there.get(name, "none"), here[name]
        if name == "python":
            theirs, ours = (".".join(number.split(".")[:2]) for number in (theirs, ours))
        if theirs != ours:
            raise ClusterError(
                f"{host.ssh} has another {name} than this machine",
                got=f"{theirs} there, {ours} here",
                fix="install the same everywhere: pip install -c constraints.txt lmr",
            )
    if host.role == "gpu" and there.get("dask-cuda", "none") == "none":
        raise ClusterError(
            f"GPU workers need dask-cuda on {host.ssh}",
            got="it is not installed there",
            fix="pip install -c constraints.txt 'lmr[gpu]'",
        )


def prepare_host(lab: Lab, host: Host) -> Call:
    """Make the folder that only the user may enter, for certificates."""
    return _ssh(lab, host, ["install", "-d", "-m", "700", _folder(lab), _tls(lab)])


def copy(lab: Lab, host: Host) -> Call:
    """Copy the certificates of a server's role, and no others."""
    role = CERTIFICATE[host.role]
    sources = [str(lab.tls / name) for name in ("ca.pem", f"{role}.pem", f"{role}.key")]
    config = ("-F", str(lab.ssh_config)) if lab.ssh_config else ()
    return Call(("scp", *_OPTIONS, *config, "-p", "-q", *sources, f"{host.ssh}:{_tls(lab)}/"))


def start(lab: Lab, host: Host) -> Call:
    """Start a server's part; nothing happens where it runs already."""
    common = [_lmr(lab, host), "cluster"]
    if host.role == "scheduler":
        command = [*common, "scheduler", "--tls", _tls(lab), "--port", str(lab.port)]
    else:
        command = [*common, "worker", lab.scheduler, "--tls", _tls(lab)]
        command += ["--memory-per-worker", host.memory_per_worker, "--name", host.ssh.rpartition("@")[2]]
        if host.cache:
            command += ["--cache", host.cache]
        if host.role == "gpu":
            command += ["--gpu"]
        elif host.workers:
            command += ["--workers", str(host.workers)]
    return manage("start", lab, host, command)


def manage(
    verb: Literal["start", "stop", "status"], lab: Lab, host: Host, command: list[str] | None = None
) -> Call:
    """Start, stop or show a server's part."""
    shell = ["sh", "-s", "--", verb, _folder(lab), host.role, *(command or [])]
    return _ssh(lab, host, shell, stdin=SERVICE_SCRIPT)


# A password prompt would wait for ever where nobody sees it; a server that is down is told in seconds.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=10")


def _ssh(lab: Lab, host: Host, command: list[str], stdin: str = "") -> Call:
    config = ("-F", str(lab.ssh_config)) if lab.ssh_config else ()
    # The server's shell splits what it gets once more.
    return Call(("ssh", *_OPTIONS, *config, host.ssh, "--", shlex.join(command)), stdin)


def _folder(lab: Lab) -> str:
    return f".lmr/{lab.name}"


def _tls(lab: Lab) -> str:
    return f"{_folder(lab)}/tls"


def _lmr(lab: Lab, host: Host) -> str:
    # ssh begins in the user's home, and quoting keeps the shell from reading ~.
    return (host.lmr or lab.lmr).removeprefix("~/")
