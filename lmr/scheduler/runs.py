"""Runs on a scheduler: submit one and leave, look at it from any machine, stop it.

A run is one graph. The scheduler's plugin holds it, so that the process that submitted it may end at once;
everything that is shown of a run comes from there.
"""

import getpass
import pickle
import re
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import PurePosixPath
from typing import Any

import distributed
from distributed.protocol.pickle import dumps

from lmr import storage
from lmr.cluster.admission import expectations_of, grant_of
from lmr.cluster.client import Where, workers_of
from lmr.cluster.preflight import Passed
from lmr.cluster.worker import WorkerSetup
from lmr.errors import ClusterError, one_line
from lmr.runtime.course import Course
from lmr.runtime.estimate import Progress
from lmr.runtime.finish import RunReport
from lmr.runtime.graph import Plan, dask_graph, unmet_notes
from lmr.runtime.rates import work_of
from lmr.runtime.settings import digest
from lmr.scheduler.plugin import RunRecord, RunsPlugin, RunStatus
from lmr.storage.json_files import write_json

__all__ = [
    "cancel_run",
    "choose_run",
    "course_of_run",
    "find_run",
    "follow",
    "list_runs",
    "new_record",
    "report_of",
    "send",
    "wait_for",
]

_FIRST_POLL_SECONDS = 0.1
_POLL_SECONDS = 1.0
_SENT_SECONDS = 600
_ADMITTED_SECONDS = 60
_SETUP_SECONDS = 45


def send(
    client: distributed.Client, plan: Plan, passed: Passed | None = None, where: Where | None = None
) -> RunRecord:
    """Send a run to a scheduler as one graph; when this returns, the client may go.

    Parameters
    ----------
    client
        Connected to the cluster.
    plan
        What is to be made.
    passed
        What preflight found; None where it was not asked: this process has started the workers.
    where
        Which cluster it is, for commands that messages name.

    Raises
    ------
    ClusterError
        If another run works on the same folder, or the cluster cannot do what the run asks for.
    """
    install_plugins(client)
    record = new_record(plan)
    if taken := _ask(client, "claim", record=record, client_id=client.id):
        raise _refusal(taken, record, where or Where())
    try:
        # Of a worker that takes no part nothing is asked for, either.
        resources = declared(client) if passed is None else passed.declared
        graph = dask_graph(plan, record.name, declared=resources, grant=grant_of(record.name))
        told = (*passed.notes, *unmet_notes(plan, passed.declared)) if passed else ()
        record = replace(
            record,
            final=graph.final,
            groups=graph.groups,
            totals=plan.totals,
            work=work_of(plan),
            notes=(*_ask(client, "machines"), *told),
        )
        write_json(storage.join(plan.root, "run.json"), asdict(record))
        _ask(client, "amend", record=record)
        expected = expectations_of(plan, "run.json", record.name, resources or ())
        _ask(client, "expect", name=record.name, expected=dumps(expected))
        _wait_until_admitted(client, record.name)
        future = client.get(graph.graph, graph.final, sync=False)
        _wait_until_held(client, record, future)
    except BaseException:
        with suppress(OSError):
            _ask(client, "abandon", name=record.name)
        raise
    return record


def install_plugins(client: distributed.Client) -> None:
    """Give a scheduler its plugin and workers their setup; those that have them keep them.

    A worker that does not take its setup, or cannot be reached, gets no tasks: the scheduler hears nothing of
    what it runs.
    """
    client.register_plugin(RunsPlugin())
    # The scheduler keeps the setup for all that join before it asks those that are here, whose errors come
    # back as they are: that of a worker without lmr, of one that does not answer.
    with suppress(Exception):
        client.sync(client.register_plugin, WorkerSetup(), callback_timeout=_SETUP_SECONDS)


def declared(client: distributed.Client) -> frozenset[str] | None:
    """Return the resources that workers declare; None while there is no worker."""
    workers = workers_of(client).values()
    return frozenset(name for w in workers for name in w["resources"]) if workers else None


def follow(
    client: distributed.Client,
    name: str,
    progress: Callable[[Progress], None],
    where: Where | None = None,
) -> RunReport:
    """Follow a run to its end and return its account; works from any machine, as often as wanted.

    Parameters
    ----------
    client
        Connected to the cluster.
    name
        The run's name.
    progress
        Is told, often, how far it is.
    where
        Which cluster it is, for commands that messages name.

    Raises
    ------
    ClusterError
        If there is no such run, it was cancelled, or the scheduler went away.
    """
    return report_of(wait_for(client, name, progress, where))


def wait_for(
    client: distributed.Client,
    name: str,
    progress: Callable[[Progress], None],
    where: Where | None = None,
) -> RunStatus:
    """Wait until a run has ended, however it does; the parameters are those of `follow`.

    Raises
    ------
    ClusterError
        If there is no such run, or the scheduler went away.
    """
    pause = _FIRST_POLL_SECONDS
    try:
        status = find_run(client, name)
        while status.active:
            progress(_with_notices(status, where))
            # The scheduler answers at once when the run ends: it is not held up by the watching of it.
            later = client.run_on_scheduler(_status_later, name=name, seconds=pause)
            status = later or find_run(client, name)
            pause = min(1.5 * pause, _POLL_SECONDS)
    except OSError as error:
        raise ClusterError(
            f"the scheduler went away while {name} was watched",
            got=one_line(error, 200),
            fix=f"if it runs: {(where or Where()).command('watch', name)}; if it was lost, start it again, "
            "and run the same command once more: only what is missing is made",
        ) from error
    progress(_with_notices(status, where))
    return status


def _with_notices(status: RunStatus, where: Where | None) -> Progress:
    """Return how far a run is, with all that there is to tell of its machines, unless they are this one."""
    known = status.record.notes if where is None or where.scheduler else ()
    return replace(status.progress, notices=tuple(dict.fromkeys((*known, *status.notices))))


def report_of(status: RunStatus) -> RunReport:
    """Return the account of a run that ended.

    Raises
    ------
    ClusterError
        If it was cancelled, or Dask itself gave it up.
    """
    name = status.record.name
    if status.report is not None:
        report: RunReport = pickle.loads(status.report)
        return report
    if status.state == "cancelled":
        raise ClusterError(
            f"the run {name} was cancelled", fix="submit again to go on: only what is missing is made"
        )
    raise ClusterError(
        f"the run {name} was given up by Dask",
        got=" ".join(status.error.split())[:500] or "no reason",
        fix="see the logs of scheduler and workers; submit again to go on",
    )


def find_run(client: distributed.Client, name: str) -> RunStatus:
    """Return how far a run is.

    Raises
    ------
    ClusterError
        If the scheduler knows no such run.
    """
    status: RunStatus | None = _ask(client, "status", name=name)
    if status is None:
        raise _unknown(name, list_runs(client))
    return status


def course_of_run(client: distributed.Client, name: str) -> Course | None:
    """Return the course of a run; None where the scheduler keeps it no more."""
    course: Course | None = _ask(client, "course", run=name)
    return course


def _unknown(name: str, known: Sequence[RunStatus]) -> ClusterError:
    names = ", ".join(run.record.name for run in known[:10])
    return ClusterError(
        f"the scheduler knows no run {name}",
        got=f"it knows {names}" if names else "it knows no run at all",
        fix="if the scheduler was restarted, submit again: only what is missing is made"
        + ("; what a run's folder holds tells: lmr info FOLDER" if "/" in name else ""),
    )


def choose_run(client: distributed.Client, wanted: str | None = None) -> RunStatus:
    """Return the run that a user means.

    Parameters
    ----------
    client
        Connected to the cluster.
    wanted
        A run's name, its folder, whose last run is meant, or the beginning of a name that no other run has;
        None: the last run of all.

    Raises
    ------
    ClusterError
        If no run is meant, or several are.
    """
    known = list_runs(client)
    if not wanted:
        if not known:
            raise ClusterError("this scheduler knows no run", fix="submit one, or name another --scheduler")
        return known[0]
    if exact := [run for run in known if run.record.name == wanted]:
        return exact[0]
    folder = storage.absolute(wanted).rstrip("/")
    if there := [run for run in known if run.record.root == folder]:
        return there[0]
    if begun := [run for run in known if run.record.name.startswith(wanted)]:
        if len(begun) > 1:
            raise ClusterError(
                f"several runs begin with {wanted}",
                got=", ".join(run.record.name for run in begun[:10]),
                fix="give more of the name, or the whole of it",
            )
        return begun[0]
    raise _unknown(wanted, known)


def list_runs(client: distributed.Client) -> list[RunStatus]:
    """Return the runs that a scheduler knows, the latest first."""
    statuses: list[RunStatus] = _ask(client, "statuses") or []
    return sorted(statuses, key=lambda status: -status.record.since)


def cancel_run(client: distributed.Client, name: str) -> RunStatus:
    """Stop a run; shards that are finished, or being made, stay in storage."""
    find_run(client, name)
    _ask(client, "cancel", name=name)
    return find_run(client, name)


def new_record(plan: Plan) -> RunRecord:
    """Return who runs a plan, and since now, under a new name."""
    root = plan.root.rstrip("/")
    targets = digest(sorted(part.step.fingerprint for part in plan))
    # A name is typed: of the folder's it has what needs no quotes.
    about = re.sub(r"[^\w.-]+", "-", PurePosixPath(root).name).strip("-") or "run"
    return RunRecord(
        name=f"{plan.workflow}-{about}-{uuid.uuid4().hex[:4]}",
        root=root,
        workflow=plan.workflow,
        targets=targets,
        user=_user(),
        host=socket.gethostname(),
        since=time.time(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _refusal(taken: RunStatus, wanted: RunRecord, where: Where) -> ClusterError:
    record = taken.record
    same = "this very run" if record.targets == wanted.targets else "a run with other settings"
    done, total = sum(taken.counts.values()), sum(record.totals.values())
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.since))
    return ClusterError(
        f"{record.root} is being worked on: {same} goes on as {record.name}",
        got=f"submitted by {record.user} on {record.host} at {since}; {done} of {total} shards done",
        fix=f"{where.command('watch', record.name)}; or {where.command('cancel', record.name)}; "
        "or choose another --out",
    )


def _wait_until_admitted(client: distributed.Client, name: str) -> None:
    """Wait until a worker is admitted to the run; refuse a run that no worker is admitted to."""
    deadline = time.monotonic() + _ADMITTED_SECONDS
    while (reasons := _ask(client, "stranded", name=name)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if reasons:
        raise ClusterError("no worker can take part in this run", got=reasons[0], fix=_fix_in(reasons[0]))


def _fix_in(reason: str) -> str:
    return reason.partition("fix: ")[2].partition(" (it ")[0] or "see the workers' logs"


def _wait_until_held(client: distributed.Client, record: RunRecord, future: distributed.Future) -> None:
    """Wait until the plugin holds the graph: until then, all hangs on this client."""
    deadline = time.monotonic() + _SENT_SECONDS
    while find_run(client, record.name).state == "preparing":
        if future.status == "error":
            raise ClusterError(
                "the scheduler cannot read the run's graph",
                got=" ".join(str(future.exception()).split())[:300],
                fix="install the same versions everywhere: pip install -c constraints.txt lmr",
            )
        if time.monotonic() > deadline:
            raise ClusterError(
                "the scheduler did not take the run's graph",
                got=f"no answer in {_SENT_SECONDS} s",
                fix="see the scheduler's log, and submit again",
            )
        time.sleep(0.05)


def _ask(client: distributed.Client, method: str, **about: Any) -> Any:
    return client.run_on_scheduler(_answer, method=method, about=about)


async def _status_later(name: str, seconds: float, dask_scheduler: Any) -> RunStatus | None:
    """Ask the plugin how far a run is once it has ended, or after so many seconds; runs on the scheduler."""
    plugin = dask_scheduler.plugins.get(RunsPlugin.name)
    return await plugin.status_later(name, seconds) if plugin else None


def _answer(method: str, about: dict[str, Any], dask_scheduler: Any) -> Any:
    """Call the plugin; runs on the scheduler. One that no run was ever submitted to has none."""
    plugin = dask_scheduler.plugins.get(RunsPlugin.name)
    return getattr(plugin, method)(**about) if plugin else None
