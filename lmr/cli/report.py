"""`lmr report` and `lmr matches`: a run's answers for people."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr import storage
from lmr.text import printable

if TYPE_CHECKING:
    from lmr.steps.results.folder.datasets import RunDatasets

__all__ = ["Run", "copy", "files_text", "matches", "report", "tell_answers", "tell_names"]

Run = Annotated[str, typer.Argument(help="The run's folder or URL: what was --out.")]

SHOWN = 20

out = Console(highlight=False)


def report(
    run: Run,
    pictures: Annotated[
        int | None, typer.Option(min=0, help="Queries that have pictures at most; default: 200.")
    ] = None,
    worker_price: Annotated[
        float | None,
        typer.Option(min=0, help="Dollars that a worker costs in an hour; the page of the course adds up."),
    ] = None,
) -> None:
    """Write the report of a run anew; also of one that has not ended, with what there is."""
    from lmr.errors import LmrError
    from lmr.steps.results.folder.datasets import open_datasets
    from lmr.steps.results.report.report import store_report
    from lmr.steps.results.report.run_page import price_run

    datasets = open_datasets(storage.absolute(run), unfinished=True)
    if worker_price is not None and not price_run(datasets.root, worker_price):
        raise LmrError(
            "the course of this run was not kept, so its price cannot be told",
            got=datasets.root,
            fix="leave --worker-price out; the next run keeps its course",
        )
    out.print(Text(printable(store_report(datasets, most_pictured=pictures))), soft_wrap=True)


def matches(
    run: Run,
    copy_: Annotated[
        str | None,
        typer.Option("--copy", help="Sort the confident matches into this folder, a folder per query."),
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Link to the gallery's photos in place of copying them.")
    ] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Queries that are told of.")] = SHOWN,
) -> None:
    """Tell what was found for each query, and copy the confident matches into folders."""
    from lmr.errors import LmrError
    from lmr.steps.results.folder.datasets import open_datasets

    if links and copy_ is None:
        raise LmrError("--links needs the folder to fill", fix="give --copy FOLDER too")
    datasets = open_datasets(storage.absolute(run))
    tell_answers(datasets, out, most)
    if copy_ is not None:
        copy(datasets, copy_, out, links=links)


def tell_answers(datasets: "RunDatasets", console: Console, most: int = SHOWN) -> None:
    """Print a sentence for each query, the first ones, and where the others are."""
    from lmr.steps.results.matches.matches import answers

    total = 0
    for answer in islice(answers(datasets), most):
        console.print(Text(printable(answer.sentence)), soft_wrap=True)
        total += 1
    count = len(datasets.photos.queries.read(0, ["photo"]))
    if count > total:
        where = files_text(datasets) or "the report"
        console.print(Text(printable(f"and {count - total:,} more in {where}")), soft_wrap=True)


def tell_names(datasets: "RunDatasets", console: Console, most: int = SHOWN) -> None:
    """Print the landmark of each query, the first ones, of a run of recognition."""
    from lmr.steps.results.recognition import read_names

    names = read_names(datasets)
    for query, named in islice(names.items(), most):
        said = "no landmark" if named is None else f"{named[0]}, confidence {named[1]:.3f}"
        console.print(Text(printable(f"{query}: {said}")), soft_wrap=True)
    if len(names) > most:
        console.print(f"and {len(names) - most:,} more in landmarks.csv", soft_wrap=True)


def files_text(datasets: "RunDatasets") -> str:
    """Name the files of matches, the first and the last where they are many; empty where there are none."""
    from lmr.steps.results.matches.matches import files_of

    files = files_of(datasets)
    return " to ".join(dict.fromkeys(files[:: max(len(files) - 1, 1)]))


def copy(datasets: "RunDatasets", folder: str, console: Console, *, links: bool = False) -> None:
    """Sort the confident matches into a folder, and say how many there are."""
    from lmr.steps.results.matches.copies import copy_matches

    copied = copy_matches(datasets, folder, links=links)
    queries = f"{copied.queries:,} quer{'ies' if copied.queries != 1 else 'y'}"
    gone = f"; {copied.removed:,} of an earlier copy removed" if copied.removed else ""
    verb = "linked" if links else "copied"
    told = f"{copied.photos:,} confident matches of {queries} {verb} to {folder}{gone}"
    console.print(Text(printable(told)), soft_wrap=True)
