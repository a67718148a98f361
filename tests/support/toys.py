"""A toy workflow whose shard functions count their calls on disk and fail on command."""

import errno
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmr.errors import ShardError
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Each, Step, Whole
from lmr.storage.arrow import column, table
from tests.support.costs import cost


@dataclass(frozen=True, kw_only=True)
class NumberSettings(Settings):
    rows: int = 10
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class ScaleSettings(Settings):
    factor: float = 2.0


def _count(calls, step, shard):
    path = Path(calls) / step / f"{shard}.{uuid.uuid4().hex}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def calls_of(calls, step):
    """Shard numbers of all calls of a step, sorted, repeats kept."""
    folder = Path(calls) / step
    return sorted(int(f.name.split(".")[0]) for f in folder.iterdir()) if folder.exists() else []


def numbers(shard, settings, *, calls, faults):
    _count(calls, "numbers", shard)
    _fail(faults.get("numbers", {}), shard, calls)
    start = shard * settings.rows + settings.offset
    return table({"n": np.arange(start, start + settings.rows)})


def scaled(shard, settings, *, numbers, calls, faults):
    _count(calls, "scaled", shard)
    _fail(faults.get("scaled", {}), shard, calls)
    return table({"n": column(numbers.read(shard), "n") * settings.factor})


def total(shard, settings, *, scaled, calls, faults):
    _count(calls, "total", shard)
    _fail(faults.get("total", {}), shard, calls)
    parts = [column(scaled.read(i), "n").sum() for i in range(scaled.shards)]
    return table({"total": np.array([sum(parts)])})


def _fail(faults, shard, calls):
    kind = faults.get(shard)
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if kind == "refuse":
        raise ShardError("no good", got="this", fix="that")
    if kind == "die":
        os._exit(11)
    if kind == "die once":
        mark = Path(calls) / f"died-{shard}"
        if not mark.exists():
            mark.touch()
            os._exit(11)
    if kind == "six, then wait":
        if len(calls_of(calls, "numbers")) <= 6:
            time.sleep(1)
            return
        _wait_for(Path(calls) / "open")
    if kind == "slow":
        time.sleep(1)
    if kind == "wait":
        _wait_for(Path(calls) / "open")


def _wait_for(path):
    for _ in range(12000):
        if path.exists():
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody made {path}")


def let_go(calls):
    """Let shards end that wait, and all that come after them."""
    Path(calls).mkdir(parents=True, exist_ok=True)
    (Path(calls) / "open").touch()


def workflow(calls, *, shards=4, numbers_=None, scale=None, faults=None):
    """numbers -> scaled (shard by shard) -> total (all shards)."""
    placement = {"calls": str(calls), "faults": faults or {}}
    first = Step(
        name="numbers",
        folder="numbers",
        make=numbers,
        settings=numbers_ or NumberSettings(),
        inputs={},
        shards=shards,
        cost=cost(),
        placement=placement,
    )
    second = Step(
        name="scaled",
        folder="scaled",
        make=scaled,
        settings=scale or ScaleSettings(),
        inputs={"numbers": Each(first)},
        shards=shards,
        cost=cost(),
        placement=placement,
    )
    third = Step(
        name="total",
        folder="total",
        make=total,
        settings=Settings(),
        inputs={"scaled": Whole(second)},
        shards=1,
        cost=cost(),
        placement=placement,
    )
    return first, second, third


class Quiet:
    """A listener that keeps what it heard."""

    def __init__(self):
        self.counts, self.totals, self.dashboard = {}, None, None

    def planned(self, totals):
        self.totals = totals

    def connected(self, dashboard):
        self.dashboard = dashboard

    def progressed(self, progress):
        self.counts = dict(progress.counts)
