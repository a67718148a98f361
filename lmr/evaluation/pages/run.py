"""The page of a run's course: what is at work, how it went, on which machines. One file, no script."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmr.evaluation.pages.report import template_environment

__all__ = ["RunBar", "RunPage", "StepRow", "WorkerRow", "render_run_page"]

MOST_WORKERS = 40
"""Workers that have a line of the drawing; the others are counted."""

_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class RunBar:
    """A piece of a line of a drawing, in seconds since the run began.

    Attributes
    ----------
    began, ended
        From when to when.
    kind
        Number of its step, which chooses its colour; -1: it came to nothing.
    says
        What it is, for those who point at it.
    """

    began: float
    ended: float
    kind: int
    says: str = ""


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """A step of the run.

    Attributes
    ----------
    name
        As people read it.
    made, shards
        Shards that are in storage, and shards to make.
    bar
        From its first task to its last; None while it waits.
    per_minute
        Shards a minute, between the two; 0 where that says nothing.
    seconds, rows, n_bytes, peak_bytes
        What its shards took and hold.
    stated_bytes
        Memory of a worker that the step states; 0 where it is not known.
    begun_again, copies
        Shards that were begun once more, and those of them that were speculative.
    """

    name: str
    made: int
    shards: int
    bar: RunBar | None = None
    per_minute: float = 0.0
    seconds: float = 0.0
    rows: int = 0
    n_bytes: int = 0
    peak_bytes: int = 0
    stated_bytes: int = 0
    begun_again: int = 0
    copies: int = 0

    @property
    def above(self) -> bool:
        """Whether a worker held more than the step states."""
        return 0 < self.stated_bytes < self.peak_bytes


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker.

    Attributes
    ----------
    name
        Its host and port.
    joined, left
        Seconds since the run began; `left` is None while it is there.
    shards
        Shards that it made.
    lost
        Whether it went with a shard in hand.
    bars
        The shards that it had in hand, the latest.
    """

    name: str
    joined: float
    left: float | None
    shards: int
    lost: bool = False
    bars: Sequence[RunBar] = ()


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """What the page shows.

    Attributes
    ----------
    run, state, about
        Name of the run, how it is, and a sentence about it.
    seconds
        Since it began, to its end.
    steps, workers
        In order of their coming.
    worker_hours
        Hours that workers were there, all together.
    cost
        What that cost, as text; empty where no price is known.
    left
        How long the rest will take, as text; empty for a run that has ended.
    quarantined, notes
        Shards that were set aside; what was noticed of workers.
    deaths
        How many workers died with a shard in hand.
    links
        Text and address of further pages.
    refresh_seconds
        After how long a browser asks for the page again; 0: never.
    """

    run: str
    state: str
    about: str
    seconds: float
    steps: Sequence[StepRow]
    workers: Sequence[WorkerRow] = ()
    worker_hours: float = 0.0
    cost: str = ""
    left: str = ""
    quarantined: Sequence[str] = ()
    notes: Sequence[str] = ()
    deaths: int = 0
    links: Sequence[tuple[str, str]] = field(default=())
    refresh_seconds: int = 0


def render_run_page(page: RunPage) -> str:
    """Return the page as HTML that needs no other file, no script and no network."""
    environment = template_environment()
    here = [worker for worker in page.workers if worker.left is None]
    shown = [worker for worker in page.workers if worker.bars][-MOST_WORKERS:] or page.workers[:MOST_WORKERS]
    return str(
        environment.get_template("run.html").render(
            page=page,
            made=sum(step.made for step in page.steps),
            shards=sum(step.shards for step in page.steps),
            n_bytes=sum(step.n_bytes for step in page.steps),
            again=sum(step.begun_again for step in page.steps),
            copies=sum(step.copies for step in page.steps),
            here=len(here),
            shown=shown,
            length=max(page.seconds, 1.0),
            ticks=[page.seconds * i / _TICKS for i in range(_TICKS + 1)],
        )
    )
