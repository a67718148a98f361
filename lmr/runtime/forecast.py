"""What a workflow takes on some machines: hours, USD, memory, disk. Only arithmetic, before anything runs.

A step's rate is the seconds that one worker takes for one unit of its `Cost.work`. Rates are measured on
other photos (`lmr measure`), and what was not measured stays unknown: no figure stands in for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lmr.errors import ClusterError
from lmr.runtime.steps import Each, Source, Step, Whole, grouped

__all__ = [
    "Forecast",
    "MachineGroup",
    "StepForecast",
    "check_fits",
    "forecast",
    "rate_of",
    "warnings_of",
    "work_of_step",
]

DISK_SHARE = 0.5
"""Of a machine's disk that unpacked files may take; see `lmr.storage.mapped`."""


@dataclass(frozen=True, kw_only=True)
class MachineGroup:
    """Machines of one type.

    Attributes
    ----------
    name
        The type.
    count
        How many machines.
    processors
        Workers that each runs where memory allows it: one per processor.
    memory_bytes, disk_bytes
        What each machine has.
    gpus
        GPUs of each. A machine with GPUs runs a worker per GPU and makes the steps that need one.
    usd_per_hour
        Price of each machine with its disk; 0 where nothing is charged.
    """

    name: str
    count: int
    processors: int
    memory_bytes: float
    disk_bytes: float
    gpus: int = 0
    usd_per_hour: float = 0.0

    def workers(self, step: Step) -> int:
        """Return how many tasks of a step each machine makes at a time."""
        able = self.gpus if _needs_gpu(step) else 0 if self.gpus else self.processors
        return min(able, int(self.memory_bytes // step.cost.peak_bytes))


@dataclass(frozen=True, kw_only=True)
class StepForecast:
    """What one step will take; steps of one name together.

    Attributes
    ----------
    name, tasks
        The step, and how many tasks it has.
    work, unit
        What all tasks work through.
    workers
        How many tasks run at a time.
    core_hours, hours
        Of all tasks together, and until the last one ends; None where the step's rate is not known.
    task_bytes, machine_bytes
        Memory of a worker at its peak; and of the machine whose workers hold most, without mapped files.
    memory_share
        What workers and mapped files take of a machine's memory, where it is tightest; above 1, mapped files
        do not stay in memory.
    mapped_bytes
        Files that each machine unpacks on its disk.
    read_bytes, written_bytes
        What all tasks and machines fetch from storage, and what they store.
    limit
        What keeps the step from being quicker: "tasks", "memory", "processors", or "one task".
    """

    name: str
    tasks: int
    work: float
    unit: str
    workers: int
    core_hours: float | None
    hours: float | None
    task_bytes: float
    machine_bytes: float
    memory_share: float
    mapped_bytes: float
    read_bytes: float
    written_bytes: float
    limit: str


@dataclass(frozen=True)
class Forecast:
    """What all steps will take, one after another.

    Attributes
    ----------
    steps
        In the order in which they are made.
    groups
        On which machines.
    """

    steps: tuple[StepForecast, ...]
    groups: tuple[MachineGroup, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The steps whose rates are not known."""
        return tuple(step.name for step in self.steps if step.hours is None)

    @property
    def hours(self) -> float:
        """Hours of the steps whose rates are known."""
        return sum(step.hours or 0.0 for step in self.steps)

    @property
    def core_hours(self) -> float:
        """Hours of all their tasks, one after another."""
        return sum(step.core_hours or 0.0 for step in self.steps)

    @property
    def usd_per_hour(self) -> float:
        """Price of all machines."""
        return sum(group.usd_per_hour * group.count for group in self.groups)

    @property
    def usd(self) -> float:
        """Price of the hours, where all machines stay until the end."""
        return self.hours * self.usd_per_hour

    @property
    def bottleneck(self) -> StepForecast | None:
        """The step that takes longest; None where no rate is known."""
        known = [step for step in self.steps if step.hours]
        return max(known, key=lambda step: step.hours or 0.0, default=None)


def forecast(
    steps: Iterable[Step],
    rates: Mapping[str, float],
    groups: Sequence[MachineGroup],
    *,
    speed: float = 1.0,
) -> Forecast:
    """Return what steps will take on some machines.

    Parameters
    ----------
    steps
        The steps, inputs before users.
    rates
        Seconds per unit of work by the name of the step, as one worker takes them.
    groups
        The machines.
    speed
        Of a worker there, where one of those that were measured has 1.

    Notes
    -----
    Steps are taken one after another, and every task of a step as long as their mean. Steps that run side by
    side end sooner. A step whose tasks differ much ends later.
    """
    found = tuple(_of_step(source, rates, groups, speed) for source in grouped(steps))
    return Forecast(found, tuple(groups))


def rate_of(name: str, rates: Mapping[str, float]) -> float | None:
    """Return a step's rate: its own, else that of the same step of the gallery; None where there is none."""
    return rates.get(name, rates.get(name.removesuffix("_queries")))


def work_of_step(step: Step) -> float:
    """Return how many units a step works through: what it states, else its shards."""
    return step.cost.work or float(step.shards)


def check_fits(steps: Iterable[Step], groups: Sequence[MachineGroup]) -> None:
    """Refuse machines of which none can make a task of some step.

    Raises
    ------
    ClusterError
        If a task needs more memory than each machine has, or a GPU where none has one.
    """
    for step in steps:
        if any(group.count and group.workers(step) for group in groups):
            continue
        kind = "GPU" if _needs_gpu(step) else "CPU"
        able = [g for g in groups if g.count and (bool(g.gpus) == _needs_gpu(step))]
        if not able:
            raise ClusterError(
                f"no machine can make the step {step.name}: it needs a {kind}",
                got=", ".join(f"{g.count} x {g.name}" for g in groups) or "no machine",
                fix=f"add machines with a {kind} to --machines",
            )
        largest = max(able, key=lambda g: g.memory_bytes)
        raise ClusterError(
            f"a task of {step.name} does not fit any of these machines",
            got=f"{step.cost.peak_bytes / 1e9:.1f} GB, and {largest.name} has "
            f"{largest.memory_bytes / 1e9:.1f} GB",
            fix="give a machine with more memory, or put fewer photos into a shard "
            "(--set ingest.photos_per_shard=128)",
        )


def warnings_of(found: Forecast, *, storage_bytes_per_second: float | None = None) -> list[str]:
    """Return what may go wrong on these machines, a sentence each.

    Parameters
    ----------
    found
        From `forecast`.
    storage_bytes_per_second
        What the storage delivers to all machines together; None: not known, and not judged.
    """
    told = []
    disk = min((g.disk_bytes for g in found.groups), default=math.inf)
    mapped = sum(step.mapped_bytes for step in found.steps)
    largest = max(found.steps, key=lambda step: step.mapped_bytes, default=None)
    if largest and largest.mapped_bytes > DISK_SHARE * disk:
        told.append(
            f"{largest.name} unpacks {largest.mapped_bytes / 1e9:.0f} GB on each machine, and unpacked files "
            f"may take half of a disk of {disk / 1e9:.0f} GB: give machines larger disks"
        )
    elif mapped > DISK_SHARE * disk:
        told.append(
            f"all steps together unpack {mapped / 1e9:.0f} GB on each machine: the oldest files make way, "
            "which costs no time unless a step is made again"
        )
    for step in found.steps:
        if step.mapped_bytes and step.memory_share > 1:
            told.append(
                f"{step.name} maps {step.mapped_bytes / 1e9:.0f} GB beside {step.machine_bytes / 1e9:.0f} GB "
                f"of its workers, which is {step.memory_share:.1f} times a machine's memory: parts of the "
                "files are read from the disk again"
            )
        if storage_bytes_per_second and step.hours:
            asked = (step.read_bytes + step.written_bytes) / (step.hours * 3600)
            if asked > storage_bytes_per_second:
                told.append(
                    f"{step.name} asks storage for {asked / 1e9:.1f} GB/s, and it delivers "
                    f"{storage_bytes_per_second / 1e9:.1f}: the step takes "
                    f"{asked / storage_bytes_per_second:.1f} times as long"
                )
    return told


def _of_step(
    source: Source, rates: Mapping[str, float], groups: Sequence[MachineGroup], speed: float
) -> StepForecast:
    first = max(source.parts, key=lambda step: step.cost.peak_bytes)
    work = sum(work_of_step(step) for step in source.parts)
    each = {group.name: group.workers(first) for group in groups}
    workers = sum(each[group.name] * group.count for group in groups)
    rate = rate_of(first.name, rates)
    seconds = None if rate is None else rate * work / speed
    hours = None
    if seconds is not None and workers:
        rounds = math.ceil(source.shards / workers)
        hours = rounds * seconds / source.shards / 3600
    mapped = max(step.cost.mapped_bytes for step in source.parts)
    able = [(g, each[g.name]) for g in groups if g.count and each[g.name]]
    busy = [(g, min(workers_, source.shards) * first.cost.peak_bytes) for g, workers_ in able]
    machines = sum(group.count for group, _ in able)
    return StepForecast(
        name=first.name,
        tasks=source.shards,
        work=work,
        unit=first.cost.unit,
        workers=workers,
        core_hours=None if seconds is None else seconds / 3600,
        hours=hours,
        task_bytes=first.cost.peak_bytes,
        machine_bytes=max((held for _, held in busy), default=0.0),
        memory_share=max(((held + mapped) / g.memory_bytes for g, held in busy), default=0.0),
        mapped_bytes=mapped,
        read_bytes=sum(_read_bytes(step, min(machines, step.shards)) for step in source.parts),
        written_bytes=source.rows * source.bytes_per_row,
        limit=_limit(source, first, groups, workers),
    )


def _read_bytes(step: Step, machines: int) -> float:
    """Return what is fetched for a step: a `Whole` input once per machine unless it is shared out."""
    total = 0.0
    for source in step.inputs.values():
        if isinstance(source, Each | Whole):
            size = source.step.rows * source.step.bytes_per_row
            total += size * (machines if isinstance(source, Whole) and not source.shared_out else 1)
    return total


def _limit(source: Source, step: Step, groups: Sequence[MachineGroup], workers: int) -> str:
    if source.shards == 1:
        return "one task"
    if source.shards < workers:
        return "tasks"
    able = (g.gpus if _needs_gpu(step) else 0 if g.gpus else g.processors for g in groups)
    return "memory" if workers < sum(a * g.count for a, g in zip(able, groups, strict=True)) else "processors"


def _needs_gpu(step: Step) -> bool:
    return "GPU" in step.resources
