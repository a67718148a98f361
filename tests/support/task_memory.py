"""Makes the shards of steps, each step in a process of its own, and says what memory its tasks took.

    python -m tests.support.task_memory JOBS ANSWER

A process that has just begun has no array of another step to use again, and what it takes is its task's. What
a task takes besides its own arrays (compiled code, a library's first call) is paid for by the warm tasks
before it.
"""

import ctypes
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from lmr.runtime.tasks import ShardTask, make_shard
from lmr.runtime.threads import limit_threads, malloc_environment, thread_environment

__all__ = ["Job", "Took", "measure"]


@dataclass(frozen=True)
class Job:
    """The shards of a step to make, and what warms its process."""

    task: ShardTask
    shards: tuple[int, ...]
    warm: ShardTask | None = None


@dataclass
class Took:
    """What a step's tasks took: rows, bytes in storage, and the most that one of them held."""

    step: str
    rows: int = 0
    bytes: int = 0
    peak_bytes: int = 0
    """Of the process's own memory."""
    task_bytes: int = 0
    """Of that, what it did not have before the task."""
    errors: list[str] = field(default_factory=list)


def measure(jobs):
    """Run jobs one after another in a process that has loaded nothing else; return what each took."""
    with tempfile.TemporaryDirectory() as folder:
        told, answer = Path(folder) / "jobs", Path(folder) / "answer"
        told.write_bytes(pickle.dumps(list(jobs)))
        environment = os.environ | thread_environment() | malloc_environment()
        subprocess.run(
            [sys.executable, "-m", "tests.support.task_memory", told, answer], env=environment, check=True
        )
        return [Took(**one) for one in json.loads(answer.read_text())]


def _all(jobs):
    # No thread has been started in this process, so that forks of it are whole.
    context = multiprocessing.get_context("fork")
    for job in jobs:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_one, args=(job, theirs))
        process.start()
        theirs.close()
        try:
            yield ours.recv()
        except EOFError:
            yield Took(job.task.output.step, errors=["the process died"])
        process.join()


def _one(job, answer):
    took = Took(job.task.output.step)
    limit_threads()
    if job.warm:
        took.errors += _failed([make_shard(job.warm, shard) for shard in range(job.warm.output.shards)])
    for shard in job.shards:
        ctypes.CDLL(None).malloc_trim(0)
        before = _own_bytes()
        with _watched() as peak:
            receipt = make_shard(job.task, shard)
        took.peak_bytes = max(took.peak_bytes, peak())
        took.task_bytes = max(took.task_bytes, peak() - before)
        took.rows, took.bytes = took.rows + receipt.rows, took.bytes + receipt.bytes
        took.errors += _failed([receipt])
    answer.send(took)


def _failed(receipts):
    return [f"{receipt.state}: {receipt.error}" for receipt in receipts if receipt.state != "made"]


def _own_bytes():
    """Memory of this process without mapped files, as a task's receipt has it."""
    info = psutil.Process().memory_info()
    return info.rss - info.shared


@contextmanager
def _watched():
    """Watch the memory until the block ends; yields a function that returns the peak."""
    peak, done = _own_bytes(), threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, _own_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        done.set()
        watcher.join()


if __name__ == "__main__":
    found = [asdict(took) for took in _all(pickle.loads(Path(sys.argv[1]).read_bytes()))]
    Path(sys.argv[2]).write_text(json.dumps(found))
