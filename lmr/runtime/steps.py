"""Steps: settings, a shard function and its inputs.

A step is a declaration and knows nothing of Dask. Its shard function takes the shard's number, the settings
and the datasets that it reads, and returns the shard's rows; everything else (looking at storage first,
counting attempts, writing whole, measuring) happens in `lmr.runtime.tasks`, the same for every step.

Steps of one kind can be read as one dataset (`Concat`): the generations of a gallery that grows. What each
part holds does not depend on the others, so adding a part leaves the shards of all others valid.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import pyarrow as pa

from lmr import storage
from lmr.runtime.settings import digest
from lmr.storage.datasets import Dataset, JoinedDataset

__all__ = [
    "PROCESS_BYTES",
    "SHARD_BYTES",
    "Concat",
    "Cost",
    "Each",
    "Given",
    "Role",
    "Source",
    "Step",
    "Whole",
    "closure",
    "concat",
    "grouped",
    "of_role",
    "per_part",
]

PROCESS_BYTES = 650_000_000
"""What a worker process holds besides a shard: Python, the libraries of all steps that it has made shards
of, and the compiler of some of them (docs/results/rehearsal.md)."""

SHARD_BYTES = 20_000
"""What a shard takes in storage besides its rows: Parquet's own description of it."""

Role = Literal["gallery", "queries"]
"""Which side of the search a dataset is of."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a step is expected to take, stated before it runs; upper bounds, but for `work`.

    Attributes
    ----------
    rows
        Rows of the whole step.
    bytes_per_row
        Size of a row in storage.
    task_bytes
        Memory that one task holds at its peak besides the process itself. Mapped files are not counted, since
        all processes of a machine share them.
    work
        How many units the whole step works through; time is this times a measured rate.
    unit
        What a unit is: "photo", "pair", "feature", "node", "vector".
    mapped_bytes
        Files that a machine unpacks for the step and all its processes map: disk, and page cache.
    """

    rows: int
    bytes_per_row: float
    task_bytes: float
    work: float
    unit: str
    mapped_bytes: float = 0.0

    @property
    def peak_bytes(self) -> float:
        """Memory of a process at the peak of a task: `PROCESS_BYTES` and what the task holds."""
        return PROCESS_BYTES + self.task_bytes


class Source(Protocol):
    """What a step reads of other steps: one step, or several read as one (`Concat`)."""

    @property
    def parts(self) -> tuple["Step", ...]:
        """The steps that make it; their shards are numbered through."""
        ...

    @property
    def fingerprint(self) -> str:
        """12 hex digits that stand for what it holds."""
        ...

    @property
    def role(self) -> Role | None:
        """Whether it is of the gallery or of the queries; None where it is of both."""
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
        A module-level function `make(shard, settings, **datasets, **implied, **placement) -> pyarrow.Table`.
    settings
        Its settings, a frozen dataclass or a `Part` of one.
    inputs
        The datasets it reads, by the name of `make`'s argument: `Each(step)`, `Whole(step)` or `Given(...)`.
    shards
        How many shards it makes.
    cost
        What it is expected to take: the plan shows it, and preflight refuses workers that are too small.
    role
        Whether it is of the gallery or of the queries; None where it is of both.
    revision
        Raised by hand when the code changes what the shards hold.
    weights
        Digest of the weights that it uses, if any.
    resources
        What a worker must have for it, in Dask's terms: `{"CPU": 1}` or `{"GPU": 1}`.
    prefers
        What is asked for in its place where some worker declares it: what the step can use and does without.
    implied
        Arguments of `make` that follow from its inputs (the number of the gallery's photos): the inputs'
        fingerprints stand for them, so they are no part of the fingerprint.
    placement
        Arguments of `make` that never change what a shard holds (a device, a path): no part of the
        fingerprint.
    takes_over
        Whether `make` has an argument `earlier`, an `lmr.storage.earlier.Earlier`: what the step has made of
        other inputs, some of which may be what it would make now. No part of the fingerprint.
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
    cost: Cost
    role: Role | None = None
    revision: int = 1
    weights: str = ""
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 1})
    prefers: Mapping[str, float] = field(default_factory=dict)
    implied: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    takes_over: bool = False
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

    def asked(self, declared: Container[str]) -> dict[str, float]:
        """Return what its tasks ask of a worker, where workers declare some resources.

        Where none declares `CPU`, it is not asked for: such a cluster was started without `--resources`, and
        every worker has a CPU.
        """
        if self.prefers and all(name in declared for name in self.prefers):
            return dict(self.prefers)
        return {name: n for name, n in self.resources.items() if name != "CPU" or name in declared}

    @property
    def parts(self) -> tuple["Step", ...]:
        """The step itself; see `Source`."""
        return (self,)

    @property
    def rows(self) -> int:
        """Expected number of its rows."""
        return self.cost.rows

    @property
    def bytes_per_row(self) -> float:
        """Expected size of a row."""
        return self.cost.bytes_per_row

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
    """An input of which every shard needs all shards.

    Attributes
    ----------
    step
        What makes it.
    shared_out
        Each of its shards is read by one task, whichever that is: a task takes its part of them.
    """

    step: Source
    shared_out: bool = False

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
        if not dataset.has(0):
            dataset.write(0, self.rows, row_group_rows=self.row_group_rows)


@dataclass(frozen=True, eq=False)
class Concat:
    """Several steps read as one; a `Source`.

    Attributes
    ----------
    parts
        The steps, in order.
    """

    parts: tuple[Step, ...]

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that stand for the parts in their order."""
        return digest([part.fingerprint for part in self.parts])

    @property
    def role(self) -> Role | None:
        """Whether the parts are of the gallery or of the queries."""
        return self.parts[0].role

    @cached_property
    def shards(self) -> int:
        """How many shards all parts have."""
        return sum(part.shards for part in self.parts)

    @property
    def rows(self) -> int:
        """Expected rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes_per_row(self) -> float:
        """Expected size of a row, over all parts."""
        return sum(part.rows * part.bytes_per_row for part in self.parts) / max(self.rows, 1)

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        first = self.parts[0]
        parts = tuple(part.dataset(root) for part in self.parts)
        url = storage.join(root, first.folder)
        return JoinedDataset(url, first.name, self.fingerprint, self.shards, parts)


def of_role(name: str, source: Source) -> str:
    """Return the name of a step that is declared once for the gallery and once for the queries."""
    return name if source.role == "gallery" else f"{name}_{source.role}"


def concat(steps: Iterable[Step]) -> Source:
    """Return steps as one source; one step alone stays itself."""
    parts = tuple(steps)
    return parts[0] if len(parts) == 1 else Concat(parts)


def grouped(steps: Iterable[Step]) -> list[Source]:
    """Join the steps that have one name, for those who count and show; the order stays."""
    together: dict[str, list[Step]] = {}
    for step in steps:
        together.setdefault(step.name, []).append(step)
    return [concat(some) for some in together.values()]


def per_part(declare: Callable[..., Step], *sources: Source) -> Source:
    """Declare a step for each part of some sources, and join them.

    Parameters
    ----------
    declare
        Takes a part of each source and returns the step that reads these.
    *sources
        Sources of the same number of parts.
    """
    return concat(declare(*parts) for parts in zip(*(source.parts for source in sources), strict=True))


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
