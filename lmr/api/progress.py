"""Progress of a run: bars in a terminal or a notebook, plain lines in a file, a pipe or a batch log."""

import html
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from lmr.runtime.estimate import Measured, Progress, left_text, span_text
from lmr.scheduler.run import Counts
from lmr.text import counted

__all__ = ["NotebookBars", "ProgressBars", "ProgressLines", "progress_bars", "progress_on"]

LINE_SECONDS = 30.0
"""How often a log hears of a run in which no step is finished."""

REDRAWN_S = 0.2
"""How often a notebook's bars are drawn at most."""


class ProgressBars:
    """A bar per step while a run goes on, and how long the rest will take."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.steps: dict[str, TaskID] = {}
        self.told: set[str] = set()
        self.progress = Bars(
            TextColumn("{task.description:24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[clock]}"),
            console=console,
        )
        self.last = self.progress.add_task("", total=1, visible=False, clock="")

    def __enter__(self) -> "ProgressBars":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.progress.stop()

    def planned(self, totals: Counts) -> None:
        """Make a bar per step that has something to do."""
        for name, total in totals.items():
            self.steps[name] = self.progress.add_task(name, total=total, clock="waits")

    def connected(self, dashboard: str | None) -> None:
        """Say where the dashboard is, then show the bars."""
        self.console.print(_dashboard_text(dashboard), soft_wrap=True)
        self.progress.start()

    def progressed(self, progress: Progress) -> None:
        """Move the bars; above them, say what was noticed of workers."""
        for notice in _new(progress.notices, self.told):
            self.progress.console.print(notice, soft_wrap=True, markup=False)
        open_steps = []
        for name, done in progress.counts.items():
            found = progress.measured.get(name, Measured())
            self.progress.update(self.steps[name], completed=done, clock=clock_text(found))
            if done < (self.progress.tasks[self._place(name)].total or 0):
                open_steps.append(name)
        left = left_text(progress.left) if progress.left is not None and open_steps else ""
        self.progress.update(self.last, description="all", clock=left, visible=bool(left))
        done = sum(progress.counts.values())
        total = sum(task.total or 0 for task in self.progress.tasks if task.id != self.last)
        self.progress.update(self.last, completed=done, total=total)

    def _place(self, name: str) -> int:
        return self.progress.task_ids.index(self.steps[name])


class ProgressLines:
    """Lines for a log: one for each step that is finished, and one every half a minute.

    Parameters
    ----------
    console
        Where to print.
    every_seconds
        How often a line is printed when no step is finished.
    """

    def __init__(self, console: Console, every_seconds: float = LINE_SECONDS) -> None:
        self.console, self.every_seconds = console, every_seconds
        self.totals: Counts = {}
        self.finished: set[str] = set()
        self.told: set[str] = set()
        self.began = time.monotonic()
        self.first = 0
        self.now: Progress | None = None
        self.stopped = threading.Event()
        self.printed = time.monotonic()
        self.ticking = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "ProgressLines":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stopped.set()
        if self.ticking.ident is not None:
            self.ticking.join()

    def planned(self, totals: Counts) -> None:
        """Say how much there is to do."""
        self.totals = totals
        if totals:
            shards, steps = counted(sum(totals.values()), "shard"), counted(len(totals), "step")
            self._print(f"{shards} to make, in {steps}")

    def connected(self, dashboard: str | None) -> None:
        """Say where the dashboard is."""
        self._print(_dashboard_text(dashboard))
        self.began = self.printed = time.monotonic()
        self.ticking.start()

    def progressed(self, progress: Progress) -> None:
        """Say which steps have been finished since, and what was noticed of workers."""
        for notice in _new(progress.notices, self.told):
            self._print(notice)
        if self.now is None:
            self.first = sum(progress.counts.values())
        self.now = progress
        for name, total in self.totals.items():
            if name not in self.finished and progress.counts.get(name, 0) >= total:
                self.finished.add(name)
                took = progress.measured.get(name, Measured()).elapsed_seconds
                span = "" if took is None else f" in {span_text(took)}"
                self._print(f"{name}: done, {counted(total, 'shard')}{span}")

    def line(self, progress: Progress) -> str:
        """Return how far all is: shards, rate, time left, and what is being made."""
        done, total = sum(progress.counts.values()), sum(self.totals.values())
        minutes = max(time.monotonic() - self.began, 1.0) / 60
        said = [f"{done:,} of {counted(total, 'shard')}", f"{(done - self.first) / minutes:,.1f} a minute"]
        if progress.left is not None and done < total:
            said.append(left_text(progress.left))
        at_work = [
            f"{name} {progress.counts.get(name, 0):,} of {self.totals[name]:,}"
            for name, found in progress.measured.items()
            if found.elapsed_seconds is not None and progress.counts.get(name, 0) < self.totals.get(name, 0)
        ]
        return ", ".join(said) + (f"; at work: {', '.join(at_work)}" if at_work else "")

    def _tick(self) -> None:
        while not self.stopped.wait(min(1.0, self.every_seconds)):
            if self.now is not None and time.monotonic() - self.printed >= self.every_seconds:
                self._print(self.line(self.now))

    def _print(self, text: str) -> None:
        self.printed = time.monotonic()
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True, markup=False)
        self.console.file.flush()


def clock_text(found: Measured) -> str:
    """Return what stands behind a step's bar: how long it has been at work, or that it waits."""
    return "waits" if found.elapsed_seconds is None else span_text(found.elapsed_seconds)


def progress_on(console: Console) -> "ProgressBars | ProgressLines | NotebookBars":
    """Return bars for a terminal or a notebook, lines for anything else."""
    if console.is_jupyter:
        return NotebookBars()
    return ProgressBars(console) if console.is_terminal else ProgressLines(console)


class NotebookBars:
    """A bar per step below a notebook's cell; the last state stays in the notebook.

    What draws bars in a terminal needs widgets in a notebook, which not every notebook has; these are HTML.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.dashboard: str | None = None
        self.told: set[str] = set()
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

    def progressed(self, progress: Progress) -> None:
        """Move the bars, now and then."""
        self.counts = dict(progress.counts)
        for notice in _new(progress.notices, self.told):
            print(notice)
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


def _new(notices: Iterable[str], told: set[str]) -> list[str]:
    """Return the notices that were not told yet, which count as told from now on."""
    new = [notice for notice in notices if notice not in told]
    told.update(new)
    return new


@contextmanager
def progress_bars(shown: bool) -> Iterator["ProgressBars | ProgressLines | NotebookBars | None"]:
    """Show progress while a run goes on, or nothing."""
    if not shown:
        yield None
        return
    with progress_on(Console(highlight=False)) as listener:
        yield listener


def _dashboard_text(dashboard: str | None) -> str:
    return f"dashboard  {dashboard}" if dashboard else "runs in this process, no dashboard"
