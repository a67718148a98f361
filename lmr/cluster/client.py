"""Where a run's tasks run: in this process, on processes of this machine, or on any scheduler.

`--scheduler ADDRESS` is the only contract with a cluster, whoever started it.
"""

import importlib
import logging
import os
import shlex
import signal
import subprocess
import threading
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.spawn import get_executable
from typing import Any

import dask
import distributed
from distributed.versions import VersionMismatchWarning

from lmr.cluster.admission import is_grant
from lmr.cluster.capacity import memory_bytes
from lmr.cluster.tls import security, why_unreachable
from lmr.cluster.watching import watching
from lmr.errors import ClusterError, one_line
from lmr.runtime.threads import malloc_environment, thread_environment
from lmr.storage.folders import private_folder

_START_SECONDS = 60

__all__ = ["Where", "connect", "open_client", "workers_of"]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where to run.

    Attributes
    ----------
    scheduler
        Address of a Dask scheduler (`tcp://…`, `tls://…`), or None.
    tls
        Folder of the client's certificate, for a `tls://` address.
    workers
        Without a scheduler: worker processes to start on this machine; 0 runs in this very process.
    gpus
        How many of those processes get a GPU, one each; they declare it, and see no other.
    """

    scheduler: str | None = None
    tls: str | None = None
    workers: int = 0
    gpus: int = 0

    @property
    def in_process(self) -> bool:
        """Whether it names this very process."""
        return self.scheduler is None and not self.workers

    def command(self, *words: str) -> str:
        """Return a command of `lmr` that asks this place's scheduler, as it is typed."""
        place = ["--scheduler", self.scheduler] if self.scheduler else []
        tls = ["--tls", self.tls] if self.tls else []
        return shlex.join(["lmr", *words, *place, *tls])


@contextmanager
def open_client(where: Where) -> Iterator[distributed.Client]:
    """Connect to the cluster that `where` names, or start one on this machine; close it again.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached or has another version of Dask than this machine.
    """
    if where.scheduler is not None:
        with connect(where.scheduler, where.tls) as client:
            yield client
    else:
        with _local_cluster(where) as cluster, distributed.Client(cluster) as client:
            yield client


@contextmanager
def connect(address: str, tls: str | None) -> Iterator[distributed.Client]:
    """Connect to a scheduler of the same versions; `tls` is the folder of certificates, if it needs them."""
    credentials = security(address, tls)
    # Preflight compares versions, and says which of them matter.
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    # Of a scheduler that went away Dask's client logs a traceback; lmr says it in an error of its own.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(
            address, security=credentials, timeout="10s", name=f"lmr-{uuid.uuid4().hex[:6]}"
        )
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise why_unreachable(address, credentials, error) from error
    with client:
        _check_version(client)
        yield client


def workers_of(client: distributed.Client) -> Mapping[str, Mapping[str, Any]]:
    """Return what a scheduler tells of its workers, by address.

    Not by `client.scheduler_info()`: every two seconds the client itself asks about the scheduler without its
    workers, and that answer may take the place of the one that was asked for.
    """
    workers: Mapping[str, Mapping[str, Any]] = client.sync(client.scheduler.identity, n_workers=-1)["workers"]
    # What runs have granted is no resource of the machine.
    return {
        address: {**worker, "resources": {k: v for k, v in worker["resources"].items() if not is_grant(k)}}
        for address, worker in workers.items()
    }


def _check_version(client: distributed.Client) -> None:
    """Refuse a scheduler of another Dask, which would not understand; workers are looked at in preflight."""
    theirs = client.sync(client.scheduler.versions)["packages"]["distributed"]
    if theirs != distributed.__version__:
        raise ClusterError(
            "the scheduler runs another distributed than this machine",
            got=f"{theirs} there, {distributed.__version__} here",
            fix="install the same versions everywhere: pip install -c constraints.txt lmr",
        )


@contextmanager
def _local_cluster(where: Where) -> Iterator[distributed.LocalCluster]:
    # The scheduler is in this process and its workers are children: each guards the page that it shows.
    guard = importlib.import_module("lmr.cluster.dashboard").__name__
    config = {
        **watching(),
        "distributed.worker.preload": [guard],
        "distributed.nanny.pre-spawn-environ": {**thread_environment(), **malloc_environment()},
        # Memory is bounded by the steps; a worker that spills would spill tens of bytes.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        # Dask's own default is a name in the shared temporary folder that anyone can guess.
        "temporary-directory": dask.config.get("temporary-directory") or str(private_folder("scratch")),
    }
    gpus = min(where.gpus, where.workers)
    _check_processes()
    with dask.config.set(config):
        with _interrupts_held_back():
            cluster = distributed.LocalCluster(
                n_workers=where.workers - gpus,
                threads_per_worker=1,
                # By itself Dask gives each worker the share of one core, however few workers there are.
                memory_limit=memory_bytes() // where.workers,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                resources={"CPU": 1},
                silence_logs=logging.CRITICAL,
            )
        try:
            _add_gpu_workers(cluster, where.workers - gpus, gpus)
            yield cluster
        finally:
            # A worker slow to leave (on a loaded machine) must not turn a finished run into a failed one;
            # worker processes are daemons and end with this one.
            with suppress(TimeoutError):
                cluster.close()


def _check_processes() -> None:
    """Start and end a process as workers are started: where none can be, Dask would wait for it for ever."""
    python = os.fsdecode(get_executable())
    try:
        subprocess.run(
            [python, "-I", "-S", "-c", ""], check=True, capture_output=True, timeout=_START_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None) or b""
        raise ClusterError(
            "worker processes cannot be started on this machine",
            got=" ".join(f"{one_line(error)} {told.decode(errors='replace')}".split())[:500],
            fix=f"use a Python that this user may run (this is {python}), or --workers 0: "
            "all is then done in one process",
        ) from error


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended, and from the threads and processes that it starts for good.

    A terminal sends it to all processes; workers would end with tracebacks, or call their shards failed. They
    are told by this process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # It lets Ctrl-C through again in the thread that starts it, so it is started before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _add_gpu_workers(cluster: distributed.LocalCluster, others: int, count: int) -> None:
    """Start processes that see one GPU each: several on one would share its memory and slow each other."""
    if not count:
        return
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    gpus = visible or [str(number) for number in range(count)]
    kind = cluster.new_spec
    for number, gpu in enumerate(gpus[:count], 1):
        own = {"resources": {"CPU": 1, "GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": gpu}}
        cluster.new_spec = {**kind, "options": kind["options"] | own}
        cluster.scale(others + number)
    cluster.wait_for_workers(others + count)
