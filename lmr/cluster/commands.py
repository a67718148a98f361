"""The commands that start a scheduler and workers with all that `lmr` needs of them.

They are Dask's own (`dask scheduler`, `dask worker`, `dask cuda worker`), by way of `lmr.cluster.entry`;
here it is decided with which options and environment. A worker process has one thread: a shard that crashes
a library then takes no innocent neighbour with it, and the cores of a host are shared out as processes.
"""

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask

from lmr.cluster.address import Address, host_name, own_host, resolve
from lmr.cluster.capacity import fitting_workers, memory_bytes, usable_cpus, worker_memory
from lmr.cluster.certificates import check_certificate
from lmr.cluster.entry import explained
from lmr.cluster.tls import check_address
from lmr.cluster.watching import watching_environment
from lmr.errors import ClusterError
from lmr.runtime.threads import malloc_environment, thread_environment
from lmr.storage.folders import private_folder

__all__ = ["NAMES_VARIABLE", "Command", "exec_command", "scheduler_command", "supervise", "worker_command"]

NAMES_VARIABLE = "LMR_DASHBOARD_NAMES"
"""Names by which the dashboards of this machine are asked for, separated by commas."""

_GUARD = "lmr.cluster.dashboard"

DEATH_TIMEOUT_SECONDS = 180
"""How long a worker may take to start and find its scheduler: a host starts a hundred at once."""


@dataclass(frozen=True)
class Command:
    """A command line, and what it needs in its environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def scheduler_command(
    *,
    tls: str | None = None,
    host: str | None = None,
    port: int = 8786,
    dashboard_host: str = "127.0.0.1",
    dashboard_port: int = 8787,
    dashboard_names: Sequence[str] = (),
    unprotected: bool = False,
) -> Command:
    """Return the command that starts a scheduler.

    Parameters
    ----------
    tls
        Folder with `ca.pem`, `scheduler.pem` and `scheduler.key`; None: no encryption.
    host
        Address to listen on. None: every address of this machine with `tls`, only itself without.
    port, dashboard_host, dashboard_port
        The dashboard knows no password, so it listens on a private address only.
    dashboard_names
        Names under which browsers ask for the dashboard, besides `localhost` and the machine's own.
    unprotected
        Allow what anyone who reaches the port could misuse.

    Raises
    ------
    ClusterError
        If a certificate is not good, or something would be open to strangers.
    """
    open_to_others = host is not None and not _is_loopback(host)  # which also tells of a host there is not
    if open_to_others and not tls and not unprotected:
        raise ClusterError(
            "a scheduler without TLS runs whatever anyone sends it",
            got=f"--host {host} without --tls",
            fix="--tls DIR from `lmr cluster certs`, or --unprotected on a network that is yours alone",
        )
    if not unprotected and not _is_private(dashboard_host):
        raise ClusterError(
            "the dashboard has no password and would be open to strangers",
            got=f"--dashboard-host {dashboard_host}",
            fix="a private address (127.0.0.1) and `lmr dashboard` from afar; or --unprotected, knowing that",
        )
    protocol = "tls" if tls else "tcp"
    arguments = ["scheduler", "--protocol", protocol, "--port", str(port)]
    if host is not None or not tls:
        arguments += ["--host", f"{protocol}://{host_name(host or '127.0.0.1')}"]
    arguments += ["--dashboard-address", f"{host_name(dashboard_host)}:{dashboard_port}"]
    arguments += _preloads("scheduler")
    environment = {
        NAMES_VARIABLE: ",".join([dashboard_host, *dashboard_names]),
        # A worker's death counts against every task that was assigned to it, not only the one it ran.
        # Shards that kill workers are counted by lmr.scheduler.plugin instead.
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000",
    }
    return _dask(arguments, environment, tls, "scheduler")


def worker_command(
    address: str,
    *,
    tls: str | None = None,
    workers: int | None = None,
    gpu: bool = False,
    memory_per_worker: str = "auto",
    name: str | None = None,
    cache: str | None = None,
    contact_address: str | None = None,
    unprotected: bool = False,
) -> Command:
    """Return the command that starts the workers of one host.

    Parameters
    ----------
    address
        The scheduler's address.
    tls
        Folder with `ca.pem`, `worker.pem` and `worker.key`, for a `tls://` address.
    workers
        Worker processes; None: one per processor that this process may use, as many as memory allows.
    gpu
        Start one worker per visible GPU instead, which declares `GPU=1`.
    memory_per_worker
        At this much memory a worker is ended and started again, such as `4GB`; `auto`: an equal share of what
        this machine or container has.
    name
        Name of the workers; their number is added where there are several.
    cache
        Folder for unpacked datasets on this machine (`LMR_CACHE`).
    contact_address
        `host:port` at which others reach the one worker, where that is not its own address (a container's
        published port, a NAT); it listens at the same port.
    unprotected
        Allow a worker without TLS that other machines can reach.

    Raises
    ------
    ClusterError
        If address and certificates do not fit, a certificate is not good, dask-cuda or NVIDIA's driver is
        missing, or the worker would be open to strangers.
    """
    check_address(address, tls, "worker")
    # Workers listen at the address that faces the scheduler, and nowhere else.
    host = own_host(address)
    if not tls and not unprotected and not _is_loopback(host):
        raise ClusterError(
            "a worker without TLS runs whatever anyone sends it",
            got=f"{address} without --tls",
            fix="--tls DIR from `lmr cluster certs`, or --unprotected on a network that is yours alone",
        )
    if gpu and workers is not None:
        raise ClusterError(
            "a host has one GPU worker per GPU",
            got=f"--gpu with --workers {workers}",
            fix="leave --workers away; CUDA_VISIBLE_DEVICES=0,1 chooses among the GPUs",
        )
    if gpu and importlib.util.find_spec("dask_cuda") is None:
        raise ClusterError(
            "GPU workers need dask-cuda",
            got="no such package",
            fix="pip install -c constraints.txt 'lmr[gpu]'",
        )
    if gpu:
        _check_driver()
    total = memory_bytes()
    count = 1 if gpu else workers or fitting_workers(memory_per_worker, usable_cpus(), total)
    limit = worker_memory(memory_per_worker, count, total)
    if contact_address:
        if gpu or count != 1:
            raise ClusterError(
                "a contact address is that of one worker",
                got=f"--contact-address {contact_address} with {'--gpu' if gpu else f'{count} workers'}",
                fix="--workers 1, and one `lmr cluster worker` with a port of its own for each further one",
            )
        contact = _contact(contact_address)
        scheme = Address.parse(address).scheme
        options = ["--listen-address", f"{scheme}://{host_name(host)}:{contact.port}"]
        options += ["--contact-address", f"{scheme}://{contact.location}"]
    else:
        options = ["--host", host_name(host)]
    # What a worker's own page shows is for this machine only: it has no password either.
    options += ["--dashboard-address", "127.0.0.1:0", "--nthreads", "1"]
    # dask-cuda shares the memory out among the GPUs.
    shared_out = gpu and memory_per_worker.strip().lower() == "auto"
    options += ["--memory-limit", "auto" if shared_out else str(limit)]
    options += ["--death-timeout", str(DEATH_TIMEOUT_SECONDS)]
    options += _preloads("worker")
    if name:
        options += ["--name", name]
    if gpu:
        arguments = ["cuda", "worker", address, "--resources", "GPU=1", *options]
    else:
        arguments = ["worker", address, "--resources", "CPU=1", "--nworkers", str(count), *options]
    environment = {
        **thread_environment(),
        **malloc_environment(),
        # Memory is bounded by the steps; a worker that spills would spill tens of bytes.
        "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
        "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
    }
    if cache:
        environment["LMR_CACHE"] = cache
    return _dask(arguments, environment, tls, "worker")


def _contact(text: str) -> Address:
    """Read a contact address, whose port is one that others know.

    Raises
    ------
    ClusterError
        If it is none.
    """
    try:
        contact = Address.parse(text)
    except ClusterError as error:
        raise ClusterError(
            "--contact-address is no address of this worker",
            got=error.got,
            fix="HOST:PORT where others reach it, such as 192.168.7.2:9000 or [fd00::7]:9000",
        ) from error
    # The name of a gate need not be known on this side of it, so it is not looked up.
    if not contact.port or contact.host in ("0.0.0.0", "::"):
        raise ClusterError(
            "--contact-address is no address that others can call",
            got=text,
            fix="the host and the port that others call, such as 192.168.7.2:9000",
        )
    return contact


def _preloads(role: str) -> list[str]:
    """Return what Dask's processes load first: what this machine's configuration names, and our guard."""
    # An option takes the place of the configuration, for which dask-cuda does not look at all.
    configured = dask.config.get(f"distributed.{role}.preload") or []
    names = [configured] if isinstance(configured, str) else [*configured]
    return [part for name in [*names, _GUARD] for part in ("--preload", name)]


def _check_driver() -> None:
    """Refuse a machine without NVIDIA's driver, where dask-cuda would end with a traceback."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise ClusterError(
            "GPU workers need NVIDIA's driver",
            got=str(error),
            fix="install driver 580 or newer; start a container with --gpus all",
        ) from error


def _dask(arguments: list[str], environment: Mapping[str, str], tls: str | None, role: str) -> Command:
    start = (sys.executable, "-m", "lmr.cluster.entry", *arguments)
    # What lies in the folder of the start is not imported; another checkout of lmr may lie there.
    environment = {**watching_environment(), **environment, "PYTHONSAFEPATH": "1"}
    if not tls:
        return Command(start, environment)
    folder = Path(tls).absolute()
    check_certificate(folder, role)
    files = ("--tls-ca-file", "ca.pem"), ("--tls-cert", f"{role}.pem"), ("--tls-key", f"{role}.key")
    encrypted = {
        **environment,
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION": "1.3",
    }
    return Command(
        (*start, *(part for option, file in files for part in (option, str(folder / file)))), encrypted
    )


def exec_command(command: Command) -> None:
    """Become the command: signals then reach it without a process between."""
    os.execve(command.arguments[0], command.arguments, _whole_environment(command))


def supervise(command: Command) -> int:
    """Run workers until they end, and return this process's exit code.

    Dask's workers leave in peace, with code 0, when they are cut off from their scheduler. Here that is a
    failure, code 1, so that whatever watches over this process (systemd, a container engine) starts it again;
    0 is for a worker that was told to stop.
    """
    told = False
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: Any) -> None:
        nonlocal told
        told = True
        # Ctrl-C has reached the child too; a second signal would make it leave without a word.
        if number == signal.SIGTERM and child is not None:
            child.send_signal(number)

    environment = _whole_environment(command)
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            child = subprocess.Popen(command.arguments, env=environment)
        except OSError as error:
            raise explained(error, "worker") from error
        if told:
            child.terminate()  # while it was being started
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if told else code if code > 0 else 1


def _whole_environment(command: Command) -> dict[str, str]:
    """Return a command's environment with a scratch folder that other users of this machine cannot enter."""
    scratch = private_folder("scratch", command.environment.get("LMR_CACHE"))
    return {"DASK_TEMPORARY_DIRECTORY": str(scratch), **os.environ, **command.environment}


def _is_loopback(host: str) -> bool:
    return all(address.is_loopback for address in resolve(host))


def _is_private(host: str) -> bool:
    return all(address.is_private and not address.is_unspecified for address in resolve(host))
