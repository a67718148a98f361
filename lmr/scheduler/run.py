"""Run steps: look at storage, make what is missing, account for everything."""

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import dask
from dask.callbacks import Callback

from lmr.cluster.client import Where, open_client
from lmr.cluster.preflight import preflight
from lmr.runtime import attempts
from lmr.runtime.course import course_text
from lmr.runtime.estimate import Progress, seconds_left
from lmr.runtime.finish import Finalizer, RunFailed, RunReport, raise_if_failed
from lmr.runtime.graph import Plan, dask_graph, make_plan
from lmr.runtime.rates import work_of
from lmr.runtime.steps import Given, Step
from lmr.scheduler import runs
from lmr.scheduler.courses import Courses
from lmr.scheduler.pace import Pace
from lmr.scheduler.plugin import RunRecord

__all__ = ["Counts", "Listener", "RunFailed", "Silent", "run", "submit"]

Counts = Mapping[str, int]
"""Step name to a number of its shards."""


class Listener(Protocol):
    """Is told of a run's progress."""

    def planned(self, totals: Counts) -> None:
        """Hear how many shards of each step will be made: once, before anything runs."""

    def connected(self, dashboard: str | None) -> None:
        """Hear that there is something to run on, and its dashboard's address if it has one."""

    def progressed(self, progress: Progress) -> None:
        """Hear, often, how many shards of each step are finished, and how long the others will take."""


class Silent:
    """A listener that tells nobody."""

    def planned(self, totals: Counts) -> None:
        """Do nothing."""

    def connected(self, dashboard: str | None) -> None:
        """Do nothing."""

    def progressed(self, progress: Progress) -> None:
        """Do nothing."""


def run(
    targets: Iterable[Step],
    root: str,
    where: Where | None = None,
    listener: Listener | None = None,
    *,
    workflow: str = "run",
    finalizer: Finalizer | None = None,
) -> RunReport:
    """Make all shards of the targets and of what they need, and stay until the end.

    Parameters
    ----------
    targets
        The steps whose datasets are wanted.
    root
        The run's folder, at any fsspec URL that all workers reach.
    where
        Where to run; None: in this process.
    listener
        Is told of the progress; None: nobody is.
    workflow
        Name of the workflow, for people.
    finalizer
        Called when every shard is there, on a worker if there are some: writes what people read.

    Returns
    -------
    report
        What was made of each step that had something to do; empty when nothing was left to do.

    Raises
    ------
    RunFailed
        If shards could not be made; every other shard was, and is kept.
    ClusterError
        If the cluster cannot be reached or used.
    """
    where, listener = where or Where(), listener or Silent()
    plan = make_plan(targets, root, workflow=workflow, finalizer=finalizer)
    listener.planned(plan.totals)
    _store_given(plan)
    if not plan.totals:
        _finalize(plan)
        return RunReport(())
    if where.in_process:
        listener.connected(None)
        report = _run_here(plan, listener.progressed)
        raise_if_failed(report)
        return report
    with open_client(where) as client:
        listener.connected(client.dashboard_link)
        # Workers that this process has started are this machine.
        passed = preflight(client, plan) if where.scheduler else None
        name = runs.send(client, plan, passed, where).name
        try:
            report = runs.follow(client, name, listener.progressed, where)
        except KeyboardInterrupt:
            runs.cancel_run(client, name)
            raise
    raise_if_failed(report)
    return report


def submit(
    targets: Iterable[Step],
    root: str,
    where: Where,
    *,
    workflow: str = "run",
    finalizer: Finalizer | None = None,
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
    plan = make_plan(targets, root, workflow=workflow, finalizer=finalizer)
    _store_given(plan)
    if not plan.totals:
        _finalize(plan)
        return None
    with open_client(where) as client:
        passed = preflight(client, plan, wait=wait, tell=tell)
        return runs.send(client, plan, passed, where)


def _finalize(plan: Plan) -> None:
    if plan.finalizer is not None:
        plan.finalizer()


def _store_given(plan: Plan) -> None:
    """Store what the steps are given, also where all is made: closing the run reads the lists of photos."""
    given = {
        source.fingerprint: source
        for part in plan
        for source in part.step.inputs.values()
        if isinstance(source, Given)
    }
    for source in given.values():
        source.store(plan.root)


def _run_here(plan: Plan, progress: Callable[[Progress], None]) -> RunReport:
    """Run a plan by Dask's synchronous scheduler: for tests, debugging and small runs."""
    graph, work = dask_graph(plan, uuid.uuid4().hex), work_of(plan)
    names = {group: name for name, group in graph.groups.items()}
    # This process is the only worker, and keeps the course that a scheduler would keep.
    courses, me = Courses(), f"{socket.gethostname()}:{os.getpid()}"
    record = replace(runs.new_record(plan), groups=graph.groups, totals=plan.totals, work=work)
    courses.open(record, [me])
    counts, pace = dict.fromkeys(graph.groups, 0), Pace()

    def before(key: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] in names:
            pace.begin(key[0])
            courses.begin(key, me)
            tell(running=key[0])

    def after(key: Any, receipt: Any, *_: Any) -> None:
        if isinstance(key, tuple) and key[0] in names:
            counts[names[key[0]]] += 1
            made = receipt.state in ("made", "found")
            pace.end(key[0], receipt.seconds, made=receipt.state == "made")
            facts = {"rows": receipt.rows, "bytes": receipt.bytes, "peak_bytes": receipt.peak_bytes}
            courses.end(key, me, receipt.seconds, made, facts)
            tell()

    def tell(running: str = "") -> None:
        measured = {
            name: pace.measured(group, running=int(group == running), ended=counts[name] >= work[name].shards)
            for group, name in names.items()
        }
        left = seconds_left(work, counts, measured, {"": 1})
        progress(Progress(counts=dict(counts), measured=measured, left=left))

    def course(run: str) -> str:
        found = courses.of(record.name, "running", ())
        return course_text(found) if found is not None else ""

    with attempts.standing_in({"lmr_course": course}), Callback(pretask=before, posttask=after):
        report: RunReport = dask.get(graph.graph, graph.final)
    return report
