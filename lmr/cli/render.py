"""`lmr render`: photos of a small synthetic world, to try things on."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lmr.testing import World, write_world

__all__ = ["render"]

out = Console(highlight=False)


def render(
    folder: Annotated[Path, typer.Argument(help="Folder to make: gallery/, queries/, solution.csv.")],
    landmarks: Annotated[int, typer.Option(min=1, help="Buildings that can be looked for.")] = 24,
    queries: Annotated[int, typer.Option(min=1, help="Photos that are looked for.")] = 36,
    distractors: Annotated[
        int, typer.Option(min=0, help="Further photos of the gallery, of nothing that is looked for.")
    ] = 60,
    long_side_px: Annotated[int, typer.Option(min=64, help="Longer side of every photo, pixels.")] = 512,
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 1,
) -> None:
    """Render photos of a small synthetic world of landmarks, with its solution."""
    world = replace(
        World(),
        landmarks=landmarks,
        queries=queries,
        queries_without_landmark=min(World.queries_without_landmark, queries - 1),
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
