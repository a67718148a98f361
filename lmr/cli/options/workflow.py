"""The options that choose a workflow and its photos: shared by `lmr run` and `lmr submit`."""

import dataclasses
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmr.cli.options.choices import FEATURES_PANEL, SETTINGS, SETTINGS_PANEL, chosen_settings, give_options
from lmr.errors import SettingsError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from lmr.api.prepare import Prepared
    from lmr.collections.ready import Ready
    from lmr.steps.results.folder.datasets import RunDatasets

__all__ = ["choose", "show_results", "show_results_in", "with_workflow"]


_PHOTOS = "Photos"
"""The group of these options in the help."""


def choose(
    settings: Mapping[str, Any],
    workflow: Annotated[
        str,
        typer.Argument(help="The workflow's file, or its name: retrieval, recognition, or descriptors."),
    ],
    out_: Annotated[str, typer.Option("--out", help="Folder or URL of the run; run again to go on.")],
    gallery: Annotated[
        str | None, typer.Option(rich_help_panel=_PHOTOS, help="Folder or URL of the gallery's photos.")
    ] = None,
    queries: Annotated[
        str | None, typer.Option(rich_help_panel=_PHOTOS, help="Folder or URL of the query photos.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="In place of --gallery, --queries and --solution: see `lmr dataset list`, or a folder.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(rich_help_panel=_PHOTOS, help="Folder that data sets lie in.")
    ] = "data",
    gallery_descriptors: Annotated[
        str | None,
        typer.Option(rich_help_panel=_PHOTOS, help="Own descriptors in place of photos: .npy or Parquet."),
    ] = None,
    query_descriptors: Annotated[
        str | None, typer.Option(rich_help_panel=_PHOTOS, help="The same of the queries.")
    ] = None,
    gallery_ids: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="Their ids: text, one a line, or Parquet; not needed in a Parquet file.",
        ),
    ] = None,
    query_ids: Annotated[
        str | None, typer.Option(rich_help_panel=_PHOTOS, help="The same of the queries.")
    ] = None,
    solution: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="CSV of right photos (id,images), or of right landmarks (id,landmark), to score the run.",
        ),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="Score every stage by this protocol too, such as revisited-medium or recall@1,5; may be "
            "repeated. See `lmr evaluate --help`.",
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="With --score: easy, hard and junk photos of each query (id,easy,hard,junk), or id,ok,junk.",
        ),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="With --dataset: CSV of published figures to show beside. Default: those that come along.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_PHOTOS,
            help="Landmarks of the gallery, for recognition: CSV or Parquet with columns id and landmark. "
            "Without it, a photo's folder names its landmark.",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=SETTINGS_PANEL,
            help="probability.json of `lmr calibrate`: each answer gets a probability.",
        ),
    ] = None,
    search_device: Annotated[
        str,
        typer.Option(
            rich_help_panel=FEATURES_PANEL,
            help="Where exact searches run: cpu; or cuda, on workers with a GPU if there are some.",
        ),
    ] = "cpu",
    prune: Annotated[
        int | None,
        typer.Option(
            min=1, rich_help_panel=_PHOTOS, help="Use the first N shards of photos only, as a smoke test."
        ),
    ] = None,
) -> "Prepared":
    """Read the options and prepare the workflow."""
    from lmr.api.choices import Choices
    from lmr.api.prepare import prepare

    ready = None
    if dataset is not None:
        ready = _of_dataset(dataset, data, gallery, queries)
        gallery, queries, solution = ready.gallery, ready.queries, solution or ready.solution
        # What a data set is published with counts unless something else is asked for.
        score = score or list(ready.protocols)
        truth = truth or (ready.truth if score else None)
    prepared = prepare(
        workflow,
        Choices(
            out=out_,
            gallery=gallery,
            queries=queries,
            gallery_descriptors=gallery_descriptors,
            query_descriptors=query_descriptors,
            gallery_ids=gallery_ids,
            query_ids=query_ids,
            solution=solution,
            labels=labels,
            calibration=calibration,
            search_device=search_device,
            prune=prune,
            score=tuple(score or ()),
            truth=truth,
            dataset=ready.short_name if ready else None,
            published=published,
            **settings,
        ),
    )
    return dataclasses.replace(prepared, about={**prepared.about, "command": _command()})


def _of_dataset(name: str, data: str, gallery: str | None, queries: str | None) -> "Ready":
    """Return what a run takes of a data set."""
    from lmr.collections.ready import open_collection

    given = [f"--{n}" for n, url in (("gallery", gallery), ("queries", queries)) if url is not None]
    if given:
        raise SettingsError(
            "a data set brings its own photos",
            got=f"--dataset and {' and '.join(given)}",
            fix="give one of both",
        )
    return open_collection(name, data)


def _command() -> str:
    """Return the command line as it was typed, without what an address may carry of a password."""
    return re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:…@", shlex.join(["lmr", *sys.argv[1:]]))


def _missing_photos(given: Mapping[str, Any]) -> list[str]:
    """Name the options of photos that are missing; descriptors may take their place."""
    if given.get("gallery_descriptors") or given.get("query_descriptors"):
        return []
    return [f"--{name}" for name in ("gallery", "queries") if not given.get(name)]


def with_workflow(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a `Prepared` the options of `choose` in its place."""
    own = dict(list(inspect.signature(choose).parameters.items())[1:])

    def gather(**values: Any) -> "Prepared":
        settings = chosen_settings(**{name: values.pop(name) for name in SETTINGS})
        return choose(settings, **values)

    wrapped = give_options(command, gather, {**own, **SETTINGS})
    wrapped.also_missing = _missing_photos  # type: ignore[attr-defined]
    return wrapped


def show_results(datasets: "RunDatasets", out: "Console") -> None:
    """Print what a finished run has for people to read."""
    from rich.text import Text

    from lmr import storage
    from lmr.cli.output import tables
    from lmr.cli.output.protocol_tables import protocol_tables
    from lmr.cli.report import files_text, tell_answers, tell_names
    from lmr.steps.results.folder.files import read_accuracy, read_notes, read_scores, read_unusable
    from lmr.text import printable

    if unusable := read_unusable(datasets):
        out.print(tables.unusable_table(unusable))
    for note in read_notes(datasets):
        out.print(note, soft_wrap=True, markup=False)
    if scores := read_scores(datasets):
        measure = "mAP@100" if datasets.recognised is None else "GAP"
        out.print(tables.scores_table(scores, datasets.labels, measure))
    for table in protocol_tables(datasets):
        out.print(table)
    if accuracy := read_accuracy(datasets):
        out.print(f"right names, of queries with a landmark: {accuracy['accuracy']:.4f}")
    if datasets.recognised is None:
        tell_answers(datasets, out)
    else:
        tell_names(datasets, out)
    files = {
        "submission": storage.join(datasets.root, "submission.csv"),
        "matches": files_text(datasets),
        "report": storage.join(datasets.root, "report/index.html"),
        "landmarks": storage.join(datasets.root, "report/recognition.html") if datasets.recognised else "",
    }
    for name, url in files.items():
        if url and (name == "matches" or storage.exists(url)):
            out.print(Text(printable(f"{name:10} {url}")), soft_wrap=True)


def show_results_in(root: str, out: "Console") -> None:
    """Print what a run has left in its folder, which may be out of reach from this machine."""
    from lmr import storage
    from lmr.steps.results.folder.datasets import RECORD, open_datasets

    try:
        if storage.exists(storage.join(root, RECORD)):
            show_results(open_datasets(root), out)
    except StorageError as error:
        out.print(f"its results cannot be read from here: {error}", soft_wrap=True, markup=False)
