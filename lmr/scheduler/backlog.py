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
    """

    step: str
    resource: str
    tasks: int
    task_seconds: float | None


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

    def of(self, resource: str) -> tuple[int, float, int]:
        """Return how many tasks ask for a resource, their seconds in all, and how many are unmeasured.

        A step without a finished task yet is counted with the mean of the others of its resource; if none
        has been measured, the seconds are 0.
        """
        asked = [p for p in self.pending if p.resource == resource]
        known = [p for p in asked if p.task_seconds is not None]
        counted = sum(p.tasks for p in known)
        seconds = sum(p.tasks * (p.task_seconds or 0.0) for p in known)
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
    pending = tuple(
        Pending(step, resource, count, _mean(dask_scheduler.task_prefixes[step]))
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
