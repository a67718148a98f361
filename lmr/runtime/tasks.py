"""How one shard of a step is made: look at storage, call the shard function, write the shard, account.

The same for every step; a failure is a receipt too, so that all other shards of the run are still finished.
"""

import os
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from lmr import storage
from lmr.errors import LmrError, one_line
from lmr.runtime import attempts
from lmr.runtime.own_memory import own_bytes, watched_peak
from lmr.runtime.steps import Step
from lmr.runtime.threads import limit_threads
from lmr.shipped import source_digest
from lmr.storage.arrow import facts_with, note_of
from lmr.storage.datasets import Dataset
from lmr.storage.earlier import Earlier

__all__ = [
    "ShardTask",
    "Receipt",
    "Summary",
    "add_up",
    "failure_name",
    "make_shard",
    "sources_note",
    "summarise",
]


WORTH_RELEASING_BYTES = 64 << 20
"""What a task must have left in its process for it to be worth giving back: that takes milliseconds."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a task must know to make a shard: small, and the same object for all shards of a step."""

    output: Dataset
    make: Callable[..., pa.Table]
    settings: Any
    inputs: Mapping[str, Dataset]
    arguments: Mapping[str, Any]
    """What `make` takes besides its datasets."""
    failures: str
    """Folder for the tracebacks of unforeseen errors."""

    @classmethod
    def of(cls, step: Step, root: str) -> "ShardTask":
        """Return the task of a step for a run's folder."""
        inputs = {name: source.dataset(root) for name, source in step.inputs.items()}
        output = step.dataset(root)
        earlier = {"earlier": Earlier.of(output)} if step.takes_over else {}
        return cls(
            output=output,
            make=step.make,
            settings=step.settings,
            inputs=inputs,
            arguments={**step.implied, **step.placement, **earlier},
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
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The receipts of a step, added up."""

    step: str
    made: int = 0
    """Shards that this run has made."""
    again: int = 0
    """How many of these a second task found in storage."""
    found: int = 0
    """Shards that were there before the run began."""
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
    """Add up receipts; `found` more shards were there before the run began.

    Only shards that were missing have tasks. One that its task found in storage was made by this run too: it
    was begun twice, or its receipt was lost with a worker.
    """
    made = [r for r in receipts if r.state in ("made", "found")]
    return Summary(
        step=step,
        made=len(made),
        again=sum(r.state == "found" for r in receipts),
        found=found,
        rows=sum(r.rows for r in made),
        bytes=sum(r.bytes for r in made),
        seconds=sum(r.seconds for r in made),
        peak_bytes=max((r.peak_bytes for r in made), default=0),
        failed=tuple(r for r in receipts if r.state == "failed"),
        skipped=sum(r.state == "skipped" for r in receipts),
        notes=(*dict.fromkeys(r.note for r in made if r.note), *sources_note(r.source for r in receipts)),
    )


def sources_note(sources: Iterable[str], whose: str = "its") -> tuple[str, ...]:
    """Tell when shards come from several sources of lmr, given the digest of each shard's; else empty."""
    counts = Counter(source for source in sources if source)
    if len(counts) < 2:
        return ()
    told = ", ".join(f"{source} ({count:,})" for source, count in counts.most_common())
    return (f"{whose} shards come from {len(counts)} sources of lmr: {told}",)


def add_up(summaries: Sequence[Summary]) -> list[Summary]:
    """Add up the summaries of steps of one name, the parts of a joined dataset; the order stays."""
    together: dict[str, list[Summary]] = {}
    for summary in summaries:
        together.setdefault(summary.step, []).append(summary)
    return [
        Summary(
            step=step,
            made=sum(s.made for s in some),
            again=sum(s.again for s in some),
            found=sum(s.found for s in some),
            rows=sum(s.rows for s in some),
            bytes=sum(s.bytes for s in some),
            seconds=sum(s.seconds for s in some),
            peak_bytes=max(s.peak_bytes for s in some),
            failed=tuple(receipt for s in some for receipt in s.failed),
            skipped=sum(s.skipped for s in some),
            notes=tuple(dict.fromkeys(note for s in some for note in s.notes)),
        )
        for step, some in together.items()
    ]


def make_shard(task: ShardTask, shard: int, *upstream: Receipt | Summary) -> Receipt:
    """Make one shard, unless storage has it; never raises for what concerns this shard alone.

    A failure becomes a receipt with the reason, and what depends on it is skipped, so that all other shards
    of the run are still finished and one account of everything reaches the user. What the task held is given
    back to the system, so that the next one of this process begins as low as the first.
    """
    before = own_bytes()
    try:
        return _make_shard(task, shard, *upstream)
    finally:
        if own_bytes() > before + WORTH_RELEASING_BYTES:
            for pool in (pa.default_memory_pool(), pa.system_memory_pool()):
                pool.release_unused()  # the system's pool trims the heap, that of NumPy's arrays as well


def _make_shard(task: ShardTask, shard: int, *upstream: Receipt | Summary) -> Receipt:
    output = task.output
    worker = f"{socket.gethostname()}:{os.getpid()}"
    receipt = partial(Receipt, step=output.step, shard=shard, worker=worker)
    if any(isinstance(u, Summary) and not u.whole for u in upstream) or any(
        isinstance(u, Receipt) and u.state in ("failed", "skipped") for u in upstream
    ):
        return receipt(state="skipped")
    try:
        # Looking first makes resuming and re-running after a lost worker the same thing.
        if output.has(shard):
            facts = output.facts(shard)
            return receipt(state="found", rows=int(facts["rows"]), **_told(facts))
        with attempts.attempt(f"shard {output.step}/{shard:05d}") as told, _measured() as measure:
            rows = task.make(shard, task.settings, **task.inputs, **task.arguments)
            facts = measure() | ({"note": note} if (note := note_of(rows)) else {})
            facts["source"] = source_digest()
            size = output.write(shard, rows, **facts, **facts_with(rows))
            told.update(rows=rows.num_rows, bytes=size, peak_bytes=facts["peak_bytes"])
        return receipt(state="made", rows=rows.num_rows, bytes=size, **_told(facts))
    except LmrError as error:
        return receipt(state="failed", error=str(error))
    except Exception as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        return receipt(state="failed", error=_unforeseen(task, shard, error))


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a receipt tells of a shard's facts."""
    return {name: facts[name] for name in ("seconds", "peak_bytes", "note", "source") if name in facts}


def _is_interrupt(error: BaseException | None) -> bool:
    """Tell whether an error is what a library made of Ctrl-C."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt | pa.ArrowCancelled):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def failure_name(step: str, shard: int) -> str:
    """Return the name of the file that the traceback of a shard's unforeseen error is written to."""
    return f"{step}-{shard:05d}.txt"


def _unforeseen(task: ShardTask, shard: int, error: Exception) -> str:
    """Tell of an error that is none of lmr's own; leave its traceback if nobody could foresee it."""
    failed = f"shard {task.output.step}/{shard:05d} failed"
    if attempts.is_leaving():
        # The process is being ended, and the shard with it; it will be made elsewhere.
        return str(LmrError(failed, got=f"its worker was stopped ({one_line(error)})", fix="run again"))
    if isinstance(error, MemoryError):
        fix = "give workers more memory or make shards smaller, then run the same command again"
        return str(LmrError(failed, got=one_line(error), fix=fix))
    if isinstance(error, OSError):
        fix = "mend the cause (a disk, a folder's permissions, the network) and run the same command again"
        return str(LmrError(failed, got=one_line(error, 500), fix=fix))
    where = storage.join(task.failures, failure_name(task.output.step, shard))
    try:
        storage.put(where, traceback.format_exc().encode())
    except LmrError:
        return f"{failed}\ngot: {one_line(error, 500)}"
    return f"{failed}\ngot: {one_line(error, 500)}\nfix: report it with {where}"


@contextmanager
def _measured() -> Iterator[Callable[[], dict[str, Any]]]:
    """Measure seconds and the peak of the process's own memory (without mapped files) inside the block."""
    limit_threads()
    start, start_cpu, held = time.perf_counter(), time.process_time(), own_bytes()
    with watched_peak() as peak_bytes:
        yield lambda: {
            "seconds": round(time.perf_counter() - start, 3),
            # Of this process: a step that starts others, to decode photos, takes more.
            "cpu_seconds": round(time.process_time() - start_cpu, 3),
            "peak_bytes": peak_bytes(),
            "start_bytes": held,
        }
