"""Before the first task: do the machines agree, can they do what is asked, do they reach the storage.

Every worker process is asked, all at once: several installations may stand on one host. One that does not
pass is left out and named; a run is refused where nobody is left for one of its steps. Workers that join
later are judged the same way by the scheduler (`lmr.cluster.admission`).
"""

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import distributed

from lmr import storage
from lmr.cluster.admission import (
    Expectations,
    as_one_line,
    check_facts,
    check_memory,
    expectations_of,
    facts,
    look_around,
)
from lmr.cluster.client import workers_of
from lmr.errors import ClusterError, LmrError, StorageError, one_line
from lmr.runtime.graph import Plan, start_text
from lmr.runtime.steps import Step

__all__ = ["Passed", "clock_note", "left_out", "preflight", "unreachable"]

Workers = Mapping[str, Mapping[str, Any]]
"""Address to what the scheduler tells of a worker."""

_WAIT_SECONDS = 2.0
_ANSWER_SECONDS = 120.0
"""How long a worker may look around; busy storage is waited for a minute."""

_NAMED = 10
"""So many workers that do not pass are named; a cluster that was not updated has hundreds."""

CLOCK_SECONDS = 1.0
"""Clocks that are off by less are not spoken of."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What was found before the first task.

    Attributes
    ----------
    notes
        What is worth knowing and stands in nobody's way, a sentence each: clocks, and workers left out.
    declared
        The resources that workers declare; empty where those that may take part declare none.
    """

    notes: tuple[str, ...] = ()
    declared: frozenset[str] = frozenset()


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
) -> Passed:
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
    passed
        What is to be told of the machines, and what those declare that may take part.

    Raises
    ------
    ClusterError
        If the scheduler has other versions, or a step has no worker that passes: versions, memory, storage
        and what the step needs are looked at. The error is that of the first worker which does not pass.
    StorageError
        If the run's folder cannot be written from here.
    """
    check_facts("the scheduler", _ask_scheduler(client), facts())
    steps = [part.step for part in plan if part.missing]
    token = f"preflight-{uuid.uuid4().hex}"
    landmark = storage.join(plan.root, token)
    notes: list[str] = []
    told, written = "", False
    try:
        while True:
            workers = workers_of(client)
            declared = _declared(workers)
            enough = not _lacking(steps, workers, declared)
            if enough and not written:
                storage.put(landmark, token.encode())
                written = True
            began = time.time()
            # Too few are too few, whoever passes.
            found, bad = (
                _judged(client, workers, expectations_of(plan, token, token, declared))
                if enough
                else ({}, {})
            )
            ended = time.time()
            good = {address: worker for address, worker in workers.items() if address in found}
            # Where those that pass declare nothing, every one of them has a CPU.
            declared = declared if _declared(good) else frozenset()
            if not (lacking := _lacking(steps, good, declared)):
                break
            error = _nobody_for(*lacking, workers, bad)
            if not wait:
                raise error
            if error.what != told:
                tell(f"waiting: {as_one_line(error) if bad else error.what}")
                told = error.what
            time.sleep(_WAIT_SECONDS)
    finally:
        # What stays behind is told, and never hides what was found before.
        try:
            if written:
                storage.delete(landmark)
        except StorageError as error:
            notes.append(f"{landmark} could not be removed: {error.got}")
    notes = [*_bad_notes(bad), *notes, *_clocks(found.values(), began, ended), *_threads(good)]
    return Passed(notes=tuple(notes), declared=declared)


def left_out(error: LmrError) -> str:
    """Return the line that says why a worker takes no part in a run, and what to do."""
    return f"{as_one_line(error)} (it gets no tasks of this run)"


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


def _judged(
    client: distributed.Client, workers: Workers, expected: Expectations
) -> tuple[Mapping[str, "_Found"], Mapping[str, LmrError]]:
    """Have the workers look around; return what those found that pass, and what is wrong with the others."""
    found: dict[str, _Found] = {}
    bad: dict[str, LmrError] = {}
    for address, answer in client.sync(_ask_all, client, list(workers), expected).items():
        try:
            found[address] = _passed(workers[address], address, answer, expected)
        except LmrError as error:
            bad[address] = error
    if bad:
        # Who left while it was asked stands in nobody's way; whoever joins later is judged by the scheduler.
        here = workers_of(client)
        bad = {address: error for address, error in bad.items() if address in here}
    return found, bad


async def _ask_all(
    client: distributed.Client, addresses: Iterable[str], expected: Expectations
) -> dict[str, object]:
    """Have every worker process look around, all at once; return the answer of each, or its error."""

    async def asked(address: str) -> object:
        answering = client.run(_look, expected, workers=[address], on_error="return")
        try:
            return (await asyncio.wait_for(answering, _ANSWER_SECONDS))[address]
        except Exception as error:
            return error

    addresses = list(addresses)
    return dict(zip(addresses, await asyncio.gather(*map(asked, addresses)), strict=True))


def _passed(worker: Mapping[str, Any], address: str, answer: object, expected: Expectations) -> "_Found":
    """Return a worker's answer.

    Raises
    ------
    LmrError
        If the worker may take no part, or did not answer.
    """
    name = _named(worker)
    if isinstance(answer, OSError | TimeoutError):
        raise unreachable(name, address) from answer
    if not isinstance(answer, _Found):
        # Dask hands on what it could not unpickle there as a text.
        raise ClusterError(
            f"{name} could not be asked",
            got=one_line(answer),
            fix="install the same lmr there (pip install -c constraints.txt lmr), or see its log",
        )
    check_facts(name, answer.facts, facts())
    check_memory(name, expected.needs, worker["resources"], worker["memory_limit"])
    for error in answer.errors:
        raise ClusterError(f"{name} cannot do its part: {error}")
    return answer


def _declared(workers: Workers) -> frozenset[str]:
    return frozenset(name for worker in workers.values() for name in worker["resources"])


def _lacking(
    steps: Iterable[Step], workers: Workers, declared: Container[str]
) -> tuple[str, Mapping[str, float]] | None:
    """Return the first step that none of these workers can do, and what it asks of one; None if all have."""
    for step in steps:
        asked = step.asked(declared)
        if not any(_has(worker, asked) for worker in workers.values()):
            return step.name, asked
    return None


def _has(worker: Mapping[str, Any], asked: Mapping[str, float]) -> bool:
    return all(worker["resources"].get(name, 0) >= amount for name, amount in asked.items())


def _nobody_for(
    step: str, asked: Mapping[str, float], workers: Workers, bad: Mapping[str, LmrError]
) -> LmrError:
    """Return the error for a step that nobody can do: why the first one does not pass that else could."""
    for address, error in bad.items():
        if _has(workers[address], asked):
            return error
    what = " and ".join(asked)
    declared = ", ".join(sorted(_declared(workers)))
    return ClusterError(
        f"the step {step} needs a worker with a {what or 'CPU'}",
        got=f"{len(workers)} workers that declare {declared or 'no resources'}",
        fix=f"{start_text(asked)}; or submit with --wait",
    )


def _bad_notes(bad: Mapping[str, LmrError]) -> list[str]:
    """Tell of the workers that are left out, the first of them by name."""
    notes = [left_out(error) for error in bad.values()]
    further = len(notes) - _NAMED
    return notes if further <= 1 else [*notes[:_NAMED], f"{further} further workers do not pass either"]


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
        f"workers with several threads, of which lmr uses one: {len(many)}; for all cores start them by "
        "lmr cluster worker, or dask worker --nthreads 1 --nworkers N"
    ]
