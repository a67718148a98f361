"""The command line: parse, layer settings, hand over to a workflow. No logic of its own."""

import importlib.util
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console

from lmr import __version__, cli_aws, console, versions
from lmr.cli_cluster import Tls, cluster_app, dashboard
from lmr.cli_lab import lab_app
from lmr.cli_weights import weights_app
from lmr.errors import LmrError, SettingsError
from lmr.evaluation import kaggle, scorers
from lmr.runtime.cluster import Where
from lmr.runtime.graph import needed
from lmr.runtime.run import run as run_steps
from lmr.runtime.settings import layer, parse_overrides, read_toml
from lmr.steps.evaluate import solution_for
from lmr.steps.generations import recall, remember
from lmr.steps.photos import list_photos
from lmr.steps.report import store_report
from lmr.steps.workflow import Inputs, Weights, read_scores, read_unusable, store_submission

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)
app.add_typer(weights_app, name="weights")
app.add_typer(cluster_app, name="cluster")
cluster_app.add_typer(lab_app, name="lab")
app.command()(dashboard)
cli_aws.add_to(cluster_app)
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
def run_command(
    workflow: Annotated[str, typer.Argument(help="The workflow's file, or its name (retrieval).")],
    gallery: Annotated[str, typer.Option(help="Folder or URL of the gallery's photos.")],
    queries: Annotated[str, typer.Option(help="Folder or URL of the query photos.")],
    out_: Annotated[str, typer.Option("--out", help="Folder or URL of the run; run again to go on.")],
    solution: Annotated[str | None, typer.Option(help="CSV id,images: score every step.")] = None,
    config: Annotated[str | None, typer.Option(help="TOML file of settings, a table per step.")] = None,
    preset: Annotated[str | None, typer.Option(help="Named settings of the workflow, such as paper.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="step.field=value; may be repeated.")
    ] = None,
    local: Annotated[
        str | None, typer.Option(help="Local features: rootsift, delf, xfeat, aliked-t16 or aliked-n16.")
    ] = None,
    local_weights: Annotated[str | None, typer.Option(help="Weights of the local features' network.")] = None,
    global_: Annotated[
        str | None, typer.Option("--global", help="Global descriptor: vlad, triangulation or gem.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="File of the network's weights, for gem.")] = None,
    device: Annotated[str, typer.Option(help="Where networks run: cpu or cuda.")] = "cpu",
    scheduler: Annotated[
        str | None, typer.Option(envvar="DASK_SCHEDULER_ADDRESS", help="Address of a Dask scheduler.")
    ] = None,
    tls: Tls = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on this machine; 0: none. Default: one per core.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print steps, shards and sizes, and stop.")] = False,
    prune: Annotated[
        int | None, typer.Option(min=1, help="First N shards of everything: a smoke test.")
    ] = None,
) -> None:
    """Run a workflow, or go on with one: only what is missing is made."""
    started = time.perf_counter()
    module = load_workflow(workflow)
    shortcuts = {"local": {"features": local}, "describe": {"descriptor": global_}}
    chosen = {g: {k: v for k, v in fields.items() if v is not None} for g, fields in shortcuts.items()}
    settings = layer(
        _preset(module, preset or global_),
        {group: fields for group, fields in chosen.items() if fields},
        read_toml(config) if config else {},
        parse_overrides(set_ or []),
    )
    known = (
        recall(list_photos("gallery", gallery), out_),
        recall(list_photos("queries", queries), out_),
    )
    photos = known[0].photos, known[1].photos
    if prune:
        per_shard = prune * settings.ingest.photos_per_shard
        photos = photos[0].first(per_shard), photos[1].first(per_shard)
    truth = solution_for(kaggle.read_solution(solution), *photos, pruned=bool(prune)) if solution else None
    inputs = Inputs(
        gallery=photos[0],
        queries=photos[1],
        solution=truth,
        weights=Weights.of(weights) if weights else None,
        local_weights=Weights.of(local_weights) if local_weights else None,
        device=device,
    )
    flow = module.build(inputs, settings)
    for recalled in known:
        if recalled.news:
            out.print(recalled.news)
    if plan:
        out.print(console.plan_table(needed(flow.targets, out_)))
        return
    if not prune:
        for listed in photos:
            remember(listed, out_, settings.ingest.photos_per_shard)
    if workers is None:
        workers = 0 if scheduler else len(os.sched_getaffinity(0))
    resources = {"CPU": 1, "GPU": 1} if device != "cpu" else {"CPU": 1}
    where = Where(scheduler=scheduler, tls=tls, workers=workers, resources=resources)
    with console.ProgressBars(out) as bars:
        outcome = run_steps(flow.targets, out_, where, bars)
    if outcome.summaries:
        out.print(console.summary_table(outcome.summaries))
    else:
        out.print("nothing was left to do: every shard is there")
    submission = store_submission(flow, out_)
    if unusable := read_unusable(flow, out_):
        out.print(console.unusable_table(unusable))
    if scores := read_scores(flow, out_):
        out.print(console.scores_table(scores))
    report = store_report(flow, outcome.plan, out_, settings)
    out.print(
        f"submission {submission}\nreport     {report}\n{time.perf_counter() - started:.1f} s", soft_wrap=True
    )


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
    from lmr.synthetic import World, write_world

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


def load_workflow(name: str) -> ModuleType:
    """Import a workflow from its file, or by its name from those that come with lmr.

    Raises
    ------
    LmrError
        If there is no such workflow, or the file does not define one.
    """
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        spec = importlib.util.spec_from_file_location(f"lmr_workflow_{path.stem}", path)
    else:
        spec = importlib.util.find_spec(f"workflows.{path.stem}") if path.stem.isidentifier() else None
    if spec is None or spec.loader is None:
        raise LmrError("there is no such workflow", got=name, fix="for example workflows/retrieval.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not (hasattr(module, "build") and hasattr(module, "PRESETS")):
        raise LmrError(
            f"{name} is not a workflow",
            got="no build(inputs, settings) or no PRESETS in it",
            fix="see workflows/retrieval.py",
        )
    return module


def _preset(module: ModuleType, name: str | None) -> Any:
    presets = module.PRESETS
    name = name or next(iter(presets))
    if name not in presets:
        raise SettingsError("unknown preset", got=name, fix=f"one of: {', '.join(presets)}")
    return presets[name]


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


if __name__ == "__main__":
    main()
