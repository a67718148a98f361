"""`lmr dataset`: published data sets by name: list, describe, fetch."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from lmr import storage
from lmr.cli.output.tables import bytes_text
from lmr.collections.catalogue import COLLECTIONS, Collection, Part, find_collection
from lmr.collections.fetch import Job, fetch
from lmr.collections.ready import open_collection
from lmr.errors import LmrError
from lmr.evaluation.protocols.published import parse_figures, shipped_figures
from lmr.text import printable

__all__ = ["dataset_app"]

dataset_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Published data sets by name: list, describe, fetch."
)
out = Console(highlight=False, markup=False)

Data = Annotated[str, typer.Option("--data", help="Folder that data sets lie in.")]


@dataset_app.command("list")
def list_command(data: Data = "data") -> None:
    """List the data sets that are known by name, and which are here."""
    table = Table(title=f"data sets, kept in {printable(data)}", title_justify="left")
    for name in ("name", "what", "size", "here"):
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    for collection in COLLECTIONS:
        table.add_row(
            collection.name,
            collection.title,
            _size_text(collection),
            "yes" if _here(collection, data) else "",
        )
    out.print(table)
    out.print("licences, parts and sources: lmr dataset describe NAME", soft_wrap=True)


@dataset_app.command("describe")
def describe_command(
    name: Annotated[str, typer.Argument(help="A name of the list, or a folder of your own.")],
    data: Data = "data",
) -> None:
    """Tell what a data set holds, its licence, where it comes from, and how it is run on."""
    if not any(name == one.name or name in one.aliases for one in COLLECTIONS):
        ready = open_collection(name, data)
        out.print(f"a folder of your own: {printable(ready.folder)}", soft_wrap=True)
        out.print("scored by its solution.csv" if ready.solution else "not scored: it has no solution.csv")
        out.print(ready.command(), soft_wrap=True)
        return
    collection = find_collection(name)
    for label, text in (
        ("what", collection.title),
        ("licence", collection.licence),
        ("home", collection.home),
        ("source", collection.facts),
        ("protocol", collection.protocol),
    ):
        out.print(f"{label:10}{text}", soft_wrap=True)
    if collection.aliases:
        out.print(f"{'also':10}{', '.join(collection.aliases)}")
    figures = parse_figures(storage.read(shipped_figures()), "published figures")
    if count := sum(one.data_set == collection.name for one in figures):
        out.print(
            f"{'published':10}{count} figures stand beside a run's own: {shipped_figures()}", soft_wrap=True
        )
    for part in collection.parts:
        asked = "" if part.wanted else f", only by --part {part.name}"
        out.print(f"{'part':10}{part.name}: {part.says}{_part_size(part)}{asked}", soft_wrap=True)
        digests = f"digests {part.base}/{part.digests}" if part.digests else "no digests published"
        out.print(f"{'':10}{part.base}/{part.files[0]}{_more(part)}; {digests}", soft_wrap=True)
    for note in collection.notes:
        out.print(f"{'note':10}{note}", soft_wrap=True)
    if _here(collection, data):
        out.print(open_collection(name, data).command(), soft_wrap=True)


@dataset_app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="As listed by: lmr dataset list.")],
    data: Data = "data",
    part: Annotated[
        list[str] | None, typer.Option(help="A part of it; may be repeated. Default: what a run needs.")
    ] = None,
    prune: Annotated[
        int | None, typer.Option(min=1, help="The first N files of each part only, to try it.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="URL of a copy with the publisher's paths, such as s3://bucket/prefix."),
    ] = None,
) -> None:
    """Fetch a data set; what is there and right is not fetched again, and a broken file is gone on with."""
    collection = find_collection(name)
    out.print(f"{collection.name}: {collection.licence} ({collection.home})", soft_wrap=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[bytes]}"),
        console=out,
        transient=True,
    ) as bars:
        fetched = fetch(
            collection, data, parts=tuple(part or ()), prune=prune, mirror=from_, told=_Bars(bars, prune)
        )
    if fetched.loaded or fetched.there:
        out.print(f"{fetched.loaded:,} files fetched, {fetched.there:,} were there")
    for news in fetched.news:
        out.print(news, soft_wrap=True)
    if fetched.ready is None:
        return
    if fetched.ready.protocols:
        out.print(f"a run is scored by {', '.join(fetched.ready.protocols)}", soft_wrap=True)
    out.print(fetched.ready.command(), soft_wrap=True)


class _Bars:
    """A bar for each part: its files, and the bytes that have arrived."""

    def __init__(self, bars: Progress, prune: int | None) -> None:
        self._bars, self._prune = bars, prune
        self._tasks: dict[str, TaskID] = {}
        self._bytes: dict[str, int] = {}
        self._seen: dict[str, set[str]] = {}

    def __call__(self, job: Job, count: int) -> None:
        name = job.part.name
        if name not in self._tasks:
            total = len(job.part.first(self._prune))
            self._tasks[name] = self._bars.add_task(name, total=total, bytes="")
        self._bytes[name] = self._bytes.get(name, 0) + count
        seen = self._seen.setdefault(name, set())
        seen.add(job.file)
        self._bars.update(self._tasks[name], completed=len(seen), bytes=bytes_text(self._bytes[name]))


def _here(collection: Collection, data: str) -> bool:
    try:
        open_collection(collection.name, data)
    except LmrError:
        return False
    return True


def _size_text(collection: Collection) -> str:
    """Return about how much a run needs, where the publisher says it of the photos."""
    sizes = [
        len(part.files) * part.size_bytes for part in collection.parts if part.wanted and part.size_bytes
    ]
    return f"about {bytes_text(sum(sizes))}" if sizes else "not stated"


def _part_size(part: Part) -> str:
    return f", about {bytes_text(len(part.files) * part.size_bytes)}" if part.size_bytes else ""


def _more(part: Part) -> str:
    return f" and {len(part.files) - 1} more" if len(part.files) > 1 else ""
