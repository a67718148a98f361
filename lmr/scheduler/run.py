"""Run a workflow: look at storage, make what is missing, account for everything."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dask
from dask.callbacks import Callback

from lmr.cluster.client import Where, open_client
from lmr.cluster.preflight import preflight
from lmr.runtime.finish import Closing, Ending, RunFailed, settle
from lmr.runtime.graph import RunGraph, build_graph, needed
from lmr.runtime.steps import Given, Step
from lmr.runtime.tasks import Summary
from lmr.scheduler import runs
from lmr.scheduler.plugin import RunRecord
from lmr.scheduler.runs import Work

__all__ = ["Counts", "Listener", "Outcome", "RunFailed", "run", "submit"]

Counts = Mapping[str, int]
"""Step name to a number of its shards."""


class Listener(Protocol):
    """Is told of a run's progress."""

    def planned(self, totals: Counts) -> None:
        """Called once, before anything runs, with the number of shards to make of each step."""

    def connected(self, dashboard: str | None) -> None:
        """Called when there is something to run on; with the dashboard's address if it has one."""

    def progressed(self, counts: Counts) -> None:
        """Called often, with the number of finished shards per step."""


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes
    ----------
    summaries
        Of each step that had something to do, in order; empty when nothing was left to do.
    """

    summaries: tuple[Summary, ...]


def run(
    targets: Iterable[Step],
    root: str,
    where: Where,
    listener: Listener,
    *,
    workflow: str = "run",
    closing: Closing | None = None,
) -> Outcome:
    """Make all shards of the targets and of what they need, and stay until the end.

    Parameters
    ----------
    targets
        The steps whose datasets are wanted.
    root
        The run's folder, at any fsspec URL that all workers reach.
    where
        Where to run.
    listener
        Is told of the progress.
    workflow
        Name of the workflow, for people.
    closing
        Called when every shard is there, on a worker if there are some: writes what people read.

    Raises
    ------
    RunFailed
        If shards could not be made; every other shard was, and is kept.
    ClusterError
        If the cluster cannot be reached or used.
    """
    work = Work(plan=needed(list(targets), root), root=root, workflow=workflow, closing=closing)
    listener.planned(work.totals)
    if not work.totals:
        _close(work)
        return Outcome(())
    _store_given(work)
    if where.in_process:
        listener.connected(None)
        graph = build_graph(work.plan, root, uuid.uuid4().hex, closing=closing)
        return Outcome(settle(_run_here(graph, listener.progressed)))
    with open_client(where) as client:
        listener.connected(client.dashboard_link)
        # Workers that this process has started are this machine.
        notes = preflight(client, work.plan, root) if where.scheduler else ()
        name = runs.submit(client, work, notes).name
        try:
            ending = runs.watch(client, name, listener.progressed)
        except KeyboardInterrupt:
            runs.cancel_run(client, name)
            raise
    return Outcome(settle(ending))


def submit(
    targets: Iterable[Step],
    root: str,
    where: Where,
    *,
    workflow: str,
    closing: Closing | None = None,
    wait: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> RunRecord | None:
    """Send a run to a scheduler and return at once; None if nothing was left to do.

    Parameters are those of `run`, and whether to `wait` for workers that are missing; `tell` is told which.

    Raises
    ------
    ClusterError
        If the cluster cannot be reached or used, or another run works on the same folder.
    """
    work = Work(plan=needed(list(targets), root), root=root, workflow=workflow, closing=closing)
    if not work.totals:
        _close(work)
        return None
    _store_given(work)
    with open_client(where) as client:
        notes = preflight(client, work.plan, root, wait=wait, tell=tell)
        return runs.submit(client, work, notes)


def _close(work: Work) -> None:
    if work.closing is not None:
        work.closing()


def _store_given(work: Work) -> None:
    for need in work.plan:
        for source in need.step.inputs.values():
            if isinstance(source, Given) and need.missing:
                source.store(work.root)


def _run_here(graph: RunGraph, progress: Callable[[Counts], None]) -> Ending:
    """Run a graph by Dask's synchronous scheduler: for tests, debugging and small runs."""
    names = {group: name for name, group in graph.groups.items()}
    counts = dict.fromkeys(graph.groups, 0)

    def after(key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] in names:
            counts[names[key[0]]] += 1
            progress(counts)

    with Callback(posttask=after):
        ending: Ending = dask.get(graph.graph, graph.final)
    return ending
