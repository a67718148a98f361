"""Before the first task: do the machines agree, can they do what is asked, do they reach the storage.

One worker per host and kind is asked, so that this takes a second or two on any cluster.
"""

import asyncio
import hashlib
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import distributed

from lmr import storage
from lmr.cluster.client import workers_of
from lmr.errors import ClusterError, LmrError
from lmr.runtime.graph import Plan
from lmr.runtime.steps import Step
from lmr.shipped import sources
from lmr.versions import installed

__all__ = ["facts", "preflight"]

Workers = Mapping[str, Mapping[str, Any]]
"""Address to what the scheduler tells of a worker."""

# Results depend on these; GPU workers have more packages than others, and a laptop may have fewer.
COMPARED = (
    *("lmr", "lmr's source", "python", "dask", "distributed", "numpy", "scipy", "numba"),
    *("faiss-cpu", "opencv-python-headless", "pyarrow"),
)

_WAIT_SECONDS = 2.0
_CLOCK_SECONDS = 1.0


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
    _agree("the scheduler", _ask_scheduler(client), facts())
    steps = [part.step for part in plan if part.missing]
    workers = _staff(client, steps, wait, tell)
    _check_memory(steps, workers)
    checks = {a: _checks(steps, workers, workers[a]) for a in _one_per_host(workers)}
    folder = storage.join(plan.root, f"probes-{uuid.uuid4().hex}")
    began = time.time()
    try:
        found = _ask_workers(client, workers, checks, folder)
        ended = time.time()
        for address, one in found.items():
            _agree(f"the worker {workers[address]['name']} on {one.host}", one.facts, facts())
        for one in found.values():
            for error in one.errors:
                raise ClusterError(f"a worker on {one.host} cannot do its part: {error}")
        _check_shared(found, folder, plan.root)
    finally:
        storage.delete(folder)
    return (*_clocks(found.values(), began, ended), *_threads(workers))


@cache
def _source() -> str:
    """Return a digest of this installation of lmr: versions alone do not tell a changed checkout."""
    total = hashlib.sha256()
    for name, path in sources().items():
        if name.startswith("lmr/") and path.suffix == ".py":
            total.update(f"{name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def facts() -> dict[str, str | None]:
    """Return what must be the same on all machines of a cluster: versions, and the digest of lmr's source."""
    return {**installed(), "lmr's source": _source()}


def _ask_scheduler(client: distributed.Client) -> Mapping[str, str | None]:
    try:
        answer: Mapping[str, str | None] = client.run_on_scheduler(facts)
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            "the scheduler has no lmr, or another one",
            got=f"{type(error).__name__}: {error}",
            fix="install the same lmr there: pip install -c constraints.txt lmr",
        ) from error
    return answer


def _ask_workers(
    client: distributed.Client,
    workers: Workers,
    checks: Mapping[str, Iterable[Callable[[], None]]],
    folder: str,
) -> Mapping[str, _Found]:
    """Have one worker per host look around; `checks` says which, and what for."""
    found = {}
    answers = client.run(_look, checks, folder, workers=list(checks), on_error="return")
    for address, answer in answers.items():
        if not isinstance(answer, _Found):
            # Dask hands on what it could not unpickle there as a text.
            raise ClusterError(
                f"the worker {workers[address]['name']} on {workers[address]['host']} could not be asked",
                got=" ".join(f"{type(answer).__name__}: {answer}".split())[:300],
                fix="install the same lmr there (pip install -c constraints.txt lmr), or see its log",
            )
        found[address] = answer
    return found


def _agree(who: str, theirs: Mapping[str, str | None], ours: Mapping[str, str | None]) -> None:
    for name in COMPARED:
        there, here = theirs.get(name), ours.get(name)
        if name == "python":
            # A bugfix release of Python changes no result and no pickle.
            there, here = (v and v.rsplit(".", 1)[0] for v in (there, here))
        if there != here:
            raise ClusterError(
                f"{who} runs another {name} than this machine",
                got=f"{there or 'none'} there, {here or 'none'} here",
                fix="install the same versions everywhere: pip install -c constraints.txt lmr",
            )


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
    """Return the resources that a step asks for; CPU is not asked for where no worker declares it."""
    declared = {name for worker in workers.values() for name in worker["resources"]}
    return {name: n for name, n in step.resources.items() if name != "CPU" or "CPU" in declared}


def _able(step: Step, workers: Workers) -> list[str]:
    """Return the addresses of the workers that a step's tasks may run on."""
    asked = _asked(step, workers).items()
    return [a for a, w in workers.items() if all(w["resources"].get(name, 0) >= n for name, n in asked)]


def _check_memory(steps: Iterable[Step], workers: Workers) -> None:
    for step in steps:
        for address in _able(step, workers):
            limit = workers[address]["memory_limit"]
            need = step.cost.peak_bytes
            if limit and need > limit:
                raise ClusterError(
                    f"the worker {workers[address]['name']} is too small for the step {step.name}",
                    got=f"{limit / 1e9:.1f} GB; a task is expected to take {need / 1e9:.1f} GB",
                    fix="start fewer workers per machine with more memory each, or make shards smaller",
                )


def _one_per_host(workers: Workers) -> list[str]:
    # Workers of other resources may be another installation on the same host.
    kinds = {(w["host"], tuple(sorted(w["resources"]))): address for address, w in workers.items()}
    return list(kinds.values())


def _checks(steps: Iterable[Step], workers: Workers, worker: Mapping[str, Any]) -> list[Callable[[], None]]:
    """Return what steps want to be looked at on a worker of this kind."""
    mine = [
        step
        for step in steps
        if step.check and worker["id"] in {workers[a]["id"] for a in _able(step, workers)}
    ]
    return [step.check for step in mine if step.check]


async def _look(
    checks: Mapping[str, Iterable[Callable[[], None]]], folder: str, dask_worker: distributed.Worker
) -> _Found:
    """Look around on a worker."""
    return await asyncio.to_thread(_look_around, checks[dask_worker.address], folder, dask_worker.address)


def _look_around(checks: Iterable[Callable[[], None]], folder: str, address: str) -> _Found:
    clock, host, errors = time.time(), socket.gethostname(), []
    probe = storage.join(folder, hashlib.sha256(address.encode()).hexdigest()[:16])
    for check in (lambda: storage.put(probe, host.encode()), *checks):
        try:
            check()
        except LmrError as error:
            errors.append(str(error))
    return _Found(host=host, facts=facts(), clock=clock, errors=tuple(errors))


def _check_shared(found: Mapping[str, _Found], folder: str, root: str) -> None:
    """Refuse workers whose storage is another one than this machine's, of the same name."""
    seen = storage.folder_sizes(folder)
    for address, one in found.items():
        if hashlib.sha256(address.encode()).hexdigest()[:16] not in seen:
            raise ClusterError(
                f"{root} is another folder on {one.host} than here",
                got="a file written there is not seen here",
                fix="choose an --out that all machines share: a mounted folder, or s3://bucket/prefix",
            )


def _clocks(found: Iterable[_Found], began: float, ended: float) -> list[str]:
    """Note clocks that are off by more than the call can explain; S3 refuses requests 15 minutes off."""
    notes = []
    for one in found:
        off = one.clock - (began + ended) / 2
        if abs(off) > (ended - began) / 2 + _CLOCK_SECONDS:
            beside = "ahead of" if off > 0 else "behind"
            notes.append(f"the clock of {one.host} is {abs(off):.0f} s {beside} this one")
    return notes


def _threads(workers: Workers) -> list[str]:
    many = [w["name"] for w in workers.values() if w["nthreads"] > 1]
    if not many:
        return []
    return [
        f"workers with several threads, of which lmr uses one: {len(many)}; for all cores: "
        "dask worker --nthreads 1 --nworkers N"
    ]
