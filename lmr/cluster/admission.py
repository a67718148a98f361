"""Which workers may make a run's shards: what a run expects of a worker, and how a worker is judged.

Every worker process is judged for every run, whenever it joins: before the first task by `preflight`, and
at its hello by the scheduler (`lmr.scheduler.admission`). A worker that passes is granted the run's own Dask
resource, and all tasks of the run ask for that resource. So Dask itself cannot assign a task to a worker
that was not judged, however the two race.
"""

import hashlib
import pickle
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from distributed.protocol.pickle import dumps

from lmr import storage
from lmr.errors import ClusterError, LmrError, StorageError, one_line
from lmr.runtime.graph import Plan
from lmr.runtime.steps import Step
from lmr.shipped import source_digest
from lmr.versions import installed

__all__ = [
    "AMPLE",
    "Expectations",
    "Need",
    "as_one_line",
    "check_facts",
    "check_memory",
    "expectations_of",
    "facts",
    "grant_of",
    "is_grant",
    "look_around",
]

COMPARED = (
    *("lmr", "lmr's source", "python", "dask", "distributed", "numpy", "scipy", "numba"),
    *("faiss-cpu", "opencv-python-headless", "pyarrow"),
)
"""Results depend on these; GPU workers have more packages than others, and a laptop may have fewer."""

AMPLE = 1000.0
"""How much of a run's resource a worker is granted; a task takes 1, so that it never limits."""

_GRANT = "lmr-run "


def grant_of(run: str) -> str:
    """Return the name of the resource that workers of a run are granted."""
    return _GRANT + run


def is_grant(resource: str) -> bool:
    """Tell whether a resource is a run's grant, and none of a machine."""
    return resource.startswith(_GRANT)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one step asks of the workers that its tasks may run on.

    Attributes
    ----------
    step
        The step's name.
    resources
        The resources that its tasks ask for.
    peak_bytes
        Memory that a task is expected to take at most.
    check
        The pickled check of what the step needs there; empty for none. Only workers unpickle it.
    """

    step: str
    resources: Mapping[str, float]
    peak_bytes: float = 0.0
    check: bytes = b""

    def concerns(self, resources: Mapping[str, float]) -> bool:
        """Tell whether the step's tasks may run on a worker that declares these resources."""
        return all(resources.get(name, 0) >= amount for name, amount in self.resources.items())


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """What a run expects of every worker that takes part in it.

    Attributes
    ----------
    root
        The run's folder.
    landmark
        Name of a file in that folder, which the submitting machine has written.
    content
        Something that is written in that file; a worker that does not find it has other storage.
    facts
        What is installed on the submitting machine.
    needs
        What the steps ask for.
    """

    root: str
    landmark: str
    content: str
    facts: Mapping[str, str | None]
    needs: tuple[Need, ...]


def expectations_of(plan: Plan, landmark: str, content: str, declared: Iterable[str]) -> Expectations:
    """Return what a plan expects of workers, some of whom declare these resources."""
    steps = [part.step for part in plan if part.missing]
    return Expectations(
        root=plan.root,
        landmark=landmark,
        content=content,
        facts=facts(),
        needs=tuple(_need(step, frozenset(declared)) for step in steps),
    )


def _need(step: Step, declared: frozenset[str]) -> Need:
    check = bytes(dumps(step.check)) if step.check else b""
    asked = step.asked(declared)
    return Need(step=step.name, resources=asked, peak_bytes=step.cost.peak_bytes, check=check)


@cache
def facts() -> dict[str, str | None]:
    """Return what must be the same on all machines of a cluster: versions, and the digest of lmr's source."""
    return {**installed(), "lmr's source": source_digest()}


def check_facts(who: str, theirs: Mapping[str, str | None], ours: Mapping[str, str | None]) -> None:
    """Refuse a machine that has other versions installed.

    Raises
    ------
    ClusterError
        If so; it names the first difference and both sides.
    """
    for name in COMPARED:
        there, here = theirs.get(name), ours.get(name)
        if name == "python":
            # A bugfix release of Python changes no result and no pickle.
            there, here = (v and v.rsplit(".", 1)[0] for v in (there, here))
        if there != here:
            raise ClusterError(
                f"{who} runs another {name} than the machine that submitted the run",
                got=f"{there or 'none'} there, {here or 'none'} here",
                fix="install the same lmr there (pip install -c constraints.txt lmr) and start it again",
            )


def check_memory(
    who: str, needs: Iterable[Need], resources: Mapping[str, float], limit_bytes: float | None
) -> None:
    """Refuse a worker whose memory limit is below what a task of one of its steps is expected to take.

    Raises
    ------
    ClusterError
        If so.
    """
    for need in needs:
        if limit_bytes and need.concerns(resources) and need.peak_bytes > limit_bytes:
            raise ClusterError(
                f"{who} is too small for the step {need.step}",
                got=f"{limit_bytes / 1e9:.1f} GB; a task is expected to take {need.peak_bytes / 1e9:.1f} GB",
                fix="start fewer workers per machine with more memory each, or make shards smaller",
            )


def look_around(expected: Expectations, resources: Mapping[str, float], address: str) -> list[str]:
    """Look around on a worker: the storage, and what steps need there; return what is wrong."""
    errors = []
    try:
        _check_storage(expected, address)
    except LmrError as error:
        errors.append(str(error))
    for need in expected.needs:
        if need.check and need.concerns(resources):
            try:
                pickle.loads(need.check)()
            except LmrError as error:
                errors.append(str(error))
            except Exception as error:
                # A module that is not there, for one: the check itself could not be read.
                errors.append(
                    str(
                        ClusterError(
                            f"the check of the step {need.step} could not be made",
                            got=one_line(error),
                            fix="install the same packages there as where the run was submitted",
                        )
                    )
                )
    return errors


def _check_storage(expected: Expectations, address: str) -> None:
    """Read what the submitter wrote, write a probe and remove it: who makes a file removes it."""
    landmark = storage.join(expected.root, expected.landmark)
    try:
        found = expected.content in storage.read(landmark).decode(errors="replace")
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        found = False
    if not found:
        raise ClusterError(
            f"{expected.root} is another folder on {socket.gethostname()} than where the run was submitted",
            got=f"the file {expected.landmark} that was written there is not seen here",
            fix="choose an --out that all machines share: a mounted folder, or s3://bucket/prefix",
        )
    # Beside the landmark, so that no folder is left.
    probe = storage.join(expected.root, f"probe-{_short(address)}-{_short(expected.content)}")
    storage.put(probe, socket.gethostname().encode())
    storage.delete(probe)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def as_one_line(error: Any) -> str:
    """Return an error of what, got, fix as one line, for a log or a list of notices."""
    return "; ".join(part for part in str(error).splitlines() if part.strip())
