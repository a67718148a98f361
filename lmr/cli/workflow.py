"""The options that choose a workflow, its photos and its settings: shared by `lmr run` and `lmr submit`."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import cloudpickle
import typer
from rich.console import Console

from lmr import storage
from lmr.cli import tables
from lmr.errors import LmrError, SettingsError
from lmr.runtime.settings import layer, parse_overrides, read_toml
from lmr.steps.photos.generations import recall, remember
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.report import close_run
from lmr.steps.results.results import Finished, read_scores, read_unusable
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs, Weights, Workflow

__all__ = ["Chosen", "choose", "load_workflow", "show_results", "with_workflow"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A workflow on photos, with settings, and the folder that it runs in.

    Attributes
    ----------
    name
        Name of the workflow.
    flow
        Its steps.
    settings
        Settings of every step.
    root
        The run's folder.
    news
        What the run did not know of its photos, sentences for the user.
    pruned
        Whether these are the first shards only.
    """

    name: str
    flow: Workflow
    settings: Any
    root: str
    news: tuple[str, ...] = ()
    pruned: bool = False

    @cached_property
    def finished(self) -> Finished:
        """The datasets that it ends in."""
        return Finished.of(self.flow, self.root, self.settings)

    def remember(self) -> None:
        """Store the photos in the run's folder, so that a gallery may grow; not those of a smoke test."""
        inputs = self.flow.inputs
        if not self.pruned:
            for photos in (inputs.gallery, inputs.queries):
                remember(photos, self.root, self.flow.photos_per_shard)

    @property
    def finalizer(self) -> Callable[[], None]:
        """Writes what people read once every shard is there."""
        return partial(close_run, self.finished)


def choose(
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
    local_weights: Annotated[
        str | None, typer.Option(help="Weights of the local features' network: a file or URL.")
    ] = None,
    global_: Annotated[
        str | None, typer.Option("--global", help="Global descriptor: vlad, triangulation or gem.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of gem's network: a file or URL.")] = None,
    device: Annotated[str, typer.Option(help="Where networks run: cpu or cuda.")] = "cpu",
    prune: Annotated[
        int | None, typer.Option(min=1, help="First N shards of everything: a smoke test.")
    ] = None,
) -> Chosen:
    """Read the options: load the workflow, layer its settings, list its photos."""
    module = load_workflow(workflow)
    shortcuts = {"local": {"features": local}, "describe": {"descriptor": global_}}
    chosen = {g: {k: v for k, v in fields.items() if v is not None} for g, fields in shortcuts.items()}
    settings = layer(
        _preset(module, preset or global_),
        {group: fields for group, fields in chosen.items() if fields},
        read_toml(config) if config else {},
        parse_overrides(set_ or []),
    )
    # Workers have other working directories than this shell.
    gallery, queries = storage.absolute(gallery), storage.absolute(queries)
    root = storage.absolute(out_)
    known = (
        recall(list_photos("gallery", gallery), root),
        recall(list_photos("queries", queries), root),
    )
    photos = known[0].photos, known[1].photos
    if prune:
        per_shard = prune * settings.ingest.photos_per_shard
        photos = photos[0].first(per_shard), photos[1].first(per_shard)
    truth = solution_for(read_solution(solution), *photos, pruned=bool(prune)) if solution else None
    inputs = Inputs(
        gallery=photos[0],
        queries=photos[1],
        solution=truth,
        weights=Weights.of(storage.absolute(weights)) if weights else None,
        local_weights=Weights.of(storage.absolute(local_weights)) if local_weights else None,
        device=device,
    )
    flow = module.build(inputs, settings)
    return Chosen(
        name=Path(workflow).stem,
        flow=flow,
        settings=settings,
        root=root,
        news=tuple(recalled.news for recalled in known if recalled.news),
        pruned=bool(prune),
    )


def with_workflow(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a `Chosen` the options of `choose` in its place."""
    options = inspect.signature(choose).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    def wrapped(**values: Any) -> None:
        chosen = choose(**{name: values.pop(name) for name in options})
        command(chosen, **values)

    # This is what typer reads a command's options from.
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*options.values(), *own)]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def show_results(chosen: Chosen, out: Console) -> None:
    """Print what a finished run has for people to read."""
    if unusable := read_unusable(chosen.finished):
        out.print(tables.unusable_table(unusable))
    if scores := read_scores(chosen.finished):
        out.print(tables.scores_table(scores))
    for name, file in (("submission", "submission.csv"), ("report", "report/index.html")):
        out.print(f"{name:10} {storage.join(chosen.root, file)}", soft_wrap=True)


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
    # Workers have lmr, but not this file: what it defines itself goes along with the tasks.
    cloudpickle.register_pickle_by_value(module)
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
