"""Steps: settings, a shard function and its inputs; and how one shard of a step is made.

A step is a declaration and knows nothing of Dask. Its shard function takes the shard's number, the settings
and the datasets that it reads, and returns the shard's rows; everything else (looking at storage first,
counting attempts, writing whole, measuring) happens in `make_shard`, the same for every step.
"""

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, Protocol

import psutil
import pyarrow as pa

from lmr.errors import LmrError
from lmr.runtime import attempts, storage
from lmr.runtime.limits import limit_threads
from lmr.runtime.settings import digest
from lmr.runtime.shards import Dataset
from lmr.runtime.tables import note_of

__all__ = [
    "PROCESS_BYTES",
    "Each",
    "Job",
    "Receipt",
    "Source",
    "Step",
    "Summary",
    "Whole",
    "add_up",
    "closure",
    "make_shard",
    "summarise",
]

PROCESS_BYTES = 400_000_000
"""What a worker process holds before it makes a shard: Python, the libraries of a step, no compiler."""


class Source(Protocol):
    """What a step reads of other steps: one step, or several joined (`lmr.runtime.joined`)."""

    @property
    def parts(self) -> tuple["Step", ...]:
        """The steps that make it; their shards are numbered through."""
        ...

    @property
    def fingerprint(self) -> str:
        """12 hex digits that stand for what it holds."""
        ...

    @property
    def shards(self) -> int:
        """How many shards it has."""
        ...

    @property
    def rows(self) -> int:
        """Expected number of its rows."""
        ...

    @property
    def bytes_per_row(self) -> float:
        """Expected size of a row."""
        ...

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A step of a workflow: what makes the shards of one dataset.

    Attributes
    ----------
    name
        Names the step's bar on the dashboard: letters and `_` only.
    folder
        Where its shards lie below the run's folder; the fingerprint is added as last part.
    make
        A module-level function `make(shard, settings, **datasets, **placement) -> pyarrow.Table`.
    settings
        Its settings, a frozen dataclass.
    inputs
        The datasets it reads, by the name of `make`'s argument: `Each(step)`, `Whole(step)` or `Given(...)`.
    shards
        How many shards it makes.
    rows, bytes_per_row
        Expected size of the whole, for the plan.
    peak_bytes
        Expected peak memory of one of its tasks: the process with its libraries (`PROCESS_BYTES`) and what
        the task holds, mapped files not counted. For the plan; 0: not known.
    revision
        Raised by hand when the code changes what the shards hold.
    weights
        Digest of the weights that it uses, if any.
    resources
        What a worker must have for it, in Dask's terms: `{"CPU": 1}` or `{"GPU": 1}`.
    placement
        Arguments of `make` that do not change the result (a device, a path): no part of the fingerprint.
    check
        Called before the first task on a worker of each host that makes shards of this step; raises an
        `LmrError` when something is not there that the step needs. Must be picklable.
    """

    name: str
    folder: str
    make: Callable[..., pa.Table]
    settings: Any
    inputs: Mapping[str, "Each | Whole | Given"]
    shards: int
    rows: int = 0
    bytes_per_row: float = 0.0
    peak_bytes: float = 0.0
    revision: int = 1
    weights: str = ""
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1})
    placement: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] | None = None

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that change with the settings, the code revision, the weights and every input."""
        return digest(
            {
                "step": self.name,
                "revision": self.revision,
                "settings": self.settings,
                "weights": self.weights,
                "shards": self.shards,
                "inputs": {name: source.fingerprint for name, source in self.inputs.items()},
            }
        )

    @property
    def parts(self) -> tuple["Step", ...]:
        """The step itself; see `Source`."""
        return (self,)

    def dataset(self, root: str) -> Dataset:
        """Return the dataset that this step makes below a run's folder."""
        url = storage.join(root, self.folder, self.fingerprint)
        return Dataset(url, self.name, self.fingerprint, self.shards)


@dataclass(frozen=True)
class Each:
    """An input of which shard i needs shard i only."""

    step: Source

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the step that makes it."""
        return self.step.fingerprint

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        return self.step.dataset(root)


@dataclass(frozen=True)
class Whole:
    """An input of which every shard needs all shards."""

    step: Source

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the step that makes it."""
        return self.step.fingerprint

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        return self.step.dataset(root)


@dataclass(frozen=True, kw_only=True)
class Given:
    """An input of one shard that is stored before the run begins: a list of photos, a solution.

    Attributes
    ----------
    name, folder
        As of a step.
    rows
        What it holds.
    fingerprint
        Digest of what it holds.
    row_group_rows
        Rows per row group, for readers that want a part.
    """

    name: str
    folder: str
    rows: pa.Table = field(repr=False)
    fingerprint: str
    row_group_rows: int | None = None

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        url = storage.join(root, self.folder, self.fingerprint)
        return Dataset(url, self.name, self.fingerprint, 1)

    def store(self, root: str) -> None:
        """Write it, unless it is there."""
        dataset = self.dataset(root)
        if not storage.exists(dataset.shard_url(0)):
            dataset.write(0, self.rows, row_group_rows=self.row_group_rows)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a task must know to make a shard: small, and the same object for all shards of a step."""

    output: Dataset
    make: Callable[..., pa.Table]
    settings: Any
    inputs: Mapping[str, Dataset]
    placement: Mapping[str, Any]
    failures: str
    """Folder for the tracebacks of unforeseen errors."""

    @classmethod
    def of(cls, step: Step, root: str) -> "Job":
        """Return the job of a step for a run's folder."""
        inputs = {name: source.dataset(root) for name, source in step.inputs.items()}
        return cls(
            output=step.dataset(root),
            make=step.make,
            settings=step.settings,
            inputs=inputs,
            placement=step.placement,
            failures=storage.join(root, "failures"),
        )


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a task returns: tens of bytes about a shard; the shard itself is in storage."""

    step: str
    shard: int
    state: Literal["made", "found", "failed", "skipped"]
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    worker: str = ""
    error: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The receipts of a step, added up."""

    step: str
    made: int = 0
    found: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    failed: tuple[Receipt, ...] = ()
    skipped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every shard is in storage."""
        return not self.failed and not self.skipped


def summarise(step: str, found: int, receipts: Sequence[Receipt]) -> Summary:
    """Add up receipts; `found` more shards were there before the run began."""
    made = [r for r in receipts if r.state == "made"]
    return Summary(
        step=step,
        made=len(made),
        found=found + sum(r.state == "found" for r in receipts),
        rows=sum(r.rows for r in made),
        bytes=sum(r.bytes for r in made),
        seconds=sum(r.seconds for r in made),
        peak_bytes=max((r.peak_bytes for r in made), default=0),
        failed=tuple(r for r in receipts if r.state == "failed"),
        skipped=sum(r.state == "skipped" for r in receipts),
        notes=tuple(dict.fromkeys(r.note for r in made if r.note)),
    )


def add_up(summaries: Sequence[Summary]) -> list[Summary]:
    """Add up the summaries of steps of one name, the parts of a joined dataset; the order stays."""
    together: dict[str, list[Summary]] = {}
    for summary in summaries:
        together.setdefault(summary.step, []).append(summary)
    return [
        Summary(
            step=step,
            made=sum(s.made for s in some),
            found=sum(s.found for s in some),
            rows=sum(s.rows for s in some),
            bytes=sum(s.bytes for s in some),
            seconds=sum(s.seconds for s in some),
            peak_bytes=max(s.peak_bytes for s in some),
            failed=tuple(receipt for s in some for receipt in s.failed),
            skipped=sum(s.skipped for s in some),
        )
        for step, some in together.items()
    ]


def make_shard(job: Job, shard: int, *upstream: Receipt | Summary) -> Receipt:
    """Make one shard, unless storage has it; never raises for what concerns this shard alone.

    A failure becomes a receipt with the reason, and what depends on it is skipped, so that all other shards
    of the run are still finished and one account of everything reaches the user.
    """
    output = job.output
    worker = f"{socket.gethostname()}:{os.getpid()}"
    receipt = partial(Receipt, step=output.step, shard=shard, worker=worker)
    if any(isinstance(u, Summary) and not u.whole for u in upstream) or any(
        isinstance(u, Receipt) and u.state in ("failed", "skipped") for u in upstream
    ):
        return receipt(state="skipped")
    try:
        # Looking first makes resuming and re-running after a lost worker the same thing.
        if storage.exists(output.shard_url(shard)):
            return receipt(state="found", rows=int(output.facts(shard)["rows"]))
        with attempts.attempt(f"shard {output.step}/{shard:05d}"), _measured() as measure:
            rows = job.make(shard, job.settings, **job.inputs, **job.placement)
            facts = measure() | ({"note": note} if (note := note_of(rows)) else {})
            size = output.write(shard, rows, **facts)
        return receipt(state="made", rows=rows.num_rows, bytes=size, **facts)
    except LmrError as error:
        return receipt(state="failed", error=str(error))
    except Exception as error:
        where = storage.join(job.failures, f"{output.step}-{shard:05d}.txt")
        what = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        message = f"shard {output.step}/{shard:05d} failed\ngot: {what}\nfix: report it with {where}"
        try:
            storage.put(where, traceback.format_exc().encode())
        except LmrError:
            message = f"shard {output.step}/{shard:05d} failed\ngot: {what}"
        return receipt(state="failed", error=message)


@contextmanager
def _measured() -> Iterator[Callable[[], dict[str, Any]]]:
    """Measure seconds and the peak of the process's own memory (without mapped files) inside the block."""
    limit_threads()
    process, done, start = psutil.Process(), threading.Event(), time.perf_counter()

    def own_bytes() -> int:
        info = process.memory_info()
        return int(info.rss - getattr(info, "shared", 0))

    peak = own_bytes()  # a short shard may end before the sampler begins

    def sample() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, own_bytes())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield lambda: {"seconds": round(time.perf_counter() - start, 3), "peak_bytes": peak}
    finally:
        done.set()
        sampler.join()


def closure(targets: Iterable[Step]) -> list[Step]:
    """Return the targets and all that they depend on, inputs before users, each once."""
    order: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.fingerprint in order:
            return
        for source in step.inputs.values():
            if not isinstance(source, Given):
                for part in source.step.parts:
                    visit(part)
        order[step.fingerprint] = step

    for target in targets:
        visit(target)
    return list(order.values())
