"""What a scheduler still has to do, by the resource that it asks for; read from the scheduler's own books.

Dask's own estimate of how many workers are wanted ignores resources. Here pending tasks are counted per step
and resource, with the measured mean duration of the step's finished ones.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import distributed

from lmr.cluster.admission import is_grant
from lmr.cluster.client import workers_of
from lmr.cluster.worker import GRACE_SECONDS
from lmr.runtime.forecast import rate_of

__all__ = ["WAITING", "Backlog", "Pending", "read_backlog", "retire_hosts"]

WAITING = ("waiting", "no-worker", "queued", "processing")
"""Dask's names for the states of a task that is not done."""


@dataclass(frozen=True)
class Pending:
    """Tasks of one step that are not done.

    Attributes
    ----------
    step
        The step's name.
    resource
        What its tasks ask for; `CPU` where they ask for nothing.
    tasks
        How many are not done.
    task_seconds
        Mean of those that are done, measured by the scheduler; None before the first.
    task_work
        Units of work of one task, as its run has told; None where no run of lmr's has.
    known_rate
        Seconds per unit of work that an earlier run's shards took; None where there are none.
    """

    step: str
    resource: str
    tasks: int
    task_seconds: float | None
    task_work: float | None = None
    known_rate: float | None = None

    def seconds_each(self, rates: Mapping[str, float]) -> float | None:
        """Return what a task takes: as measured here, else by a rate that was measured before; None: unknown.

        Parameters
        ----------
        rates
            Seconds per unit of work by step, from `lmr measure`.
        """
        if self.task_seconds is not None or self.task_work is None:
            return self.task_seconds
        rate = rate_of(self.step, rates)
        rate = self.known_rate if rate is None else rate
        return None if rate is None else rate * self.task_work


@dataclass(frozen=True)
class Backlog:
    """What a scheduler has to do, and with whom.

    Attributes
    ----------
    pending
        By step and resource.
    slots
        By host and resource: how many tasks the host's workers run at a time.
    busy
        By host: how many tasks its workers have in hand.
    """

    pending: tuple[Pending, ...]
    slots: Mapping[str, Mapping[str, float]]
    busy: Mapping[str, int]

    @property
    def workers(self) -> int:
        """How many tasks all workers run at a time."""
        return int(sum(sum(host.values()) for host in self.slots.values()))

    def of(self, resource: str, rates: Mapping[str, float] | None = None) -> tuple[int, float, int]:
        """Return how many tasks ask for a resource, their seconds in all, and how many are unmeasured.

        A step without a finished task yet is counted by its rate where one is known, else with the mean of
        the others of its resource; if nothing is known of any, the seconds are 0.

        Parameters
        ----------
        resource
            `CPU` or `GPU`.
        rates
            Seconds per unit of work by step, from `lmr measure`.
        """
        asked = [p for p in self.pending if p.resource == resource]
        each = [(p.tasks, p.seconds_each(rates or {})) for p in asked]
        counted = sum(tasks for tasks, one in each if one is not None)
        seconds = sum(tasks * one for tasks, one in each if one is not None)
        total = sum(p.tasks for p in asked)
        if counted:
            seconds *= total / counted
        return total, seconds, total - counted


def read_backlog(client: distributed.Client) -> Backlog:
    """Ask a scheduler what it still has to do."""
    backlog: Backlog = client.run_on_scheduler(_read)
    return backlog


def _read(dask_scheduler: Any) -> Backlog:
    counts: dict[tuple[str, str], int] = {}
    for task in dask_scheduler.tasks.values():
        if task.state in WAITING and not _bookkeeping(task.prefix.name):
            key = task.prefix.name, _resource(task)
            counts[key] = counts.get(key, 0) + 1
    work = _work(dask_scheduler)
    pending = tuple(
        Pending(
            step, resource, count, _mean(dask_scheduler.task_prefixes[step]), *work.get(step, (None, None))
        )
        for (step, resource), count in sorted(counts.items())
    )
    slots: dict[str, dict[str, float]] = {}
    busy: dict[str, int] = {}
    for worker in dask_scheduler.workers.values():
        host = slots.setdefault(worker.host, {})
        declared = {name: n for name, n in worker.resources.items() if not is_grant(name)}
        for name, amount in (declared or {"CPU": worker.nthreads}).items():
            host[name] = host.get(name, 0.0) + amount
        busy[worker.host] = busy.get(worker.host, 0) + len(worker.processing)
    return Backlog(pending, slots, busy)


def _work(dask_scheduler: Any) -> dict[str, tuple[float, float | None]]:
    """Return a task's work and its known rate by step, as the runs that are under way have told."""
    runs = getattr(dask_scheduler.plugins.get("lmr"), "runs", {})
    return {
        name: (step.work / step.shards, step.known_rate)
        for run in runs.values()
        if run.active
        for name, step in run.record.work.items()
        if step.shards
    }


def _resource(task: Any) -> str:
    asked = task.resource_restrictions or {}
    return "GPU" if "GPU" in asked else "CPU"


def _bookkeeping(prefix: str) -> bool:
    # One task per step that gathers receipts, and the last one (lmr.runtime.graph): no work.
    return prefix.endswith("_done") or prefix == "finish"


def _mean(prefix: Any) -> float | None:
    # Not Dask's `duration_average`: half of that is the last task alone.
    done: int = prefix.state_counts["memory"]
    return prefix.all_durations["compute"] / done if done else None


def retire_hosts(client: distributed.Client, hosts: list[str]) -> int:
    """Have the workers of some hosts hand over what they hold, and stop them; return how many.

    Nothing is counted against the tasks that they had in hand, as it would be if they were lost.
    """
    workers = [address for address, worker in workers_of(client).items() if worker["host"] in hosts]
    if workers:
        client.run_on_scheduler(_retire, workers=workers)
    return len(workers)


async def _retire(workers: list[str], dask_scheduler: Any) -> None:
    """Let workers finish what they have in hand, if lmr's plugin is there to know; then retire them."""
    if leave := dask_scheduler.handlers.get("lmr_leave"):
        await asyncio.gather(*(leave(worker=worker, grace_seconds=GRACE_SECONDS) for worker in workers))
    else:
        await dask_scheduler.retire_workers(workers=workers, close_workers=True)
