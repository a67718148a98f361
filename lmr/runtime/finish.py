"""The last task of a run: leave what people read, and give the account of the whole run.

It is part of the graph, so that a run whose client never comes back still ends with its files.
"""

import pickle
import re
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from lmr import storage
from lmr.errors import LmrError, one_line
from lmr.runtime import attempts
from lmr.runtime.course import Course, course_of, store_course
from lmr.runtime.tasks import Receipt, Summary, add_up
from lmr.storage.json_files import read_json, write_json

__all__ = ["PERFORMANCE", "Finalizer", "RunReport", "RunFailed", "finish", "raise_if_failed"]

PERFORMANCE = "dask-performance.html"
"""Dask's own report of a run, below the folder `report`."""

PERFORMANCE_SECONDS = 60.0
"""A run that took less has none: it takes seconds to write, and megabytes."""

_FAILURE = re.compile(r"(.+)-(\d{5,})\.txt")  # as `failure_name` makes them

Finalizer = Callable[[], None]
"""Writes what people read (a submission, scores, a report) from what is in storage. Must be picklable."""


@dataclass(frozen=True)
class RunReport:
    """The account of a run.

    Attributes
    ----------
    summaries
        Of each step that had something to do, in order.
    error
        Why the closing could not be done; empty if it could, or if shards failed and it was not tried.
    notices
        Which workers of the cluster got no tasks, or were closed, and why.
    """

    summaries: tuple[Summary, ...]
    error: str = ""
    notices: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything was made."""
        return not self.error and all(summary.whole for summary in self.summaries)


class RunFailed(LmrError):
    """Some shards could not be made; all others are in storage."""

    def __init__(self, failed: Iterable[Receipt], skipped: int, summaries: Iterable[Summary] = ()) -> None:
        self.failed, self.skipped, self.summaries = tuple(failed), skipped, tuple(summaries)
        shown = "\n\n".join(receipt.error for receipt in self.failed[:10])
        more = f"\n\n… and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        super().__init__(
            f"{len(self.failed)} shard(s) could not be made:\n\n{shown}{more}\n",
            got=f"{skipped} further shard(s) wait for them; what was finished stays",
            fix="mend the cause and run the same command again: only what is missing is made",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.failed, self.skipped, self.summaries)


def raise_if_failed(report: RunReport) -> tuple[Summary, ...]:
    """Return the summaries of a run that went well.

    Raises
    ------
    RunFailed
        If shards could not be made.
    LmrError
        If they all were, but what people read could not be written.
    """
    failed = [receipt for summary in report.summaries for receipt in summary.failed]
    if failed:
        raise RunFailed(failed, sum(summary.skipped for summary in report.summaries), report.summaries)
    if report.error:
        raise LmrError(
            "every shard was made, but the run's files could not be written",
            got=report.error,
            fix="mend the cause and run the same command again: no shard is made twice",
        )
    return report.summaries


def finish(run: str, root: str, finalizer: Finalizer | None, summaries: list[Summary]) -> RunReport:
    """Close a run whose shards are all there, and report its end to the scheduler's plugin."""
    notices = tuple(attempts.tell_scheduler("lmr_notices", run=run) or ())
    report = RunReport(tuple(add_up(summaries)), notices=notices)
    _keep_course(run, root, "finished" if report.whole else "failed")
    _remove_failures(root, report.summaries)
    if finalizer is not None and report.whole:
        _keep_notices(root, notices)
        report = replace(report, error=_try(finalizer, root))
    attempts.tell_scheduler("lmr_finish", run=run, report=pickle.dumps(report), whole=report.whole)
    return report


def _remove_failures(root: str, summaries: Iterable[Summary]) -> None:
    """Remove the tracebacks of shards that were made after all; what cannot be removed stays.

    Of a step whose shards wait for others it is not known here which were made: all of its tracebacks stay.
    """
    failed = {(r.step, r.shard) for summary in summaries for r in summary.failed}
    steps = {summary.step for summary in summaries if not summary.skipped}
    with suppress(LmrError):
        for name in storage.folder_sizes(storage.join(root, "failures")):
            match = _FAILURE.fullmatch(name)
            if match and match[1] in steps and (match[1], int(match[2])) not in failed:
                storage.delete(storage.join(root, "failures", name))


def _keep_course(run: str, root: str, state: str) -> None:
    """Leave the run's course in its folder, where a scheduler knows it; a run ends well without.

    Dask's own report lies beside the report's page; that of a short run would say less than it costs.
    """
    text = attempts.tell_scheduler("lmr_course", run=run)
    if text:
        with suppress(LmrError, ValueError):
            course = course_of(text)
            store_course(replace(course, state=state))
            if course.now - course.since >= PERFORMANCE_SECONDS:
                _keep_performance(course)


def _keep_performance(course: Course) -> None:
    # Whatever goes wrong in it, it is no part of the run.
    with suppress(Exception):
        page = attempts.tell_scheduler(
            "performance_report", start=course.since, last_count=0, code=course.run, mode="inline"
        )
        storage.put(storage.join(course.root, "report", PERFORMANCE), page.encode())


def _keep_notices(root: str, notices: Iterable[str]) -> None:
    """Add to the run's record what was noticed of its workers: the report shows it."""
    url = storage.join(root, "run.json")
    with suppress(LmrError, ValueError, KeyError):
        if notices:
            record = read_json(url, dict[str, Any], fix="submit the run again")
            record["notes"] = list(dict.fromkeys([*record["notes"], *notices]))
            write_json(url, record)


def _try(finalizer: Finalizer, root: str) -> str:
    try:
        with attempts.attempt("the closing of the run"):
            finalizer()
        return ""
    except LmrError as error:
        return str(error)
    except Exception as error:
        where = storage.join(root, "failures", "closing.txt")
        with suppress(LmrError):
            storage.put(where, traceback.format_exc().encode())
        what = one_line(error, 500)
        return f"{what} (report it with {where})"
