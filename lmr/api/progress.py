"""Progress of a run in a terminal or in a notebook."""

import html
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from lmr.scheduler.run import Counts

__all__ = ["NotebookBars", "ProgressBars", "progress_bars"]

REDRAWN_S = 0.2
"""How often a notebook's bars are drawn at most."""


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


class NotebookBars:
    """A bar per step below a notebook's cell; the last state stays in the notebook.

    What draws bars in a terminal needs widgets in a notebook, which not every notebook has; these are HTML.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.dashboard: str | None = None
        self.shown: Any = None
        self.drawn = 0.0

    def __enter__(self) -> "NotebookBars":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.shown is not None:
            self._draw()

    def planned(self, totals: Counts) -> None:
        """Keep what there is to do."""
        self.totals = dict(totals)

    def connected(self, dashboard: str | None) -> None:
        """Show the bars, with a link to the dashboard."""
        self.dashboard = dashboard
        self._draw()

    def progressed(self, counts: Counts) -> None:
        """Move the bars, now and then."""
        self.counts = dict(counts)
        if time.perf_counter() - self.drawn > REDRAWN_S:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self.drawn = time.perf_counter()
        page = HTML(self._html())
        if self.shown is None:
            self.shown = display(page, display_id=True)
        else:
            self.shown.update(page)

    def _html(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
            f"<td><progress value='{self.counts.get(name, 0)}' max='{total}'></progress></td>"
            f"<td>{self.counts.get(name, 0)}/{total}</td></tr>"
            for name, total in self.totals.items()
        )
        where = "runs in this process, no dashboard"
        if self.dashboard:
            link = html.escape(self.dashboard, quote=True)
            where = f"dashboard <a href='{link}'>{link}</a>"
        return f"<p>{where}</p><table>{rows}</table>"


@contextmanager
def progress_bars(shown: bool) -> Iterator["ProgressBars | NotebookBars | None"]:
    """Show bars while a run goes on, in a terminal or in a notebook, or nothing."""
    if not shown:
        yield None
        return
    console = Console(highlight=False)
    with NotebookBars() if console.is_jupyter else ProgressBars(console) as bars:
        yield bars
