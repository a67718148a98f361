"""`lmr group`: photos of the same place, without queries."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lmr.cli.options.shared import Scheduler, Tls
from lmr.cli.report import Run
from lmr.cli.search import OwnCode
from lmr.text import printable

__all__ = ["group"]

out = Console(highlight=False)

SHOWN = 20


def group(
    run: Run,
    neighbours: Annotated[
        int | None, typer.Option(min=1, help="Nearest photos that each photo is compared with. Default: 20.")
    ] = None,
    min_inliers: Annotated[
        int | None, typer.Option(min=0, help="More inliers show the same place. Default: 20.")
    ] = None,
    scheduler: Scheduler = None,
    tls: Tls = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes on this machine; 0 runs in this one. Default: one per core."),
    ] = None,
    own_code: OwnCode = False,
) -> None:
    """Group the photos of a finished run's gallery by place, without queries; what is finished is kept."""
    from lmr.api.groups import declare_groups
    from lmr.api.progress import progress_on
    from lmr.api.reopen import reopen
    from lmr.api.retrieve import place_of
    from lmr.runtime.settings import layer
    from lmr.runtime.steps import closure
    from lmr.scheduler.run import run as run_steps
    from lmr.steps.groups.group import GroupsSettings
    from lmr.steps.results.folder.contents import keep_grouped
    from lmr.steps.results.folder.origins import store_origins
    from lmr.steps.results.groups import group_table

    opened = reopen(run, own_code=own_code)
    wanted = {"gallery_pairs": {"neighbours": neighbours}, "group": {"min_inliers": min_inliers}}
    chosen = {name: {k: v for k, v in fields.items() if v is not None} for name, fields in wanted.items()}
    grouping = declare_groups(opened, layer(GroupsSettings(), chosen))
    where = place_of("cpu", scheduler, tls, workers)
    store_origins(closure([grouping.step]), opened.root)
    keep_grouped(opened.root, grouping.files.steps, ended=False)
    with progress_on(out) as listener:
        run_steps(
            [grouping.step], opened.root, where, listener, workflow="group", finalizer=grouping.finalizer
        )
    rows = group_table(grouping.files)
    sizes: dict[int, int] = {}
    first: dict[int, str] = {}
    for number, size, path in zip(
        *(rows.column(name).to_pylist() for name in ("group", "size", "photo_path")), strict=True
    ):
        sizes[number] = size
        first.setdefault(number, path)
    for number in list(sizes)[:SHOWN]:
        _tell(f"group {number}: {sizes[number]:,} photos, such as {first[number]}")
    if len(sizes) > SHOWN:
        _tell(f"and {len(sizes) - SHOWN:,} smaller groups in {opened.root}/groups.csv")
    if not sizes:
        _tell("no two photos show the same place")
    _tell(f"page {grouping.files.page}")


def _tell(text: str) -> None:
    out.print(Text(printable(text)), soft_wrap=True)
