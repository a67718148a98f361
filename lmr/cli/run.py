"""`lmr run`: a workflow to its end."""

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr.api.prepare import Prepared
from lmr.api.progress import progress_on
from lmr.api.retrieve import place_of
from lmr.cli.options.shared import Scheduler, Tls
from lmr.cli.options.workflow import show_results, with_workflow
from lmr.cli.output import tables
from lmr.cli.output.notices import memory_text, tell_of_machines, tell_of_networks, tell_of_time
from lmr.cli.report import copy
from lmr.cluster.capacity import memory_bytes
from lmr.runtime.graph import make_plan
from lmr.scheduler.run import run as run_steps
from lmr.steps.results.folder.origins import reasons
from lmr.text import printable

__all__ = ["run"]

out = Console(highlight=False)


@with_workflow
def run(
    prepared: Prepared,
    scheduler: Scheduler = None,
    tls: Tls = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes on this machine; 0 runs in this one. Default: one per core."),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print steps, shards and sizes, why a step is made again, and stop."),
    ] = False,
    machines: Annotated[
        str | None,
        typer.Option(help='With --plan: hours and price on these machines, such as "10 x m5.24xlarge".'),
    ] = None,
    rates: Annotated[str | None, typer.Option(help="With --machines: what `lmr measure` wrote.")] = None,
    copy_matches: Annotated[
        str | None,
        typer.Option(
            "--copy-matches", help="Sort the confident matches into this folder, a folder per query."
        ),
    ] = None,
) -> None:
    """Run a workflow, or go on with one: only what is missing is made."""
    started = time.perf_counter()
    for news in prepared.news:
        out.print(news)
    flow, root = prepared.flow, prepared.root
    where = place_of(flow.inputs.device, scheduler, tls, workers, search_device=flow.inputs.search_device)
    processes = None if scheduler else where.workers
    todo = make_plan(flow.targets, root)
    if plan:
        out.print(tables.plan_table(todo))
        for reason in reasons(todo):
            out.print(Text(printable(reason)), soft_wrap=True)
        tell_of_time(todo, processes, out)
        if machines:
            tell_of_machines(todo, machines, rates, len(flow.inputs.photos.gallery), out)
    else:
        prepared.remember()
    tell_of_networks(flow, root, processes, out)
    if processes is not None and (warning := memory_text(todo, processes, memory_bytes())):
        out.print(warning, soft_wrap=True)
    if plan:
        return
    with progress_on(out) as listener:
        report = run_steps(
            flow.targets, root, where, listener, workflow=prepared.name, finalizer=prepared.finalizer
        )
    for notice in report.notices:
        if notice not in listener.told:
            out.print(notice, soft_wrap=True, markup=False)
    if report.summaries:
        out.print(tables.summary_table(report.summaries))
    else:
        out.print("nothing was left to do: every shard is there")
    show_results(prepared.datasets, out)
    if copy_matches is not None:
        copy(prepared.datasets, copy_matches, out)
    out.print(f"{time.perf_counter() - started:.1f} s")
