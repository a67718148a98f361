"""The page of a run's course: live while the run goes on, and kept with the run afterwards."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.pages.run import RunBar, RunPage, StepRow, WorkerRow, render_run_page
from lmr.runtime.course import Course, StepCourse, read_course, store_course
from lmr.runtime.finish import PERFORMANCE

__all__ = ["PAGE", "PERFORMANCE", "price_run", "run_page", "store_run_page"]

PAGE = "run.html"


def store_run_page(root: str) -> bool:
    """Write `report/run.html` of the last run of a folder; tell whether its course was kept.

    A report lacks the page rather than the run its report: a damaged record makes no page.
    """
    try:
        course = read_course(root)
    except LmrError:
        return False
    if course is None:
        return False
    report = storage.join(root, "report")
    links = [("Report", "index.html")]
    if storage.exists(storage.join(report, PERFORMANCE)):
        links.append(("Dask's performance report", PERFORMANCE))
    page = run_page(course, links=links, usd_per_hour=course.usd_per_hour)
    storage.put(storage.join(report, PAGE), page.encode())
    return True


def price_run(root: str, usd_per_hour: float) -> bool:
    """Keep what a worker costs in an hour, and write the page anew; tell whether there is a course."""
    course = read_course(root)
    if course is None:
        return False
    store_course(replace(course, root=root, usd_per_hour=usd_per_hour))  # the folder may have moved
    return store_run_page(root)


def run_page(
    course: Course,
    *,
    left: str = "",
    links: Sequence[tuple[str, str]] = (),
    usd_per_hour: float | None = None,
    refresh_seconds: int = 0,
) -> str:
    """Return the page of a course as HTML.

    Parameters
    ----------
    course
        The course so far.
    left
        How long the rest will take, as text.
    links
        Text and address of further pages.
    usd_per_hour
        Price of a worker for an hour; None where it is not known.
    refresh_seconds
        After how long a browser asks for the page again; 0: never.
    """
    began = min([course.since, *(s.began for s in course.steps if s.began is not None)])
    hours = course.worker_seconds / 3600
    by_worker: defaultdict[int, list[RunBar]] = defaultdict(list)
    for span in course.spans:
        ended = course.now if span.ended is None else span.ended
        step = course.steps[span.step].name
        bar = RunBar(
            began=max(span.began - began, 0.0),
            ended=ended - began,
            kind=span.step if span.made else -1,
            says=f"{step}/{span.shard:05d}" + ("" if span.made else ", not made"),
        )
        by_worker[span.worker].append(bar)
    workers = [
        WorkerRow(
            name=worker.name,
            joined=max(worker.joined - began, 0.0),
            left=None if worker.left is None else max(worker.left - began, 0.0),
            shards=worker.shards,
            lost=worker.lost,
            bars=by_worker[number],
        )
        for number, worker in enumerate(course.workers)
    ]
    page = RunPage(
        run=course.run,
        state=course.state,
        about=f"{course.workflow}, submitted by {course.user} on {course.host}",
        seconds=max(course.now - began, 0.0),
        steps=[_step(number, step, course, began) for number, step in enumerate(course.steps)],
        workers=workers,
        worker_hours=hours,
        cost="" if usd_per_hour is None else f"${hours * usd_per_hour:,.2f}",
        left=left,
        quarantined=[f"{step}/{shard:05d}" for step, shard in course.quarantined],
        notes=course.notes,
        deaths=course.deaths,
        links=links,
        refresh_seconds=refresh_seconds,
    )
    return render_run_page(page)


def _step(number: int, step: StepCourse, course: Course, began: float) -> StepRow:
    bar, minutes = None, 0.0
    if step.began is not None:
        ended = step.ended if step.ended is not None and step.made >= step.shards else course.now
        bar = RunBar(began=step.began - began, ended=ended - began, kind=number, says=step.name)
        minutes = max(ended - step.began, 0.1) / 60
    return StepRow(
        name=step.name,
        made=step.made,
        shards=step.shards,
        bar=bar,
        per_minute=step.made / minutes if minutes and step.made > 1 else 0.0,  # one shard has no rate
        seconds=step.seconds,
        rows=step.rows,
        n_bytes=step.bytes,
        peak_bytes=step.peak_bytes,
        stated_bytes=int(step.stated_bytes),
        begun_again=step.begun_again,
        copies=step.copies,
    )
