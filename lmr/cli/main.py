"""The command line: parse, layer settings, hand over to a workflow. No logic of its own."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lmr import __version__, versions
from lmr.cli import aws, tables
from lmr.cli.calibrate import calibrate
from lmr.cli.cluster import Tls, cluster_app, dashboard
from lmr.cli.files import copy_files
from lmr.cli.lab import lab_app
from lmr.cli.notices import local_gpus, tell_of_networks
from lmr.cli.runs import Scheduler, jobs_app
from lmr.cli.weights import weights_app
from lmr.cli.workflow import Chosen, show_results, with_workflow
from lmr.cluster.client import Where
from lmr.errors import LmrError, SettingsError
from lmr.evaluation import kaggle, scorers
from lmr.runtime.graph import make_plan
from lmr.scheduler.run import run as run_steps

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)
app.add_typer(weights_app, name="weights")
app.add_typer(cluster_app, name="cluster")
cluster_app.add_typer(lab_app, name="lab")
app.command()(dashboard)
app.command()(calibrate)
app.command("files")(copy_files)
aws.add_to(cluster_app)
app.add_typer(jobs_app)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


@app.callback()
def root() -> None:
    """Find every photo of the same landmark in a million, as distributed Dask workflows."""


@app.command()
def version(
    all_: Annotated[bool, typer.Option("--all", help="Python's and the libraries' too.")] = False,
) -> None:
    """Print the version."""
    print(versions.line() if all_ else __version__)


@app.command("run")
@with_workflow
def run_command(
    chosen: Chosen,
    scheduler: Scheduler = None,
    tls: Tls = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on this machine; 0: none. Default: one per core.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print steps, shards, sizes and what networks take, and stop.")
    ] = False,
) -> None:
    """Run a workflow, or go on with one: only what is missing is made."""
    started = time.perf_counter()
    for news in chosen.news:
        out.print(news)
    if workers is None:
        workers = 0 if scheduler else len(os.sched_getaffinity(0))
    if plan:
        out.print(tables.plan_table(make_plan(chosen.flow.targets, chosen.root)))
        tell_of_networks(chosen.flow, chosen.root, None if scheduler else workers, out)
        return
    chosen.remember()
    device = chosen.flow.inputs.device
    where = Where(scheduler=scheduler, workers=workers, gpus=0 if scheduler else local_gpus(device), tls=tls)
    tell_of_networks(chosen.flow, chosen.root, None if scheduler else workers, out)
    with tables.ProgressBars(out) as bars:
        report = run_steps(
            chosen.flow.targets, chosen.root, where, bars, workflow=chosen.name, finalizer=chosen.finalizer
        )
    for notice in report.notices:
        out.print(notice, soft_wrap=True)
    if report.summaries:
        out.print(tables.summary_table(report.summaries))
    else:
        out.print("nothing was left to do: every shard is there")
    show_results(chosen, out)
    out.print(f"{time.perf_counter() - started:.1f} s")


@app.command()
def evaluate(
    submission: Annotated[str, typer.Argument(help="CSV id,images.")],
    solution: Annotated[str, typer.Option(help="CSV id,images.")],
    protocol: Annotated[str, typer.Option(help="map_at_100.")] = "map_at_100",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a submission."""
    if protocol != "map_at_100":
        raise SettingsError("unknown protocol", got=protocol, fix="use map_at_100")
    predictions, truth = kaggle.read_submission(submission), kaggle.read_solution(solution)
    known = {query: images for query, images in predictions.items() if query in truth}
    if len(known) < len(predictions):
        err.print(f"{len(predictions) - len(known)} queries are not in the solution and are not scored")
    scores = scorers.map_at_100(known or predictions, truth)
    counted = int((scores.per_query == scores.per_query).sum())
    if as_json:
        print(json.dumps({"protocol": protocol, "score": scores.mean, "queries": counted}))
    else:
        out.print(f"{protocol} {scores.mean:.4f} over {counted} queries")


@app.command()
def render(
    folder: Annotated[Path, typer.Argument(help="Folder to make: gallery/, queries/, solution.csv.")],
    landmarks: Annotated[int, typer.Option(min=1)] = 24,
    queries: Annotated[int, typer.Option(min=1)] = 36,
    distractors: Annotated[int, typer.Option(min=0)] = 60,
    long_side_px: Annotated[int, typer.Option(min=64)] = 512,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Render photos of a small synthetic world of landmarks, with its solution."""
    from lmr.testing import World, write_world

    world = replace(
        World(),
        landmarks=landmarks,
        queries=queries,
        distractors=distractors,
        long_side_px=long_side_px,
        seed=seed,
    )
    with out.status("rendering") as status:
        write_world(
            world,
            folder,
            workers=workers,
            progress=lambda n, of: status.update(f"rendering {n} of {of} photos"),
        )
    out.print(f"photos in {folder}")


def main() -> None:
    """Run the command line; a user's error becomes a few lines and exit code 1."""
    try:
        app()
    except LmrError as error:
        err.print(f"[bold red]error[/] {_escaped(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped; run the same command again to go on from here")
        sys.exit(130)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
