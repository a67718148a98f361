"""`lmr export`: a run's results in files of other programs."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr import storage
from lmr.cli.report import Run
from lmr.text import printable

__all__ = ["export"]

out = Console(highlight=False)


def export(
    run: Run,
    what: Annotated[
        str,
        typer.Option(help="matches, rankings, pairs, features, descriptors or graph (nearest photos)."),
    ],
    to: Annotated[str, typer.Option(help="csv, parquet, npy, h5, hloc or colmap.")],
    folder: Annotated[str, typer.Option("--out", help="Folder on this machine for the files.")],
) -> None:
    """Write a run's results into files of other programs, with ids and paths in all."""
    from lmr.steps.results.export.export import export_run
    from lmr.steps.results.folder.datasets import open_datasets

    exported = export_run(open_datasets(storage.absolute(run)), what, to, folder)
    for path in exported.files:
        out.print(Text(printable(str(path))), soft_wrap=True)
    if exported.left_out:
        out.print(Text(printable(exported.left_out)), soft_wrap=True)
