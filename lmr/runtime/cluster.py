"""Where a run's tasks run: in this process, on processes of this machine, or on any scheduler.

`--scheduler ADDRESS` is the only contract with a cluster, whoever started it.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import dask
import distributed
from dask.callbacks import Callback

from lmr.errors import ClusterError
from lmr.runtime.graph import RunGraph
from lmr.runtime.limits import thread_environment
from lmr.runtime.security import security, why_unreachable
from lmr.runtime.steps import Summary

__all__ = ["Counts", "Executor", "Where", "connect", "open_executor"]

Counts = Mapping[str, int]
"""Step name to number of its tasks that are done."""


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
    resources
        What each of those local processes declares.
    """

    scheduler: str | None = None
    tls: str | None = None
    workers: int = 0
    resources: Mapping[str, float] | None = None


class Executor(Protocol):
    """Runs a graph and tells how far it is."""

    dashboard: str | None
    declared: frozenset[str] | None

    def run(self, graph: RunGraph, progress: Callable[[Counts], None]) -> list[Summary]:
        """Run a graph to its end; return the summaries of its steps."""
        ...


@contextmanager
def open_executor(where: Where) -> Iterator[Executor]:
    """Open what `where` names, and close it again.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached or has other versions of Dask than this machine.
    """
    if where.scheduler is not None:
        with connect(where.scheduler, where.tls) as client:
            yield _Cluster(client)
    elif where.workers:
        with _local_cluster(where) as cluster, distributed.Client(cluster) as client:
            yield _Cluster(client)
    else:
        yield _InProcess()


class _InProcess:
    """The synchronous scheduler: for tests, debugging and small runs."""

    dashboard: str | None = None
    declared: frozenset[str] | None = None

    def run(self, graph: RunGraph, progress: Callable[[Counts], None]) -> list[Summary]:
        names = {group: name for name, group in graph.groups.items()}
        counts = dict.fromkeys(graph.groups, 0)

        def after(key: Any, *_: Any) -> None:
            if isinstance(key, tuple) and key[0] in names:
                counts[names[key[0]]] += 1
                progress(counts)

        with Callback(posttask=after):
            summaries: list[Summary] = dask.get(graph.graph, graph.final)
        return summaries


class _Cluster:
    """A `distributed` scheduler, local or remote."""

    def __init__(self, client: distributed.Client) -> None:
        self.client = client
        self.dashboard = client.dashboard_link
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        # A cluster whose workers declare nothing would never start a task that asks for a resource.
        self.declared = frozenset(name for w in workers for name in w["resources"]) if workers else None

    def run(self, graph: RunGraph, progress: Callable[[Counts], None]) -> list[Summary]:
        future = self.client.get(graph.graph, graph.final, sync=False)
        while future.status == "pending":
            with suppress(distributed.TimeoutError):
                distributed.wait(future, timeout=_POLL_SECONDS)
            progress(self._counts(graph))
        summaries: list[Summary] = future.result()
        return summaries

    def _counts(self, graph: RunGraph) -> Counts:
        counts: Counts = self.client.run_on_scheduler(_done_tasks, groups=dict(graph.groups))
        return counts


_POLL_SECONDS = 0.5


def _done_tasks(groups: dict[str, str], dask_scheduler: Any) -> dict[str, int]:
    """Count finished tasks per step from the scheduler's own books; runs on the scheduler."""
    counts = {}
    for name, group in groups.items():
        states = dask_scheduler.task_groups[group].states if group in dask_scheduler.task_groups else {}
        waiting = sum(states.get(s, 0) for s in ("waiting", "no-worker", "queued", "processing"))
        counts[name] = sum(states.values()) - waiting
    return counts


@contextmanager
def connect(address: str, tls: str | None) -> Iterator[distributed.Client]:
    """Connect to a scheduler of the same versions; `tls` is the folder of certificates, if it needs them."""
    credentials = security(address, tls)
    try:
        client = distributed.Client(
            address, security=credentials, timeout="10s", name=f"lmr-{uuid.uuid4().hex[:6]}"
        )
    except (OSError, ValueError, TypeError, TimeoutError) as error:
        raise why_unreachable(address, credentials, error) from error
    with client:
        _check_versions(client)
        yield client


def _check_versions(client: distributed.Client) -> None:
    """Refuse a cluster whose scheduler or workers run another Dask or Python than this machine."""
    versions = client.get_versions()
    mine = versions["client"]["packages"]
    others = {"scheduler": versions["scheduler"], **versions["workers"]}
    for who, info in others.items():
        if info is None:
            continue
        for package in ("dask", "distributed", "python"):
            theirs, ours = info["packages"].get(package), mine.get(package)
            if package == "python" and theirs and ours:
                theirs, ours = theirs.rsplit(".", 2)[0], ours.rsplit(".", 2)[0]
            if theirs != ours:
                raise ClusterError(
                    f"{who} runs another {package} than this machine",
                    got=f"{theirs} there, {ours} here",
                    fix="install the same versions everywhere: pip install -c constraints.txt lmr",
                )


@contextmanager
def _local_cluster(where: Where) -> Iterator[distributed.LocalCluster]:
    config = {
        # A worker's death counts against every task assigned to it, not only the one that runs. Shards that
        # kill workers are counted in storage instead (lmr.runtime.steps).
        "distributed.scheduler.allowed-failures": 1000,
        "distributed.nanny.pre-spawn-environ": thread_environment(),
        # Memory is bounded by the steps; a worker that spills would spill tens of bytes.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }
    with dask.config.set(config):
        cluster = distributed.LocalCluster(
            n_workers=where.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            resources=dict(where.resources or {"CPU": 1}),
            silence_logs=logging.CRITICAL,
        )
        try:
            yield cluster
        finally:
            # A worker slow to leave (on a loaded machine) must not turn a finished run into a failed one;
            # worker processes are daemons and end with this one.
            with suppress(TimeoutError):
                cluster.close()
