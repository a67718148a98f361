"""The scheduler plugin that keeps the runs: who runs what, how far it is, and which shards killed workers.

It lives on the scheduler, whoever started that, and so outlives the client that submitted a run. It keeps a
run's last task wanted, so that Dask keeps working when the client is gone, and lets go of it at the end.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import distributed
from distributed.scheduler import Scheduler
from tornado.ioloop import PeriodicCallback

from lmr.cluster.admission import is_grant
from lmr.runtime.course import Course, course_text
from lmr.runtime.estimate import Measured, Progress, StepWork, seconds_left
from lmr.scheduler.admission import Admission
from lmr.scheduler.backlog import WAITING
from lmr.scheduler.courses import Courses
from lmr.scheduler.endings import Endings
from lmr.scheduler.metrics import RunMetrics
from lmr.scheduler.pace import Pace
from lmr.scheduler.speculation import Speculation

__all__ = ["RunsPlugin", "RunRecord", "RunStatus"]

State = Literal["preparing", "running", "finished", "failed", "cancelled"]

LOOK_SECONDS = 1.0
"""How often the scheduler looks for shards that should move."""

_LIVES = 1000
_KEPT = 100


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Who runs what, and since when.

    Attributes
    ----------
    name
        The run's name, by which it is watched and cancelled.
    root
        Its folder; one run at a time works on a folder.
    workflow
        Name of the workflow.
    targets
        Digest of what it makes.
    user, host
        Who submitted it, and where.
    since
        When, seconds since the epoch by the submitter's clock.
    final
        Key of its last task.
    groups
        Step name to the name that the keys of its tasks share.
    totals
        Step name to its number of shards to make.
    notes
        What preflight noted of the machines.
    work
        Step name to what it has to do, to reckon how long it takes.
    """

    name: str
    root: str
    workflow: str
    targets: str
    user: str
    host: str
    since: float
    final: tuple[str, int] = ("", 0)
    groups: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    work: Mapping[str, StepWork] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes
    ----------
    record
        Which run.
    state
        "preparing" until its graph is on the scheduler.
    counts
        Step name to number of finished shards.
    ended
        When it ended, seconds since the epoch by the scheduler's clock.
    report
        The pickled `RunReport`, once there is one.
    error
        Why Dask itself could not go on.
    deaths
        How many workers died with a shard of this run in hand.
    notices
        Which workers get no tasks of this run, or were closed, and why; clocks that are off.
    measured
        Step name to what is known of its course.
    workers
        How many workers of this run declare each resource; under "" how many there are.
    """

    record: RunRecord
    state: State = "preparing"
    counts: Mapping[str, int] = field(default_factory=dict)
    ended: float | None = None
    report: bytes | None = None
    error: str = ""
    deaths: int = 0
    notices: tuple[str, ...] = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)
    workers: Mapping[str, int] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it is still going on."""
        return self.state in ("preparing", "running")

    @property
    def progress(self) -> Progress:
        """How far it is, and how long it will still take."""
        left = seconds_left(self.record.work, self.counts, self.measured, self.workers)
        return Progress(counts=self.counts, measured=self.measured, left=left)


class RunsPlugin(distributed.SchedulerPlugin):  # type: ignore[misc]
    """Keeps the runs; registered by every submission, kept by the first."""

    name = "lmr"
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, RunStatus] = {}
        self.claimed_by: dict[str, str] = {}
        self.whole: set[str] = set()
        self.deaths: dict[Any, int] = {}
        self.names: dict[str, set[str]] = {}
        self.pace = Pace()
        self.courses = Courses()
        self.endings = Endings()

    async def start(self, scheduler: Scheduler) -> None:
        """Take the place on a scheduler."""
        self.scheduler = scheduler
        # Dask counts a worker's death against every task assigned to it, and gives up after three. This
        # plugin counts it against the one that was running.
        scheduler.allowed_failures = max(scheduler.allowed_failures, _LIVES)
        self.admission = Admission(scheduler)
        self.speculation = Speculation(scheduler, self.admission.examine, self.courses.copied)
        scheduler.handlers.update(
            lmr_hello=self.hello,
            lmr_begin=self.begin,
            lmr_end=self.end,
            lmr_finish=self.finish,
            lmr_notices=self.notices,
            lmr_course=self.course_text,
            lmr_leave=self.speculation.leave,
        )
        self.metrics = RunMetrics(self.courses.going_on)
        self.metrics.register()
        self.looking = PeriodicCallback(self.speculation.look, LOOK_SECONDS * 1000)
        self.looking.start()
        for worker in scheduler.workers:
            self.admission.found(worker)

    async def close(self) -> None:
        """Leave with the scheduler."""
        self.looking.stop()
        self.metrics.unregister()
        self.admission.close()

    # What clients ask for, through `Client.run_on_scheduler`.

    def claim(self, record: RunRecord, client_id: str) -> RunStatus | None:
        """Take a folder for a run; return the run that has it, if another does."""
        for status in self.runs.values():
            if status.active and status.record.root == record.root:
                return self.status(status.record.name)
        ended = [name for name, status in self.runs.items() if not status.active]
        for name in ended[: max(0, len(ended) - _KEPT)]:
            del self.runs[name]
        self.runs[record.name] = RunStatus(record=record)
        self.claimed_by[record.name] = client_id
        return None

    def amend(self, record: RunRecord) -> None:
        """Complete a claimed run's record before its graph is sent."""
        self.runs[record.name] = replace(self.runs[record.name], record=record)
        self.courses.open(record, self.scheduler.workers)

    def expect(self, name: str, expected: bytes) -> None:
        """Judge every worker, now and when it joins, by what a run expects (a pickled `Expectations`)."""
        self.admission.expect(name, expected)

    def stranded(self, name: str) -> tuple[str, ...] | None:
        """Return why no worker is admitted to a run, empty if one is; None while that is being found out."""
        if self.admission.waits(name):
            return None
        return () if self.admission.admitted(name) or not self.scheduler.workers else self.notices(name)

    def abandon(self, name: str) -> None:
        """Forget a run that was claimed and never began."""
        if name in self.claimed_by:
            del self.claimed_by[name], self.runs[name]
            self.courses.drop(name)
            self.admission.forget(name)
            self.endings.ended(name)

    async def status_later(self, name: str, seconds: float) -> RunStatus | None:
        """Return how far a run is as soon as it has ended, or else after so many seconds."""
        if name in self.runs and self.runs[name].active:
            await self.endings.wait(name, seconds)
        return self.status(name)

    def status(self, name: str) -> RunStatus | None:
        """Return how far a run is, by the scheduler's own counters."""
        status = self.runs.get(name)
        if status is None or not status.active:
            return status
        return replace(self._looked_at(status), notices=self.notices(name))

    def statuses(self) -> list[RunStatus]:
        """Return how far every run is that is kept."""
        return [status for status in map(self.status, self.runs) if status]

    def machines(self) -> list[str]:
        """Tell which processors the workers have and how fast these are beside the fastest, a line each."""
        return self.speculation.machines()

    def cancel(self, name: str) -> None:
        """Stop a run: what is being made is finished and kept, nothing else is begun."""
        status = self.runs[name]
        if not status.active:
            return
        self._close(name, state="cancelled")
        self._release(status.record, force=True)

    def course(self, run: str) -> Course | None:
        """Return the course of a run; None where it is kept no more."""
        if run not in self.runs:
            return None
        status = self.runs[run]
        return self.courses.of(run, status.state, status.notices if status.ended else self.notices(run))

    def course_text(self, run: str) -> str:
        """Return the course of a run as JSON, for its last task; empty where it is kept no more."""
        course = self.course(run)
        return course_text(course) if course else ""

    def notices(self, run: str) -> tuple[str, ...]:
        """Return what was noticed of workers since a run began."""
        return self.admission.notices(run)

    # What workers and tasks tell, through `WorkerSetup` and `attempts.tell_scheduler`.

    def hello(
        self,
        worker: str,
        cpu: str,
        speed: float,
        facts: Mapping[str, str | None] | None = None,
        clock: float | None = None,
    ) -> None:
        """Meet a worker: what it runs, and how fast it is. An older lmr does not say what it runs."""
        self.speculation.hello(worker, cpu, speed)
        self.admission.hello(worker, facts or {}, clock)

    def begin(self, key: Any, worker: str) -> int:
        """Note that a worker begins a task; return how many workers died of it."""
        self.speculation.begin(key, worker)
        self.courses.begin(key, worker)
        self.pace.begin(key[0])
        return self.deaths.get(key, 0)

    def end(
        self, key: Any, worker: str, seconds: float, made: bool, facts: Mapping[str, int] | None = None
    ) -> None:
        """Note that a worker is done with a task; `made` tells whether its shard is in storage now."""
        self.courses.end(key, worker, seconds, made, facts or {})
        self.speculation.end(key, worker, seconds, made)
        self.pace.end(key[0], seconds, self.speculation.measured_speed(worker), made=made)

    def finish(self, run: str, report: bytes, whole: bool) -> None:
        """Keep the account of a run that ended; `whole` tells whether everything was made."""
        if run in self.runs and self.runs[run].active:
            self.runs[run] = replace(self.runs[run], report=report)
            self.whole.add(run) if whole else self.whole.discard(run)

    # What the scheduler tells.

    def update_graph(self, scheduler: Scheduler, *, keys: set[Any], tasks: list[Any], **_: Any) -> None:
        """Hold a run's last task as soon as its graph is here."""
        for name, status in self.runs.items():
            if status.state == "preparing" and status.record.final in keys:
                scheduler.client_desires_keys([status.record.final], _holder(name))
                self.runs[name] = replace(status, state="running")
                self.claimed_by.pop(name, None)
                self.names[name] = {key[0] for key in tasks}
                self.speculation.groups |= self.names[name]

    def transition(self, key: Any, start: str, finish: str, *args: Any, **_: Any) -> None:
        """Close a run when its last task is done."""
        if finish not in ("memory", "erred") or not str(key[0]).startswith("finish-"):
            return
        for name, status in self.runs.items():
            if status.active and status.record.final == key:
                state: State = "finished" if finish == "memory" and name in self.whole else "failed"
                self._close(name, state=state, error=self._blame(key) if finish == "erred" else "")
                # Not within the scheduler's own transition.
                self.scheduler.loop.add_callback(self._release, status.record)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Wait for a worker to say what it runs."""
        self.courses.joined(worker)
        self.admission.joined(worker)

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Count a worker's death against the task that it had in hand."""
        self.admission.lost(worker)
        self.courses.left(worker)
        key = self.speculation.lost(worker)
        task = scheduler.tasks.get(key)
        if task is not None and task.state != "memory":
            self.deaths[key] = self.deaths.get(key, 0) + 1

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Drop the claims of a client that went before it sent its graph."""
        for name in [name for name, by in self.claimed_by.items() if by == client]:
            self.abandon(name)

    def _counts(self, record: RunRecord) -> dict[str, int]:
        counts = {}
        for step, group in record.groups.items():
            known = self.scheduler.task_groups.get(group)
            states = known.states if known else {}
            waiting = sum(states.get(state, 0) for state in WAITING)
            counts[step] = sum(states.values()) - waiting
        return counts

    def _looked_at(self, status: RunStatus) -> RunStatus:
        """Return a run's status with how far each of its steps is, and on how many workers."""
        record, counts = status.record, self._counts(status.record)
        admitted = self.admission.workers(record.name)
        resources = Counter(name for worker in admitted for name in worker.resources if not is_grant(name))
        speeds = [self.speculation.measured_speed(worker.address) for worker in admitted]
        running = Counter(key[0] for key, _ in self.speculation.in_hand.values())
        measured = {
            step: self.pace.measured(
                group,
                running=running[group],
                speed=sum(speeds) / len(speeds) if speeds else 1.0,
                ended=counts[step] >= record.totals.get(step, 0),
            )
            for step, group in record.groups.items()
        }
        return replace(status, counts=counts, measured=measured, workers={**resources, "": len(admitted)})

    def _blame(self, key: Any) -> str:
        """Tell what Dask holds against a task, or against the one that it waited for."""
        task = self.scheduler.tasks[key]
        blamed = task.exception_blame or task
        # Dask gives a text for an exception in a task, and none when it gives a task up.
        reason = blamed.exception_text or f"Dask gave it up after {blamed.suspicious} lost workers"
        return f"{blamed.key}: {reason}"

    def _close(self, name: str, *, state: State, error: str = "") -> None:
        status = self._looked_at(self.runs[name])
        groups = self.names.pop(name, set())
        mine = [key for key in self.deaths if key[0] in groups]
        self.speculation.forget(groups)
        self.pace.forget(groups)
        self.courses.close(name)
        self.runs[name] = replace(
            status,
            state=state,
            ended=time.time(),
            error=error,
            notices=tuple(self.admission.forget(name)),
            deaths=sum(self.deaths.pop(key) for key in mine),
        )
        self.endings.ended(name)

    def _release(self, record: RunRecord, force: bool = False) -> None:
        """Let Dask forget the run's tasks; with force, even while its submitter looks on."""
        holders = {_holder(record.name)}
        task = self.scheduler.tasks.get(record.final)
        if force and task is not None:
            holders |= {client.client_key for client in task.who_wants or ()}
        for holder in holders & self.scheduler.clients.keys():
            self.scheduler.client_releases_keys([record.final], holder, f"lmr-release-{record.name}")
        self.scheduler.clients.pop(_holder(record.name), None)


def _holder(name: str) -> str:
    # Dask's own published datasets are held the same way: by a client that is none.
    return f"lmr-run-{name}"
