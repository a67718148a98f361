"""Attempts at shards, kept by the scheduler: it sees which shard a worker had in hand when it died.

A task tells the scheduler before it begins and after it ends (`lmr.scheduler.plugin` keeps the book). A
worker that dies in between has died of that shard, and of no other that was merely assigned to it: Dask's own
count blames all of them. One call of a millisecond each, where a mark in storage would be two requests.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import distributed
from distributed.core import Status
from distributed.utils import sync

from lmr.errors import LmrError

__all__ = ["MAX_DEATHS", "attempt", "is_leaving", "standing_in", "tell_scheduler"]

MAX_DEATHS = 3
"""A task that killed this many worker processes in one run is set aside and reported."""

_stand_ins: dict[str, Callable[..., Any]] = {}

_AT_WORK = (Status.running, Status.paused, Status.closing_gracefully)


@contextmanager
def attempt(what: str) -> Iterator[dict[str, int]]:
    """Hold this block to be one attempt at the running task; nothing happens outside of a cluster.

    A worker with several threads makes one attempt at a time: a process that dies then has one culprit, and
    thread pools and peak memory, which belong to the process, belong to one shard. The scheduler is told what
    the block writes into the dictionary that it is given: rows, bytes, peak memory.

    Raises
    ------
    LmrError
        If the task has killed `MAX_DEATHS` workers before.
    """
    worker = _worker()
    facts: dict[str, int] = {}
    if worker is None:
        yield facts
        return
    key, address = worker.get_current_task(), worker.contact_address or worker.address
    with _turn(worker):
        deaths = _note("lmr_begin", key=key, worker=address) or 0
        if deaths >= MAX_DEATHS:
            raise LmrError(
                f"{what} was set aside",
                got=f"its worker process died {deaths} times (killed, out of memory, crashed in a library)",
                fix="give workers more memory or make shards smaller, then run the same command again",
            )
        started = time.perf_counter()
        made = False
        try:
            yield facts
            made = True
        finally:
            seconds = time.perf_counter() - started
            _note("lmr_end", key=key, worker=address, seconds=seconds, made=made, facts=facts)


def is_leaving() -> bool:
    """Tell whether this process, or the worker in it, is being ended."""
    worker = _worker()
    return sys.is_finalizing() or (worker is not None and worker.status not in _AT_WORK)


def tell_scheduler(operation: str, **about: Any) -> Any:
    """Call lmr's plugin on the scheduler from a task and return its answer; None where none is given."""
    worker = _worker()
    if worker is None:
        answer = _stand_ins.get(operation)
        return answer(**about) if answer is not None else None
    return sync(worker.loop, getattr(worker.scheduler, operation), **about)


@contextmanager
def standing_in(answers: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Answer these operations in the place of a scheduler while the block runs, where there is none."""
    before = dict(_stand_ins)
    _stand_ins.update(answers)
    try:
        yield
    finally:
        _stand_ins.clear()
        _stand_ins.update(before)


def _note(operation: str, **about: Any) -> Any:
    # A scheduler that does not answer is on its way out, and so is this worker: the note is of no more use.
    with suppress(OSError, TimeoutError):
        return tell_scheduler(operation, **about)
    return None


def _worker() -> distributed.Worker | None:
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def _turn(worker: distributed.Worker) -> Any:
    plugin = worker.plugins.get("lmr")
    return plugin.turn if plugin else nullcontext()
