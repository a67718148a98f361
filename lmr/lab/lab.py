"""A lab's cluster over ssh: up, status, down. All servers at once, each told of by itself."""

import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from lmr.errors import ClusterError
from lmr.lab import services
from lmr.lab.hosts import Host, Lab
from lmr.lab.services import Call

__all__ = ["State", "check", "down", "status", "up"]

Answer = TypeVar("Answer")

CALL_SECONDS = 120
AT_ONCE = 16
SSH_FAILED = 255
"""ssh's own exit code; a command's on the other side is below it."""


@dataclass(frozen=True)
class State:
    """How a server's part is.

    Attributes
    ----------
    host
        Whose.
    state
        `running`, `absent` (it was not started or has been stopped), `started`, `already`, `stopped`, or
        `unknown` for a server that could not be asked.
    seconds
        How long it has been running.
    restarts
        How often it was started again since.
    last
        The last line of its log, or why the server could not be asked.
    """

    host: Host
    state: str
    seconds: int = 0
    restarts: int = 0
    last: str = ""


def check(lab: Lab, here: Mapping[str, str]) -> None:
    """Refuse the lab if one of its servers cannot be reached or could not work with this machine.

    Parameters
    ----------
    lab
        The lab.
    here
        Name to version on this machine.

    Raises
    ------
    ClusterError
        Naming the first such server.
    """

    def ask(host: Host) -> None:
        answer = _run(host, services.versions(lab, host))
        there = dict(part.split("=", 1) for part in answer.split() if "=" in part)
        services.differences(host, here, there)

    for failure in _each(lab, ask):
        if isinstance(failure, ClusterError):
            raise failure


def up(lab: Lab) -> list[State]:
    """Copy certificates and start what does not run yet; a server that fails is a row with its reason."""

    def begin(host: Host) -> State:
        _run(host, services.prepare_host(lab, host))
        _run(host, services.copy(lab, host))
        return State(host, _run(host, services.start(lab, host)).strip())

    return _states(lab, begin)


def status(lab: Lab) -> list[State]:
    """Ask every server how its part is."""

    def ask(host: Host) -> State:
        answer = _run(host, services.manage("status", lab, host))
        state, seconds, restarts, last, *_ = [*answer.split("\n"), "", "", "", ""]
        return State(host, state, int(seconds), int(restarts), last)

    return _states(lab, ask)


def down(lab: Lab) -> list[State]:
    """Stop what runs: workers and scheduler, each with all processes that it started."""
    return _states(lab, lambda host: State(host, _run(host, services.manage("stop", lab, host)).strip()))


def _states(lab: Lab, act: Callable[[Host], State]) -> list[State]:
    return [
        State(host, "unknown", last=str(answer.got)) if isinstance(answer, ClusterError) else answer
        for host, answer in zip(lab.hosts, _each(lab, act), strict=True)
    ]


def _each(lab: Lab, act: Callable[[Host], Answer]) -> list[Answer | ClusterError]:
    def guarded(host: Host) -> Answer | ClusterError:
        try:
            return act(host)
        except ClusterError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(guarded, lab.hosts))


def _run(host: Host, call: Call) -> str:
    """Run a command to its end; return what it printed."""
    try:
        done = subprocess.run(
            call.arguments, input=call.stdin, capture_output=True, text=True, timeout=CALL_SECONDS
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"{call.arguments[0]} is not installed on this machine",
            got=str(error),
            fix="install an OpenSSH client (Debian: apt-get install openssh-client)",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"{host.ssh} does not answer",
            got=f"nothing within {CALL_SECONDS} s",
            fix="look at the server, then run the same command again",
        ) from error
    if done.returncode == 0:
        return done.stdout
    reason = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
    if done.returncode == SSH_FAILED:
        raise ClusterError(
            f"cannot reach {host.ssh} over ssh",
            got=reason,
            fix=f"`ssh {host.ssh}` must work without a password: a key (ssh-copy-id) and a known host key",
        )
    raise ClusterError(
        f"{host.ssh} could not run what was asked",
        got=reason,
        fix="set `lmr` in the file of hosts to the path of the lmr command there",
    )
