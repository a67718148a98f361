"""Runs on a scheduler: submit and leave, come back, look, stop."""

import time
from typing import Annotated

import typer
from rich.console import Console

from lmr.api.prepare import Prepared
from lmr.api.progress import ProgressBars
from lmr.cli import tables
from lmr.cli.options import Scheduler, Tls, named
from lmr.cli.workflow import with_workflow
from lmr.cluster.client import Where, open_client
from lmr.runtime.finish import raise_if_failed
from lmr.scheduler.plugin import RunStatus
from lmr.scheduler.run import submit as submit_steps
from lmr.scheduler.runs import cancel_run, find_run, list_runs, report_of
from lmr.scheduler.runs import follow as watch_run

__all__ = ["cancel", "runs", "status", "submit", "watch"]

Wait = Annotated[bool, typer.Option("--wait", help="Wait for workers that the run needs and has not yet.")]

out = Console(highlight=False)


@with_workflow
def submit(prepared: Prepared, scheduler: Scheduler = None, tls: Tls = None, wait: Wait = False) -> None:
    """Send a workflow to a scheduler and return at once: it goes on without this machine."""
    where = Where(scheduler=named(scheduler), tls=tls)
    for news in prepared.news:
        out.print(news)
    prepared.remember()
    record = submit_steps(
        prepared.flow.targets,
        prepared.root,
        where,
        workflow=prepared.name,
        finalizer=prepared.finalizer,
        wait=wait,
        tell=out.print,
    )
    if record is None:
        out.print("nothing was left to do: every shard is there")
        return
    for note in record.notes:
        out.print(note, soft_wrap=True)
    out.print(f"submitted as [bold]{record.name}[/]: {sum(record.totals.values()):,} shards to make")
    out.print(f"it goes on without this machine; to look at it: lmr watch {record.name}", soft_wrap=True)


def runs(scheduler: Scheduler = None, tls: Tls = None) -> None:
    """List the runs that a scheduler knows."""
    with open_client(Where(scheduler=named(scheduler), tls=tls)) as client:
        statuses = list_runs(client)
    out.print(tables.runs_table(statuses) if statuses else "this scheduler knows no run")


def status(
    run: Annotated[str | None, typer.Argument(help="Name of the run; without it: all runs.")] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
) -> None:
    """Tell how far a run is."""
    if run is None:
        runs(scheduler, tls)
        return
    with open_client(Where(scheduler=named(scheduler), tls=tls)) as client:
        found = find_run(client, run)
    _show(found)


def watch(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    scheduler: Scheduler = None,
    tls: Tls = None,
) -> None:
    """Follow a run to its end, from any machine; leaving does not stop it."""
    with open_client(Where(scheduler=named(scheduler), tls=tls)) as client:
        found = find_run(client, run)
        if found.active:
            with ProgressBars(out) as bars:
                bars.planned(found.record.totals)
                bars.connected(client.dashboard_link)
                watch_run(client, run, bars.progressed)
            found = find_run(client, run)
    _show(found)


def cancel(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    scheduler: Scheduler = None,
    tls: Tls = None,
) -> None:
    """Stop a run; what is finished stays, and submitting again goes on from there."""
    with open_client(Where(scheduler=named(scheduler), tls=tls)) as client:
        found = cancel_run(client, run)
    out.print(f"{run} is {found.state}")


def _show(found: RunStatus) -> None:
    """Print a run; one that failed is told as `lmr run` tells it."""
    for note in (*found.record.notes, *found.notices):
        out.print(note, soft_wrap=True)
    if found.active:
        out.print(tables.run_table(found))
        return
    summaries = raise_if_failed(report_of(found))
    out.print(tables.summary_table(summaries))
    took = (found.ended or time.time()) - found.record.since
    out.print(f"{found.record.name} took {took:,.0f} s; see {found.record.root}", soft_wrap=True)
