"""Runs on a scheduler: submit and leave, come back, look, stop."""

import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Annotated, Any

import typer
from rich.console import Console

from lmr import storage
from lmr.api.prepare import Prepared
from lmr.api.progress import progress_on
from lmr.cli.options.shared import Scheduler, Tls, named
from lmr.cli.options.workflow import show_results_in, with_workflow
from lmr.cli.output import tables
from lmr.cluster.client import Where, open_client
from lmr.errors import ClusterError, StorageError
from lmr.runtime.estimate import left_text
from lmr.runtime.finish import raise_if_failed
from lmr.scheduler.plugin import RunStatus
from lmr.scheduler.run import submit as submit_steps
from lmr.scheduler.runs import (
    cancel_run,
    choose_run,
    course_of_run,
    find_run,
    list_runs,
    report_of,
    wait_for,
)
from lmr.steps.results.report.run_page import PAGE, price_run, run_page
from lmr.text import counted, printable

__all__ = ["cancel", "runs", "status", "submit", "watch"]

Wait = Annotated[bool, typer.Option("--wait", help="Wait for workers that the run needs and has not yet.")]
Run = Annotated[
    str | None,
    typer.Argument(help="The run's name, the beginning of it, or its folder. Without it: the last run."),
]

AGAIN = "run the same command again to go on: only what is missing is made"

PAGE_SECONDS = 3
"""How often a browser asks for the page of a run anew."""

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
    out.print(f"submitted as [bold]{record.name}[/]: {counted(sum(record.totals.values()), 'shard')} to make")
    watching = where.command("watch", record.name)
    out.print(f"it goes on without this machine; to look at it: {watching}", soft_wrap=True, markup=False)


def runs(scheduler: Scheduler = None, tls: Tls = None) -> None:
    """List the runs that a scheduler knows."""
    with open_client(Where(scheduler=named(scheduler), tls=tls)) as client:
        statuses = list_runs(client)
    out.print(tables.runs_table(statuses) if statuses else "this scheduler knows no run")


def status(run: Run = None, scheduler: Scheduler = None, tls: Tls = None) -> None:
    """Tell how far a run is, and show the results of one that has ended."""
    with open_client(Where(scheduler=named(scheduler, run), tls=tls)) as client:
        found = choose_run(client, run)
    _tell_notes(found)
    if found.active or found.state == "cancelled":
        out.print(tables.run_table(found))
        if not found.active:
            out.print(f"{found.record.name} was cancelled; {AGAIN}", soft_wrap=True, markup=False)
        return
    _show_end(found)


def watch(
    run: Run = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    web: Annotated[
        bool, typer.Option("--web", help="Show its course as a page in the browser too, on this machine.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the page; 0: any free one.")] = 0,
    worker_price: Annotated[
        float | None, typer.Option(min=0, help="Dollars that a worker costs in an hour; the page adds up.")
    ] = None,
) -> None:
    """Follow a run to its end, from any machine, and show its results; leaving does not stop it."""
    where = Where(scheduler=named(scheduler, run), tls=tls)
    told: set[str] = set()
    with open_client(where) as client:
        found = choose_run(client, run)
        name = found.record.name
        followed = found.active
        if followed:
            page = _page(client, name, port, worker_price) if web else nullcontext()
            with page, progress_on(out) as listener:
                told = listener.told
                listener.planned(found.record.totals)
                listener.connected(client.dashboard_link)
                try:
                    found = wait_for(client, name, listener.progressed, where)
                except KeyboardInterrupt:
                    again = where.command("watch", name)
                    out.print(f"{name} goes on; to look at it: {again}", soft_wrap=True, markup=False)
                    raise
        if worker_price is not None:
            # The page that is kept has the price too, where this machine reaches the folder.
            with suppress(StorageError):
                price_run(found.record.root, worker_price)
        if web and not followed:
            kept = storage.join(found.record.root, "report", PAGE)
            out.print(f"it has ended; its page is kept: {kept}", soft_wrap=True, markup=False)
    _tell_notes(found, told)
    if found.state == "cancelled":
        out.print(tables.run_table(found))
        raise ClusterError(f"{name} was cancelled", got=_made_text(found), fix=AGAIN)
    _show_end(found)


@contextmanager
def _page(client: Any, name: str, port: int, usd_per_hour: float | None) -> Iterator[None]:
    """Serve the page of a run's course while the block runs."""
    from lmr.cli.output.web import served

    dashboard = [("Dask's dashboard", client.dashboard_link)] if client.dashboard_link else []

    def page() -> str:
        course = course_of_run(client, name)
        if course is None:
            return "<p>The scheduler keeps the course of this run no more.</p>"
        left = find_run(client, name).progress.left
        return run_page(
            course,
            left=left_text(left) if left is not None and course.state == "running" else "",
            links=dashboard,
            usd_per_hour=usd_per_hour,
            refresh_seconds=PAGE_SECONDS,
        )

    with served(page, port) as url:
        out.print(f"page       {url}", soft_wrap=True)
        yield


def cancel(
    run: Annotated[
        str | None,
        typer.Argument(
            help="The run's name, the beginning of it, or its folder. Without it: the only one that goes on."
        ),
    ] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
) -> None:
    """Stop a run; what is finished stays, and submitting again goes on from there."""
    with open_client(Where(scheduler=named(scheduler, run), tls=tls)) as client:
        before = choose_run(client, run) if run else _only_one(list_runs(client))
        found = cancel_run(client, before.record.name)
    if not before.active:
        text = f"{found.record.name} has ended before: it is {found.state}; {_made_text(found)}"
        out.print(text, soft_wrap=True, markup=False)
        return
    out.print(
        f"{found.record.name} is {found.state}; {_made_text(found)}; {AGAIN}", soft_wrap=True, markup=False
    )


def _made_text(found: RunStatus) -> str:
    done, total = sum(found.counts.values()), sum(found.record.totals.values())
    return f"{done:,} of {counted(total, 'shard was', 'shards were')} made"


def _only_one(known: Sequence[RunStatus]) -> RunStatus:
    """Return the run that goes on, if it is one: nobody stops another one by leaving out its name."""
    active = [run for run in known if run.active]
    if len(active) == 1:
        return active[0]
    names = ", ".join(run.record.name for run in active[:10])
    raise ClusterError(
        "several runs go on" if active else "no run goes on",
        got=names or "none that could be stopped",
        fix="name the one to stop" if active else "lmr runs lists those that have ended",
    )


def _tell_notes(found: RunStatus, told: Container[str] = ()) -> None:
    _tell(note for note in (*found.record.notes, *found.notices) if note not in told)


def _tell(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        out.print(note, soft_wrap=True, markup=False)


def _show_end(found: RunStatus) -> None:
    """Print what a run that has ended leaves, as `lmr run` does; one that failed is told as there."""
    summaries = raise_if_failed(report_of(found))
    out.print(tables.summary_table(summaries))
    show_results_in(found.record.root, out)
    took = (found.ended or time.time()) - found.record.since
    out.print(
        f"{found.record.name} took {took:,.0f} s; see {printable(found.record.root)}",
        soft_wrap=True,
        markup=False,
    )
