"""Before the first task: do the machines agree, can they do what is asked, do they reach the storage.

Every worker process is asked, all at once: several installations may stand on one host. Workers that join
later are judged the same way by the scheduler (`lmr.cluster.admission`).
"""

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import distributed

from lmr import storage
from lmr.cluster.admission import (
    Expectations,
    check_facts,
    check_memory,
    expectations_of,
    facts,
    look_around,
)
from lmr.cluster.client import workers_of
from lmr.errors import ClusterError, StorageError, one_line
from lmr.runtime.graph import Plan
from lmr.runtime.steps import Step

__all__ = ["clock_note", "preflight", "unreachable"]

Workers = Mapping[str, Mapping[str, Any]]
"""Address to what the scheduler tells of a worker."""

_WAIT_SECONDS = 2.0
CLOCK_SECONDS = 1.0
"""Clocks that are off by less are not spoken of."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one worker answers."""

    host: str
    facts: Mapping[str, str | None]
    clock: float
    errors: tuple[str, ...]


def preflight(
    client: distributed.Client,
    plan: Plan,
    *,
    wait: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[str, ...]:
    """Look whether a cluster can do what a plan asks for, before it is asked.

    Parameters
    ----------
    client
        Connected to the cluster.
    plan
        What is to be done.
    wait
        Whether to wait for workers that are missing.
    tell
        Is told what is waited for.

    Returns
    -------
    notes
        What is worth knowing and stands in nobody's way, a sentence each.

    Raises
    ------
    ClusterError
        If versions differ, a worker is missing or too small, storage is not the same one everywhere, or a
        step finds on its workers not what it needs.
    """
    check_facts("the scheduler", _ask_scheduler(client), facts())
    steps = [part.step for part in plan if part.missing]
    workers = _staff(client, steps, wait, tell)
    declared = {name for worker in workers.values() for name in worker["resources"]}
    token = f"preflight-{uuid.uuid4().hex}"
    expected = expectations_of(plan, token, token, declared)
    for worker in workers.values():
        check_memory(_named(worker), expected.needs, worker["resources"], worker["memory_limit"])
    landmark = storage.join(plan.root, token)
    storage.put(landmark, token.encode())
    notes: list[str] = []
    try:
        began = time.time()
        found = _ask_workers(client, workers, expected)
        ended = time.time()
        for address, one in found.items():
            check_facts(_named(workers[address]), one.facts, facts())
        for address, one in found.items():
            for error in one.errors:
                raise ClusterError(f"{_named(workers[address])} cannot do its part: {error}")
    finally:
        # What stays behind is told, and never hides what was found before.
        try:
            storage.delete(landmark)
        except StorageError as error:
            notes.append(f"{landmark} could not be removed: {error.got}")
    return (*notes, *_clocks(found.values(), began, ended), *_threads(workers))


def unreachable(who: str, address: str, caller: str = "the scheduler") -> ClusterError:
    """Return the error for a worker at whose address nobody answers."""
    return ClusterError(
        f"{caller} cannot reach {who} at {address}",
        got="no answer at that address",
        fix="start it with an address that other machines reach (lmr cluster worker --contact-address "
        "HOST:PORT), or a container with the host's network; its port must not be closed by a firewall",
    )


def clock_note(host: str, ahead_seconds: float, blurred_seconds: float = 0.0, beside: str = "this") -> str:
    """Tell of a clock that is off by more than a call can explain; S3 refuses requests 15 minutes off."""
    if abs(ahead_seconds) <= blurred_seconds + CLOCK_SECONDS:
        return ""
    side = "ahead of" if ahead_seconds > 0 else "behind"
    return f"the clock of {host} is {abs(ahead_seconds):.0f} s {side} {beside} one"


def _named(worker: Mapping[str, Any]) -> str:
    return f"the worker {worker['name']} on {worker['host']}"


def _ask_scheduler(client: distributed.Client) -> Mapping[str, str | None]:
    try:
        answer: Mapping[str, str | None] = client.run_on_scheduler(facts)
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            "the scheduler has no lmr, or another one",
            got=one_line(error),
            fix="install the same lmr there: pip install -c constraints.txt lmr",
        ) from error
    return answer


def _ask_workers(
    client: distributed.Client, workers: Workers, expected: Expectations
) -> Mapping[str, "_Found"]:
    """Have every worker process look around."""
    found = {}
    answers = client.run(_look, expected, workers=list(workers), on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, OSError | TimeoutError):
            if address not in workers_of(client):
                continue  # it left while it was asked; whoever joins later is looked at by the scheduler
            raise unreachable(_named(workers[address]), address) from answer
        if not isinstance(answer, _Found):
            # Dask hands on what it could not unpickle there as a text.
            raise ClusterError(
                f"{_named(workers[address])} could not be asked",
                got=one_line(answer),
                fix="install the same lmr there (pip install -c constraints.txt lmr), or see its log",
            )
        found[address] = answer
    return found


def _staff(
    client: distributed.Client, steps: Iterable[Step], wait: bool, tell: Callable[[str], None]
) -> Workers:
    """Return the workers, once there is one for every step; wait for that if told to."""
    told = ""
    while True:
        workers = workers_of(client)
        lacking = {" and ".join(_asked(s, workers)): s.name for s in steps if not _able(s, workers)}
        if not lacking:
            return workers
        what, step = next(iter(lacking.items()))
        need = f"the step {step} needs a worker with a {what or 'CPU'}"
        if not wait:
            declared = ", ".join(sorted({name for w in workers.values() for name in w["resources"]}))
            raise ClusterError(
                need,
                got=f"{len(workers)} workers that declare {declared or 'no resources'}",
                fix=f"start workers with --resources {what or 'CPU'}=1, or submit with --wait",
            )
        if need != told:
            tell(f"waiting: {need}")
            told = need
        time.sleep(_WAIT_SECONDS)


def _asked(step: Step, workers: Workers) -> dict[str, float]:
    """Return the resources that a step asks of these workers."""
    return step.asked({name for worker in workers.values() for name in worker["resources"]})


def _able(step: Step, workers: Workers) -> list[str]:
    """Return the addresses of the workers that a step's tasks may run on."""
    asked = _asked(step, workers).items()
    return [a for a, w in workers.items() if all(w["resources"].get(name, 0) >= n for name, n in asked)]


async def _look(expected: Expectations, dask_worker: distributed.Worker) -> "_Found":
    """Look around on a worker."""
    resources = dask_worker.state.total_resources
    clock, address = time.time(), dask_worker.contact_address or dask_worker.address
    errors = await asyncio.to_thread(look_around, expected, resources, address)
    return _Found(host=socket.gethostname(), facts=facts(), clock=clock, errors=tuple(errors))


def _clocks(found: Iterable["_Found"], began: float, ended: float) -> list[str]:
    blurred = (ended - began) / 2
    notes = (clock_note(one.host, one.clock - (began + ended) / 2, blurred) for one in found)
    return list(dict.fromkeys(note for note in notes if note))


def _threads(workers: Workers) -> list[str]:
    many = [w["name"] for w in workers.values() if w["nthreads"] > 1]
    if not many:
        return []
    return [
        f"workers with several threads, of which lmr uses one: {len(many)}; for all cores: "
        "dask worker --nthreads 1 --nworkers N"
    ]
