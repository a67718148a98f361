"""`lmr graph`: a workflow drawn."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr.text import printable

__all__ = ["graph"]

out = Console(highlight=False)


def graph(
    workflow: Annotated[
        str,
        typer.Argument(help="The workflow's file, or its name: retrieval, recognition, or descriptors."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The SVG file to write.")] = "graph.svg",
    preset: Annotated[str | None, typer.Option(help="Named settings, such as paper.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, as step.field=value; may be repeated.")
    ] = None,
) -> None:
    """Draw the steps of a workflow and their datasets; no photos are needed."""
    from lmr.api.drawing import draw_workflow
    from lmr.errors import LmrError

    drawing = draw_workflow(workflow, preset, set_ or ())
    try:
        Path(output).write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise LmrError(
            "the drawing cannot be written", got=str(error), fix="give another --output"
        ) from error
    out.print(Text(printable(output)), soft_wrap=True)
