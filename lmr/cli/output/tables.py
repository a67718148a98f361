"""What the command line shows: the plan, progress, scores. Only text; decides nothing."""

import time
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lmr.runtime.estimate import Measured, left_text, span_text
from lmr.runtime.graph import Plan
from lmr.runtime.steps import Step, grouped
from lmr.runtime.tasks import Summary
from lmr.scheduler.plugin import RunStatus
from lmr.steps.results.folder.files import Unusable
from lmr.text import printable

__all__ = [
    "bytes_text",
    "plan_table",
    "run_table",
    "runs_table",
    "scores_table",
    "summary_table",
    "unusable_table",
    "when",
]


def bytes_text(count: float) -> str:
    """Return a size in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def plan_table(plan: Plan) -> Table:
    """Show what a run would do."""
    table = Table(title="plan", title_justify="left")
    # Expected size, and memory of a task. So few letters fit into 80 columns.
    special = any(_special(need.step) for need in plan)
    for name in ("step", "shards", "make", "rows", "size", "memory", *(["on"] if special else [])):
        table.add_column(name, justify="left" if name in ("step", "on") else "right", no_wrap=True)
    total = 0.0
    missing = {need.step.fingerprint: len(need.missing) for need in plan}
    for source in grouped(need.step for need in plan):
        step = source.parts[0]
        size = source.rows * source.bytes_per_row
        total += size
        rows = f"{source.rows:,}" if source.rows else "–"
        table.add_row(
            step.name,
            f"{source.shards:,}",
            f"{sum(missing[part.fingerprint] for part in source.parts):,}",
            rows,
            bytes_text(size) if size else "–",
            bytes_text(step.cost.peak_bytes),
            *([_special(step)] if special else []),
        )
    table.add_section()
    made, shards = sum(len(n.missing) for n in plan), sum(n.step.shards for n in plan)
    table.add_row("all", f"{shards:,}", f"{made:,}", "", bytes_text(total), "")
    return table


def _special(step: Step) -> str:
    """Return what a step's workers must have besides a CPU."""
    return ", ".join(name for name in step.resources if name != "CPU")


def scores_table(scores: Mapping[str, float], labels: Mapping[str, str], measure: str = "mAP@100") -> Table:
    """Show a score after each stage, by its label, and the difference that the stage made."""
    table = Table(title=measure, title_justify="left")
    table.add_column("after step")
    table.add_column(measure, justify="right")
    table.add_column("difference", justify="right")
    before: float | None = None
    for name, score in scores.items():
        change = "" if before is None else f"{score - before:+.4f}"
        table.add_row(labels.get(name, name), f"{score:.4f}", change)
        before = score
    return table


def summary_table(summaries: Sequence[Summary]) -> Table:
    """Show what each step took, and below what it has to say."""
    notes = [f"{s.step}: {note}" for s in summaries for note in s.notes]
    caption = Text(printable("\n".join(notes), keep="\n"))
    table = Table(title="steps", title_justify="left", caption=caption, caption_justify="left")
    for name in ("step", "made", "found", "rows", "size", "seconds", "peak memory"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for s in summaries:
        table.add_row(
            s.step,
            f"{s.made:,}",
            f"{s.found:,}",
            f"{s.rows:,}",
            bytes_text(s.bytes),
            f"{s.seconds:.1f}",
            bytes_text(s.peak_bytes),
        )
    return table


def runs_table(runs: Sequence[RunStatus]) -> Table:
    """Show runs of a scheduler, a line each."""
    table = Table(title="runs", title_justify="left")
    table.add_column("run", no_wrap=True)
    for name in ("state", "shards", "since", "by", "folder"):
        table.add_column(name, justify="right" if name == "shards" else "left", overflow="fold")
    for run in runs:
        record = run.record
        done, total = sum(run.counts.values()), sum(record.totals.values())
        by = f"{record.user} on {record.host}"
        shards = f"{done:,} of {total:,}"
        folder = Text(printable(record.root))
        table.add_row(record.name, run.state, shards, when(record.since), Text(printable(by)), folder)
    return table


def run_table(run: RunStatus) -> Table:
    """Show how far one run is, step by step, and how long the rest will take."""
    record, left = run.record, run.progress.left
    title = f"{record.name}: {run.state}, since {when(record.since)}, by {record.user} on {record.host}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("step", "done", "shards", "at work", "time"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step, total in record.totals.items():
        found = run.measured.get(step, Measured())
        elapsed = "waits" if run.active else "–"
        if found.elapsed_seconds is not None:
            elapsed = span_text(found.elapsed_seconds)
        running = f"{found.running:,}" if found.running and run.active else ""
        table.add_row(step, f"{run.counts.get(step, 0):,}", f"{total:,}", running, elapsed)
    captions = []
    if run.active and left is not None:
        captions.append(left_text(left))
    if run.deaths:
        captions.append(f"workers that died with a shard in hand: {run.deaths}")
    table.caption = "\n".join(captions) or None
    return table


def when(seconds: float) -> str:
    """Return a time, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def unusable_table(photos: Sequence[Unusable], most: int = 20) -> Table:
    """Show photos that could not be used."""
    table = Table(title=f"{len(photos)} photo(s) could not be used", title_justify="left")
    for name in ("set", "id", "reason"):
        table.add_column(name)
    for photo in photos[:most]:
        # As text, since a name may hold what rich takes for markup.
        table.add_row(photo.set, Text(printable(photo.id)), Text(printable(photo.reason)))
    if len(photos) > most:
        table.add_row("…", f"{len(photos) - most} more", "see the dataset `unusable` of the run")
    return table
