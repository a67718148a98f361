"""How one shard of a step is made: look at storage, call the shard function, write the shard, account.

The same for every step; a failure is a receipt too, so that all other shards of the run are still finished.
"""

import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import psutil
import pyarrow as pa

from lmr import storage
from lmr.errors import LmrError
from lmr.runtime import attempts
from lmr.runtime.steps import Step
from lmr.runtime.threads import limit_threads
from lmr.storage.arrow import note_of
from lmr.storage.datasets import Dataset

__all__ = ["ShardTask", "Receipt", "Summary", "add_up", "make_shard", "summarise"]


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
        return cls(
            output=step.dataset(root),
            make=step.make,
            settings=step.settings,
            inputs=inputs,
            arguments={**step.implied, **step.placement},
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


def make_shard(task: ShardTask, shard: int, *upstream: Receipt | Summary) -> Receipt:
    """Make one shard, unless storage has it; never raises for what concerns this shard alone.

    A failure becomes a receipt with the reason, and what depends on it is skipped, so that all other shards
    of the run are still finished and one account of everything reaches the user.
    """
    output = task.output
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
            rows = task.make(shard, task.settings, **task.inputs, **task.arguments)
            facts = measure() | ({"note": note} if (note := note_of(rows)) else {})
            size = output.write(shard, rows, **facts)
        return receipt(state="made", rows=rows.num_rows, bytes=size, **facts)
    except LmrError as error:
        return receipt(state="failed", error=str(error))
    except Exception as error:
        where = storage.join(task.failures, f"{output.step}-{shard:05d}.txt")
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
