"""A step that sleeps, and does what it is told to: its attempts are counted on disk, by worker."""

import ctypes
import os
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Step
from lmr.storage.arrow import table
from tests.support.costs import cost


def sleepers(folder, shards, seconds=0.2, faults=None):
    """A step of shards that sleep as long as their worker's TOY_SECONDS says, else `seconds`."""
    placement = {"folder": str(folder), "seconds": seconds, "faults": faults or {}}
    return Step(
        name="sleep",
        folder="slept",
        make=sleep,
        settings=Settings(),
        inputs={},
        shards=shards,
        cost=cost(),
        placement=placement,
    )


def sleep_after(shard, settings, *, first, **placement):
    """As `sleep`, once all of another step is there."""
    return sleep(shard, settings, **placement)


def sleep(shard, settings, *, folder, seconds, faults):
    worker = os.environ.get("TOY_WORKER", "here")
    _mark(folder, "begun", shard, worker)
    fault = faults.get(shard)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "memory":
        hoard = [np.ones(1 << 24) for _ in range(40)]
        time.sleep(60)
        del hoard
    if fault is not None and fault.startswith("/"):
        _wait_for(fault)
    time.sleep(float(os.environ.get("TOY_SECONDS", seconds)))
    _mark(folder, "ended", shard, worker)
    return table({"n": [shard]})


def gated(gate, shards):
    """Faults of shards that end only once a file is there: whatever must happen before, may take its time."""
    return dict.fromkeys(shards, str(gate))


def _wait_for(path):
    deadline = time.monotonic() + 600
    while not Path(path).exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody made {path}")
        time.sleep(0.02)


def _mark(folder, what, shard, worker):
    path = Path(folder) / what / f"{shard}.{worker}.{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def marks(folder, what):
    """(shard, worker) of every attempt that has begun or ended."""
    path = Path(folder) / what
    names = sorted(f.name.split(".")[:2] for f in path.iterdir()) if path.exists() else []
    return [(int(shard), worker) for shard, worker in names]


def attempts(folder):
    """Shard to the number of times that it was begun."""
    return Counter(shard for shard, _ in marks(folder, "begun"))
