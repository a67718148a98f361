"""`lmr info` and `lmr clean`: what a run's folder holds, and room in it."""

import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lmr import storage
from lmr.cli.output.tables import bytes_text
from lmr.cli.report import Run
from lmr.text import counted, printable

if TYPE_CHECKING:
    from lmr.steps.results.folder.contents import Content

__all__ = ["clean", "info"]

out = Console(highlight=False)


def info(run: Run) -> None:
    """Tell what a run's folder holds: workflow, photos, stages, scores, and the size of every dataset."""
    from lmr.steps.results.folder.contents import contents
    from lmr.steps.results.folder.datasets import open_datasets
    from lmr.steps.results.folder.files import read_accuracy, read_scores, read_sources

    root = storage.absolute(run)
    datasets = open_datasets(root, unfinished=True)
    about = datasets.about
    counts = {role: len(photos.read(0, ["photo"])) for role, photos in datasets.photos.items()}
    named = datasets.recognised
    scored = datasets.scores if named is None else named.get("scores")
    scores = read_scores(datasets) if scored is not None and scored.present() else {}
    rows = [
        ("folder", root),
        ("workflow", about.get("workflow", "")),
        ("preset", about.get("preset", "")),
        ("begun", about.get("started", "")),
        ("command", about.get("command", "")),
        *((role, f"{counts[role]:,} photos, {about.get(role, '')}".rstrip(", ")) for role in counts),
        ("settings", _changed(datasets.settings, about.get("preset_settings") or {})),
        ("calibrated", _calibration(datasets.calibration)),
        ("code", "; ".join(read_sources(datasets))),
    ]
    for name, value in rows:
        if value:
            out.print(Text(f"{name:9} {printable(str(value))}"), soft_wrap=True)
    for name, ranking in datasets.rankings.items():
        here = len(ranking.present())
        score = f", mAP@100 {scores[name]:.4f}" if name in scores else ""
        state = "finished" if here == ranking.shards else f"{here:,} of {counted(ranking.shards, 'shard')}"
        out.print(
            Text(f"stage     {printable(datasets.labels.get(name, name))}: {state}{score}"), soft_wrap=True
        )
    if named is not None:
        for name, gap in scores.items():
            out.print(Text(f"GAP       {gap:.4f} after {printable(datasets.label(name))}"), soft_wrap=True)
        accuracy = read_accuracy(datasets).get("accuracy") if scores else None
        if accuracy is not None:
            out.print(f"names     {accuracy:.4f} right, of queries with a landmark", soft_wrap=True)
    found = contents(root)
    out.print(_table(found, found, root))


def _calibration(found: Mapping[str, Any] | None) -> str:
    """Return what people want to know of a run's calibration; nothing without one."""
    if not found:
        return ""
    about = found.get("about", {})
    facts = {"method": "", "pairs": " pairs", "queries": " queries"}
    return ", ".join(f"{about[name]}{unit}" for name, unit in facts.items() if name in about) or "yes"


def _changed(settings: object, preset: object) -> str:
    """Return the settings that differ from the preset's, as `--set` takes them."""
    if not isinstance(settings, dict) or not isinstance(preset, dict) or not preset:
        return ""
    changed = [
        f"{step}.{name}={value}"
        for step, values in settings.items()
        for name, value in values.items()
        if preset.get(step, {}).get(name, value) != value
    ]
    return " ".join(changed) or "those of the preset"


def clean(
    run: Run,
    keep: Annotated[Literal["latest"], typer.Option(help="What stays: the datasets of the latest settings.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete datasets of earlier settings, after showing them; what a later run may need is made again."""
    from lmr.errors import LmrError
    from lmr.steps.results.folder.contents import contents, delete_contents, foreign

    root = storage.absolute(run)
    everything = contents(root)
    earlier = [content for content in everything if not content.latest]
    mixed = {content.url: names for content in earlier if (names := foreign(content))}
    for url, names in mixed.items():
        told = f"left alone: {url} holds files that lmr did not write, or damaged ones: {names[0]}"
        out.print(Text(printable(told)), soft_wrap=True)
    unwanted = [content for content in earlier if content.url not in mixed]
    if not unwanted:
        out.print("nothing to delete: every dataset is of the latest settings")
        return
    out.print(_table(unwanted, everything, root))
    size = bytes_text(sum(content.n_bytes for content in unwanted))
    if not yes:
        if not sys.stdin.isatty():
            raise LmrError("nobody is there to ask", got="no terminal", fix="give --yes to delete them")
        if not typer.confirm(f"Delete these {len(unwanted)} datasets, {size}?"):
            out.print("nothing was deleted")
            return
    for content in unwanted:
        delete_contents(content)
    out.print(f"deleted {len(unwanted)} datasets, {size}")


def _table(found: "list[Content]", everything: "list[Content]", root: str) -> Table:
    """Show datasets: where they lie, how large they are, and by which settings."""
    from lmr.steps.results.folder.origins import peculiar, read_origins

    origins = read_origins(root)
    known = [origins[c.fingerprint] for c in everything if c.latest and c.fingerprint in origins]
    latest = defaultdict(list)
    for one in known:
        latest[one.step].append(one)
    table = Table(title="datasets", title_justify="left")
    table.add_column("dataset", overflow="fold")
    for name in ("files", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for content in found:
        origin = origins.get(content.fingerprint)
        if content.latest or origin is None:
            says = "latest" if content.latest else "earlier"
        elif origin.step in latest:
            # `lmr group` has a step verify too: the nearer of both tells what is different.
            said = [peculiar(origin, one) for one in latest[origin.step]]
            says = f"earlier: {min(said, key=len)}"
        else:
            says = "earlier: no step of the latest run"
        table.add_row(
            f"{content.folder}/{content.fingerprint}",
            f"{len(content.files):,}",
            bytes_text(content.n_bytes),
            Text(printable(says)),
        )
    table.add_section()
    table.add_row(
        "all", f"{sum(len(c.files) for c in found):,}", bytes_text(sum(c.n_bytes for c in found)), ""
    )
    return table
