"""The course of every run, kept on the scheduler: who began what when, and how it went. Knows no Dask."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from lmr.runtime.attempts import MAX_DEATHS
from lmr.runtime.course import Course, ShardSpan, StepCourse, WorkerCourse

__all__ = ["MOST_SPANS", "CourseKeeper", "Courses"]

MOST_SPANS = 5000
"""Shards of a run that are kept one by one, the latest."""

_KEPT = 5

MOST_WORKERS = 5000
"""Workers of a run that are told one by one; those of a fleet that comes and goes for days are more."""


class CourseKeeper:
    """Keeps the course of one run.

    Parameters
    ----------
    course
        Its beginning: names, steps and their shards.
    groups
        Step name to the name that the keys of its tasks share.
    clock
        Returns seconds since the epoch.
    """

    def __init__(
        self, course: Course, groups: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self.course, self.clock = course, clock
        self.number = {groups[step.name]: i for i, step in enumerate(course.steps) if step.name in groups}
        self.steps = list(course.steps)
        self.workers: list[WorkerCourse] = []
        self.place: dict[str, int] = {}
        self.in_hand: dict[str, tuple[Any, float]] = {}
        self.begun: defaultdict[str, set[int]] = defaultdict(set)
        self.deaths: Counter[Any] = Counter()
        self.spans: deque[ShardSpan] = deque(maxlen=MOST_SPANS)

    def joined(self, worker: str) -> None:
        """Note that a worker is there."""
        if worker not in self.place and len(self.workers) < MOST_WORKERS:
            self.place[worker] = len(self.workers)
            self.workers.append(WorkerCourse(name=worker.rpartition("://")[2], joined=self.clock()))

    def left(self, worker: str) -> None:
        """Note that a worker has gone, perhaps with a shard in hand."""
        key, began = self.in_hand.pop(worker, (None, 0.0))
        if key is not None:
            self.deaths[key] += 1
            self._span(key, worker, began, made=False)
        if (place := self.place.pop(worker, None)) is not None:
            self.workers[place] = replace(self.workers[place], left=self.clock(), lost=key is not None)

    def begin(self, key: Any, worker: str) -> None:
        """Note that a worker begins a shard, if it is one of this run."""
        if key[0] not in self.number:
            return
        self.joined(worker)
        number, now = self.number[key[0]], self.clock()
        self.in_hand[worker] = key, now
        step = self.steps[number]
        again = key[1] in self.begun[key[0]]
        self.begun[key[0]].add(key[1])
        self.steps[number] = replace(
            step,
            began=now if step.began is None else step.began,
            begun_again=step.begun_again + again,
        )

    def copied(self, key: Any) -> None:
        """Note that a shard is started again elsewhere while its worker is still at it."""
        if (number := self.number.get(key[0])) is not None:
            self.steps[number] = replace(self.steps[number], copies=self.steps[number].copies + 1)

    def end(self, key: Any, worker: str, seconds: float, made: bool, facts: Mapping[str, int]) -> None:
        """Note that a worker is done with a shard, and what the shard holds and took."""
        if key[0] not in self.number:
            return
        _, began = self.in_hand.pop(worker, (None, self.clock() - seconds))
        self._span(key, worker, began, made=made)
        if not made:
            return
        number = self.number[key[0]]
        step = self.steps[number]
        self.steps[number] = replace(
            step,
            made=min(step.made + 1, step.shards),
            ended=self.clock(),
            seconds=step.seconds + seconds,
            rows=step.rows + facts.get("rows", 0),
            bytes=step.bytes + facts.get("bytes", 0),
            peak_bytes=max(step.peak_bytes, facts.get("peak_bytes", 0)),
        )
        if (place := self.place.get(worker)) is not None:
            self.workers[place] = replace(self.workers[place], shards=self.workers[place].shards + 1)

    def _span(self, key: Any, worker: str, began: float, *, made: bool) -> None:
        if (place := self.place.get(worker)) is not None:
            number = self.number[key[0]]
            span = ShardSpan(
                step=number, worker=place, shard=int(key[1]), began=began, ended=self.clock(), made=made
            )
            self.spans.append(span)

    def now(self, state: str = "running", notes: tuple[str, ...] = ()) -> Course:
        """Return the course so far."""
        names = {number: self.steps[number].name for number in self.number.values()}
        at_work = [
            ShardSpan(step=self.number[key[0]], worker=self.place[worker], shard=int(key[1]), began=began)
            for worker, (key, began) in self.in_hand.items()
            if worker in self.place
        ]
        return replace(
            self.course,
            now=self.clock(),
            state=state,
            steps=tuple(self.steps),
            workers=tuple(self.workers),
            spans=(*self.spans, *at_work),
            quarantined=tuple(
                (names[self.number[key[0]]], int(key[1]))
                for key, count in self.deaths.items()
                if count >= MAX_DEATHS
            ),
            deaths=sum(self.deaths.values()),
            notes=notes,
        )


class Courses:
    """The courses of the runs of a scheduler; those of the last few that have ended are kept too."""

    def __init__(self) -> None:
        self.keepers: dict[str, CourseKeeper] = {}
        self.ended: dict[str, Course] = {}

    def open(self, record: Any, workers: Iterable[str]) -> None:
        """Keep the course of a run from now on; `record` is its `RunRecord`."""
        steps = tuple(
            StepCourse(
                name=name,
                shards=total,
                stated_bytes=record.work[name].peak_bytes if name in record.work else 0.0,
            )
            for name, total in record.totals.items()
        )
        about = {name: getattr(record, name) for name in ("root", "workflow", "user", "host", "since")}
        course = Course(run=record.name, now=record.since, steps=steps, **about)
        self.keepers[record.name] = CourseKeeper(course, record.groups)
        for worker in workers:
            self.keepers[record.name].joined(worker)

    def of(self, run: str, state: str, notes: tuple[str, ...]) -> Course | None:
        """Return the course of a run so far; None where it is kept no more."""
        if run in self.keepers:
            return self.keepers[run].now(state, notes)
        return replace(self.ended[run], state=state, notes=notes) if run in self.ended else None

    def going_on(self) -> list[Course]:
        """Return the courses of the runs that have not ended."""
        return [keeper.now() for keeper in self.keepers.values()]

    def close(self, run: str) -> None:
        """Keep the course of a run that has ended as it is, and forget that of one long ago."""
        if keeper := self.keepers.pop(run, None):
            self.ended[run] = keeper.now()
            while len(self.ended) > _KEPT:
                del self.ended[next(iter(self.ended))]

    def drop(self, run: str) -> None:
        """Forget a run that never began."""
        self.keepers.pop(run, None)

    def joined(self, worker: str) -> None:
        """Tell every run of a new worker."""
        for keeper in self.keepers.values():
            keeper.joined(worker)

    def left(self, worker: str) -> None:
        """Tell every run that a worker has gone."""
        for keeper in self.keepers.values():
            keeper.left(worker)

    def begin(self, key: Any, worker: str) -> None:
        """Tell the run of a task that it begins."""
        for keeper in self.keepers.values():
            keeper.begin(key, worker)

    def copied(self, key: Any) -> None:
        """Tell the run of a task that it is started again elsewhere."""
        for keeper in self.keepers.values():
            keeper.copied(key)

    def end(self, key: Any, worker: str, seconds: float, made: bool, facts: Mapping[str, int]) -> None:
        """Tell the run of a task that it is done."""
        for keeper in self.keepers.values():
            keeper.end(key, worker, seconds, made, facts)
