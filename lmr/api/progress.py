"""Progress of a run in a terminal or in a notebook."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lmr.scheduler.run import Counts

__all__ = ["ProgressBars", "progress_bars"]


class ProgressBars:
    """A bar per step while a run goes on."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars: dict[str, TaskID] = {}
        self.started = time.perf_counter()
        self.progress = Progress(
            TextColumn("{task.description:24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.progress.stop()

    def planned(self, totals: Counts) -> None:
        """Make a bar per step that has something to do."""
        for name, total in totals.items():
            self.bars[name] = self.progress.add_task(name, total=total, start=False)

    def connected(self, dashboard: str | None) -> None:
        """Say where the dashboard is, then show the bars."""
        self.console.print(f"dashboard  {dashboard}" if dashboard else "runs in this process, no dashboard")
        self.progress.start()

    def progressed(self, counts: Counts) -> None:
        """Move the bars."""
        for name, done in counts.items():
            bar = self.bars[name]
            task = self.progress.tasks[self.progress.task_ids.index(bar)]
            if done and not task.started:
                self.progress.start_task(bar)
            self.progress.update(bar, completed=done)
            if task.total is not None and done >= task.total:
                self.progress.stop_task(bar)


@contextmanager
def progress_bars(shown: bool) -> Iterator["ProgressBars | None"]:
    """Show bars while a run goes on, or nothing."""
    if not shown:
        yield None
        return
    with ProgressBars(Console(highlight=False)) as bars:
        yield bars
