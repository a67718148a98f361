"""Which worker has what in hand, how fast it is, and what should rather be made elsewhere.

Part of the scheduler's plugin. Dask assigns tasks that ask for a resource at once and moves waiting ones to
idle workers by itself. What it never does is take a task off a worker that is at it: that is done here, near
the end, when another worker has nothing to do (see `lmr.scheduler.stragglers`).
"""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from distributed.core import Status
from distributed.scheduler import Scheduler, TaskState, WorkerState

from lmr.scheduler.stragglers import worth_starting_again

__all__ = ["Speculation"]

QUIET_SECONDS = 10.0
"""A worker that has tasks and begins none for this long is taken to stand still."""

SILENT_SECONDS = 30.0
"""A worker without a heartbeat for this long is taken to stand still, whatever it has begun."""

_REMEMBERED = 101
_POLL_SECONDS = 0.2


class Speculation:
    """What is known of workers and of the shards that they have in hand."""

    def __init__(
        self,
        scheduler: Scheduler,
        examine: Callable[[str, Iterable[str]], None],
        copied: Callable[[Any], None] = lambda key: None,
    ) -> None:
        self.scheduler = scheduler
        self.copied = copied
        self.examine = examine
        self.quiet_since: dict[str, float] = {}
        self.cpus: dict[str, str] = {}
        self.speeds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self.typical_speed: dict[str, float] = {}
        self.in_hand: dict[str, tuple[Any, float]] = {}
        self.work: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self.typical_work: dict[str, float] = {}
        self.pace: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=5))
        self.started_again: set[Any] = set()
        self.groups: set[str] = set()

    def hello(self, worker: str, cpu: str, speed: float) -> None:
        """Note what kind of processor a worker runs on, and the speed that it measured."""
        self.cpus[worker] = cpu
        self.speeds[cpu].append(speed)
        # Asked for with every worker, every second; a fleet has many workers and few kinds of processors.
        self.typical_speed[cpu] = median(self.speeds[cpu])

    def begin(self, key: Any, worker: str) -> None:
        """Note what a worker has in hand."""
        self.quiet_since.pop(worker, None)
        self.in_hand[worker] = key, time.monotonic()

    def end(self, key: Any, worker: str, seconds: float, made: bool) -> None:
        """Note that a worker is done with a task; `made` tells whether its shard is in storage now."""
        self.in_hand.pop(worker, None)
        self.quiet_since.pop(worker, None)
        if not made:
            return
        work = seconds * self.measured_speed(worker)
        self.work[key[0]].append(work)
        self.typical_work[key[0]] = median(self.work[key[0]])
        self.pace[worker].append(self.typical_work[key[0]] / max(work, 1e-9))
        task = self.scheduler.tasks.get(key)
        if task is not None and task.processing_on is not None and task.processing_on.address != worker:
            # It was started again elsewhere, and this worker was first: here, the shard is found at once.
            self._move(task, worker)

    def lost(self, worker: str) -> Any:
        """Forget a worker; return the key of what it had in hand, None for nothing."""
        self.cpus.pop(worker, None)
        self.pace.pop(worker, None)
        self.quiet_since.pop(worker, None)
        return self.in_hand.pop(worker, (None, 0.0))[0]

    def speed(self, worker: str) -> float:
        """Return a worker's speed: its processor's, as measured, times how it really does beside others."""
        return self.measured_speed(worker) * (median(self.pace[worker]) if self.pace[worker] else 1.0)

    def machines(self) -> list[str]:
        """Tell which processors the workers have and how fast these are beside the fastest, a line each."""
        workers = Counter(self.cpus.values())
        speeds = {cpu: self.typical_speed[cpu] for cpu in workers}
        best = max(speeds.values(), default=1.0)
        return [
            f"{workers[cpu]} workers on {cpu}, speed {speed / best:.2f}"
            for cpu, speed in sorted(speeds.items(), key=lambda item: -item[1])
        ]

    def look(self) -> None:
        """Start again on idle workers what waits behind, or runs on, a worker that is late."""
        idle = {
            worker.address: self.speed(worker.address)
            for worker in self.scheduler.running
            if not worker.processing and worker.address not in self.in_hand and not self._is_silent(worker)
        }
        self._look_at_the_quiet(idle)
        fastest = max(idle, key=idle.__getitem__, default="")
        for worker, (key, since) in list(self.in_hand.items()):
            if not idle:
                return
            if (state := self.scheduler.workers.get(worker)) is None:
                continue
            for waiting in self._held_up(state, key):
                if there := self._best(waiting, idle):
                    self._move(waiting, there)
                    del idle[there]
            task = self.scheduler.tasks.get(key)
            if task is None or task.processing_on is not state or key in self.started_again:
                continue
            # Looking for a worker takes longer than asking whether the fastest would help.
            silent = self._is_silent(state)
            if idle and fastest not in idle:
                fastest = max(idle, key=idle.__getitem__)
            if not idle or not (silent or self._late(key, since, worker, fastest)):
                continue
            there = self._best(task, idle)
            if there and (silent or self._late(key, since, worker, there)):
                self.started_again.add(key)
                self.copied(key)
                self._move(task, there)
                del idle[there]

    def _look_at_the_quiet(self, idle: dict[str, float]) -> None:
        """Give to idle workers what is assigned to workers that begin nothing; those may stand still.

        A worker that waits for results which others hold is not at fault: its way to them is looked at.
        """
        now = time.monotonic()
        for worker in list(self.scheduler.workers.values()):
            mine = [task for task in worker.processing if task.key[0] in self.groups]
            if not mine or worker.address in self.in_hand:
                self.quiet_since.pop(worker.address, None)
                continue
            if now - self.quiet_since.setdefault(worker.address, now) < QUIET_SECONDS:
                continue
            lacking = [d for task in mine for d in task.dependencies if worker not in (d.who_has or ())]
            if lacking and not self._is_silent(worker):
                self.examine(worker.address, {h.address for d in lacking for h in d.who_has or ()})
                continue
            for task in mine:
                if there := self._best(task, idle):
                    self._move(task, there)
                    del idle[there]

    def _is_silent(self, worker: WorkerState) -> bool:
        """Tell whether a worker has sent no heartbeat for long: it is stopped, swapping, or cut off."""
        return bool(time.time() - worker.last_seen > SILENT_SECONDS)

    async def leave(self, worker: str, grace_seconds: float) -> None:
        """Let a worker finish what it has in hand, give it nothing more, and retire it.

        Nothing is counted against the tasks that were assigned to it, and its results are handed over.
        """
        state = self.scheduler.workers.get(worker)
        if state is None:
            return
        stimulus = f"lmr-leave-{time.time()}"
        self.scheduler.handle_worker_status_change(Status.closing_gracefully, state, stimulus)
        message = {"op": "worker-status-change", "status": state.status.name, "stimulus_id": stimulus}
        self.scheduler.stream_comms[worker].send(message)
        key = self.in_hand.get(worker, (None, 0.0))[0]
        waiting = {task.key: "released" for task in state.processing if task.key != key}
        self.scheduler.transitions(waiting, stimulus_id=stimulus)
        deadline = time.monotonic() + grace_seconds
        while self.in_hand.get(worker, (None, 0.0))[0] == key is not None and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        if not await self.scheduler.retire_workers(workers=[worker], close_workers=True):
            # There is nobody to hand its results over to: they will be found in storage.
            self.scheduler.close_worker(worker)

    def forget(self, groups: set[str]) -> None:
        """Forget what was noted of the tasks of a run, whose keys begin with these names."""
        self.groups -= groups
        for group in groups:
            self.work.pop(group, None)
            self.typical_work.pop(group, None)
        self.started_again = {key for key in self.started_again if key[0] not in groups}

    def measured_speed(self, worker: str) -> float:
        """Return the speed that a worker's processor has shown by itself."""
        return self.typical_speed.get(self.cpus.get(worker, ""), 1.0)

    def _held_up(self, worker: WorkerState, in_hand: Any) -> list[TaskState]:
        """Return tasks that wait on a worker for one that has been moved away, but cannot be stopped."""
        if any(task.key == in_hand for task in worker.processing):
            return []
        return [task for task in worker.processing if task.key[0] in self.groups]

    def _late(self, key: Any, since: float, worker: str, there: str) -> bool:
        """Tell whether a worker's shard should be started again on another, idle one."""
        finished = [self.typical_work[key[0]]] if key[0] in self.typical_work else []
        # How workers did at other steps' shards tells more of those shards than of this step.
        speed = self.speed if finished else self.measured_speed
        return worth_starting_again(time.monotonic() - since, finished, speed(worker), speed(there))

    def _best(self, task: TaskState, idle: Mapping[str, float]) -> str | None:
        """Return the fastest idle worker that a task may run on."""
        valid = self.scheduler.valid_workers(task)
        able = idle if valid is None else [worker.address for worker in valid if worker.address in idle]
        return max(able, key=lambda worker: idle[worker], default=None)

    def _move(self, task: TaskState, worker: str) -> None:
        """Take a task off its worker and give it to another one; a thread that is at it goes on."""
        before = task.worker_restrictions
        task.worker_restrictions = {worker}
        self.scheduler.transitions({task.key: "released"}, stimulus_id=f"lmr-move-{time.time()}")
        # The choice is made; if that worker is lost, any other will do.
        task.worker_restrictions = before
