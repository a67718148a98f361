"""One task of a step in a process of its own, under a worker's memory limit: what it takes."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from lmr.runtime.steps import Each, Given, Step, Whole
from lmr.runtime.tasks import ShardTask, _measured, make_shard
from lmr.runtime.threads import limit_threads, malloc_environment, thread_environment
from lmr.storage import mapped
from lmr.storage.datasets import Dataset, JoinedDataset

__all__ = [
    "AGAIN_IF_SMALL_SECONDS",
    "AGAIN_SECONDS",
    "Copies",
    "Took",
    "apart",
    "at_units",
    "linked",
    "task_of",
]

AGAIN_SECONDS = 30.0
"""A task that takes less is made twice, and its second time counts: the first one loads and compiles."""
AGAIN_IF_SMALL_SECONDS = 1.0
"""Where it is only to be seen that all runs."""


@dataclass
class Took:
    """What the tasks of a step took."""

    step: str
    unit: str
    units: float
    """Of the work of all tasks that were made."""
    stated_bytes: float
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    read_bytes: float = 0.0
    """What a task fetches of its own shards."""
    mapped_bytes: float = 0.0
    """What a machine fetches once, for all tasks."""
    written_bytes: float = 0.0
    unpacking_seconds: float = 0.0
    """Processor seconds for what the first task of a machine unpacks for all others; in no other figure."""

    @property
    def cpu_per_unit(self) -> float:
        """Processor seconds for a unit of the work."""
        return sum(self.cpu_seconds) / self.units

    @property
    def figures(self) -> dict[str, Any]:
        """What is printed in the line of JSON."""
        middle = {f"median_{name}": statistics.median(getattr(self, name)) for name in _TIMES}
        largest = {f"largest_{name}": max(getattr(self, name)) for name in _TIMES}
        plain = {name: value for name, value in asdict(self).items() if name not in (*_TIMES, "step")}
        return {"tasks": len(self.seconds), **middle, **largest, "cpu_per_unit": self.cpu_per_unit, **plain}


_TIMES = ("seconds", "cpu_seconds")


def at_units(few: Took, more: Took, units: float) -> Took:
    """Return what a task of so many units takes, by the line through a task of few and one of more units."""
    share = (units - few.units) / (more.units - few.units)
    lines = {
        name: [one + (other - one) * share for one, other in zip(*pair, strict=True)]
        for name in _TIMES
        if (pair := (getattr(few, name), getattr(more, name)))
    }
    return replace(more, units=units, **lines)


def linked(dataset: Dataset, times: int) -> Dataset:
    """Return a dataset that reads the shards of another one so many times, one after the other."""
    fingerprint = f"{dataset.fingerprint}x{times}"
    return JoinedDataset(
        dataset.url, dataset.step, fingerprint, dataset.shards * times, parts=(dataset,) * times
    )


@dataclass(frozen=True)
class Copies(Dataset):
    """A dataset of which each shard reads the first one of another."""

    of: Dataset

    def present(self) -> dict[int, int]:
        """Return the size of that shard for each."""
        return dict.fromkeys(range(self.shards), self.of.present()[0])

    def read(self, shard: int, columns: Any = None, *, rows: range | None = None) -> pa.Table:
        """Read that shard."""
        return self.of.read(0, columns, rows=rows)

    def read_groups(self, shard: int, columns: Any = None) -> Iterator[pa.Table]:
        """Read that shard in pieces."""
        return self.of.read_groups(0, columns)

    def facts(self, shard: int) -> dict[str, Any]:
        """Return what is said of that shard."""
        return self.of.facts(0)


def task_of(step: Step, root: str, changed: Mapping[str, Any]) -> ShardTask:
    """Return the task of a step with some of its datasets, or arguments, in the place of its own."""
    inputs = {name: changed.get(name) or source.dataset(root) for name, source in step.inputs.items()}
    for name, source in step.inputs.items():
        if isinstance(source, Given) and name not in changed:
            source.store(root)
    arguments = {**step.implied, **step.placement}
    arguments |= {name: value for name, value in changed.items() if name in arguments}
    own = ShardTask.of(step, root)
    return ShardTask(
        output=own.output,
        make=step.make,
        settings=step.settings,
        inputs=inputs,
        arguments=arguments,
        failures=own.failures,
    )


def apart(
    step: Step,
    root: str,
    shards: tuple[int, ...],
    limit_bytes: float,
    *,
    units: float | None = None,
    work: Callable[[], Any] | None = None,
    again_seconds: float = AGAIN_SECONDS,
    output: Dataset | None = None,
    **changed: Any,
) -> Took:
    """Make some shards of a step in a process of its own, and return what they took.

    Parameters
    ----------
    step
        The step.
    root
        The run's folder.
    shards
        Which of its shards.
    limit_bytes
        Memory that the process may allocate; what goes beyond fails.
    units
        Work of one of these tasks; None: the step's, by its shards.
    work
        What is done in place of a task; None: the task.
    again_seconds
        A task that takes less is made twice, and its second time counts.
    output
        Where shards are written; None: where the step does.
    **changed
        Datasets, or arguments, in the place of the step's own.
    """
    each = step.cost.work / step.shards if units is None else units
    took = Took(step.name, step.cost.unit, each * len(shards), step.cost.peak_bytes)
    task = task_of(step, root, changed)
    if output is not None:
        task = replace(task, output=output)
    # Its processes are forked from one that has loaded the libraries, and has made nothing yet.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "_rehearsal_steps"])
    ours, theirs = context.Pipe(duplex=False)
    os.environ.update(thread_environment() | malloc_environment())
    cache = os.environ["LMR_CACHE"]
    told = task, shards, limit_bytes, work, theirs, cache, again_seconds
    process = context.Process(target=_child, args=told)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = "its process died"
    process.join()
    if isinstance(found, str):
        raise SystemExit(f"{step.name}: {found}")
    for seconds, cpu, peak, written, unpacking in found:
        took.seconds.append(seconds)
        took.cpu_seconds.append(cpu)
        took.peak_bytes = max(took.peak_bytes, peak)
        took.written_bytes += written
        took.unpacking_seconds += unpacking
    for name, source in step.inputs.items():
        sizes = task.inputs[name].present()
        if isinstance(source, Each):
            took.read_bytes += sum(sizes.get(shard, 0) for shard in shards) / len(shards)
        elif isinstance(source, Whole):
            took.mapped_bytes += sum(sizes.values())
    return took


def _child(
    task: ShardTask,
    shards: tuple[int, ...],
    limit_bytes: float,
    work: Any,
    answer: Any,
    cache: str = "",
    again_seconds: float = AGAIN_SECONDS,
) -> None:
    if cache:
        os.environ["LMR_CACHE"] = cache
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit_bytes), int(limit_bytes)))
    limit_threads()
    unpacked = _Unpacked()
    found = []
    for shard in shards:
        if work is None:
            Path(task.output.shard_url(shard)).unlink(missing_ok=True)  # one whose measurement was not kept
        one = _made(task, shard, work, unpacked)
        if not isinstance(one, str) and not found and one[0] < again_seconds and work is None:
            Path(task.output.shard_url(shard)).unlink()
            again = _made(task, shard, work, unpacked)
            one = again if isinstance(again, str) else (*again[:4], one[4])
        if isinstance(one, str):
            answer.send(one)
            return
        found.append(one)
    answer.send(found)


def _cpu() -> float:
    """Return the processor seconds of this process and of those that it started, such as the decoder."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    others = sum(times.user + times.system for times in running) + ended.ru_utime + ended.ru_stime
    return time.process_time() + others


class _Unpacked:
    """Counts what unpacking takes in this process: the outermost call, since some unpack others."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
        self.inside = False
        self.make = mapped._make
        mapped._make = self

    def __call__(self, *arguments: Any) -> None:
        """Unpack, and count."""
        if self.inside:
            return self.make(*arguments)
        started, cpu, self.inside = time.perf_counter(), _cpu(), True
        try:
            self.make(*arguments)
        finally:
            self.inside = False
            self.seconds += time.perf_counter() - started
            self.cpu += _cpu() - cpu


def _made(
    task: ShardTask, shard: int, work: Any, unpacked: _Unpacked
) -> tuple[float, float, int, int, float] | str:
    unpacked.seconds = unpacked.cpu = 0.0
    started, cpu = time.perf_counter(), _cpu()
    if work is not None:
        with _measured() as measure:
            size = int(work() or 0)
            peak = int(measure()["peak_bytes"])
    else:
        receipt = make_shard(task, shard)
        if receipt.state != "made":
            return f"{receipt.state}: {receipt.error}"
        size, peak = receipt.bytes, receipt.peak_bytes
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    return seconds - unpacked.seconds, cpu - unpacked.cpu, peak, size, unpacked.cpu
