"""`lmr compare`: settings that differ, scores with paired differences, queries won and lost."""

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmr import storage
from lmr.text import printable

__all__ = ["compare"]

out = Console(highlight=False)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders or URLs of runs; of one run, all its settings.")],
    page: Annotated[
        str | None,
        typer.Option(help="Folder for the page; default: compare/ in the first run's folder."),
    ] = None,
) -> None:
    """Compare runs, or the settings of one run: what differs, which queries were won and lost."""
    from lmr.steps.results.compare import compare_results, opened, store_comparison

    sides = opened([storage.absolute(run) for run in runs])
    found = compare_results(sides)
    table = Table(title="settings that differ", title_justify="left")
    for name in ("", *(side.name for side in sides)):
        table.add_column(Text(printable(name)), overflow="fold")
    for name, values in found.settings.items():
        table.add_row(Text(name), *(Text(printable(value)) for value in values))
    if not found.settings:
        table.add_row("(none)", *("" for _ in sides))
    if not np.isnan(found.means).all():
        table.add_section()
        scores = ("–" if np.isnan(mean) else f"{mean:.4f}" for mean in found.means)
        table.add_row(sides[0].measure, *scores)
    out.print(table)
    for name, one in found.differences.items():
        spread, chance = one.difference, "" if one.p_value is None else f", p = {one.p_value:.3g}"
        told = (
            f"{name}: {spread.value:+.4f} against {sides[0].name} ({spread.confidence:.0%} interval "
            f"{spread.low:+.4f} to {spread.high:+.4f}{chance}): {one.won} better, {one.lost} worse, "
            f"{one.tied} equal"
        )
        out.print(Text(printable(told)), soft_wrap=True)
    for notice in dict.fromkeys(found.notices):
        out.print(Text(printable(notice)), soft_wrap=True)
    url = store_comparison(found, page or storage.join(sides[0].run.root, "compare"))
    out.print(Text(printable(f"page {url}")), soft_wrap=True)
