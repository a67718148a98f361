"""`lmr retry`: what failed for a reason that may pass is tried again."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr import storage
from lmr.api.progress import progress_on
from lmr.api.retrieve import place_of
from lmr.api.retry import prepare_again, retry_failed
from lmr.cli.options.shared import Scheduler, Tls
from lmr.cli.options.workflow import show_results
from lmr.cli.output import tables
from lmr.cli.report import Run
from lmr.scheduler.run import run as run_steps
from lmr.text import printable

__all__ = ["retry"]

out = Console(highlight=False)


def retry(
    run: Run,
    scheduler: Scheduler = None,
    tls: Tls = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes on this machine; 0 runs in this one. Default: one per core."),
    ] = None,
) -> None:
    """Try again what failed for a reason that may pass, and make again only what depends on it."""
    prepared = prepare_again(storage.absolute(run))
    inputs = prepared.flow.inputs
    where = place_of(inputs.device, scheduler, tls, workers, search_device=inputs.search_device)

    def tell(sentence: str) -> None:
        out.print(Text(printable(sentence)), soft_wrap=True)

    for news in prepared.news:
        tell(news)
    with progress_on(out) as listener:
        retried = retry_failed(prepared, where, listener, tell)
    for sentence in retried.sentences:
        tell(sentence)
    prepared = retried.prepared
    prepared.remember()
    with progress_on(out) as listener:
        report = run_steps(
            prepared.flow.targets,
            prepared.root,
            where,
            listener,
            workflow=prepared.name,
            finalizer=prepared.finalizer,
        )
    for notice in report.notices:
        tell(notice)
    if report.summaries:
        out.print(tables.summary_table(report.summaries))
    show_results(prepared.datasets, out)
