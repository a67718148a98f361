"""What Dask itself costs: the same step functions in a plain loop, on one worker and on two; large graphs.

    python benchmarks/dask_overhead.py

Measures the processor seconds of a step's shards in a plain loop beside the same shards as a run on one
worker, and in two loops at once beside a run on two (two cores share their memory, Dask or not), of a short
run and a long one; what a run and a shard cost by themselves; the time to submit runs of many shards, and the
scheduler's memory for them; and how many shards per second the scheduler hands out to many workers. These are
simulated: many workers in two processes, whose tasks wait instead of computing. Ends with a line of JSON.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pyarrow as pa
from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, Worker, get_worker
from rich.console import Console
from rich.table import Table

from lmr.cluster.client import Where, open_client
from lmr.runtime.graph import make_plan
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.runtime.threads import limit_threads
from lmr.scheduler import runs
from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset

out = Console(highlight=False)


@dataclass(frozen=True, kw_only=True)
class Effort(Settings):
    """How much a shard computes."""

    rounds: int = 1


def first(shard: int, settings: Effort) -> pa.Table:
    """Compute as the steps do: products of float32 matrices and sorting, and keep a shard of 1 MB."""
    rng = np.random.default_rng(shard)
    a = rng.standard_normal((512, 512), np.float32)
    for _ in range(settings.rounds):
        a = np.sort(a @ a.T, axis=1) / 512
    return table({"row": np.ascontiguousarray(a)})


def second(shard: int, settings: Effort, *, before: Dataset) -> pa.Table:
    """Read a shard and compute again."""
    before.read(shard)
    return first(shard, settings)


def pause(shard: int, settings: Effort) -> pa.Table:
    """Wait for so many seconds."""
    time.sleep(settings.rounds)
    return table({"row": np.zeros(1)})


def last(shard: int, settings: Effort, *, before: Dataset) -> pa.Table:
    """Read how many shards there are."""
    return table({"shards": np.array([before.shards])})


def steps(shards: int, rounds: int = 1) -> list[Step]:
    """Two steps, shard by shard, and a last one that waits for all."""

    def step(name: str, make: Callable[..., pa.Table], shards: int, **inputs: Each | Whole) -> Step:
        return Step(
            name=name,
            folder=name,
            make=make,
            settings=Effort(rounds=rounds),
            inputs=inputs,
            shards=shards,
            # A matrix of 512 x 512 float32 per shard, a few of them held.
            cost=Cost(rows=512 * shards, bytes_per_row=2048, task_bytes=10e6, work=shards, unit="shard"),
        )

    one = step("first", first, shards)
    two = step("second", second, shards, before=Each(one))
    return [one, two, step("last", last, 1, before=Whole(two))]


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and processor seconds of this process and its workers."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Spent":
        """Return what was spent until now."""
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return cls(time.perf_counter(), sum(sum(process.cpu_times()[:2]) for process in processes))

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall - other.wall, self.cpu - other.cpu)


def in_a_loop(made: list[Step], root: str, first_shard: int = 0, of: int = 1) -> None:
    """Make every `of`th shard one after another without Dask, on one thread as tasks do."""
    limit_threads()
    for step in made:
        inputs = {name: source.dataset(root) for name, source in step.inputs.items()}
        for shard in range(first_shard, step.shards, of):
            step.dataset(root).write(shard, step.make(shard, step.settings, **inputs))


def in_a_thread(made: list[Step], root: str, first_shard: int = 0, of: int = 1) -> None:
    """Do so in a thread, as tasks run: there malloc keeps what it got.

    A process's main thread gives memory back and asks for it again, which makes the same functions slower.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(in_a_loop, made, root, first_shard, of).result()


Way = Callable[[list[Step], str], Spent]
"""Makes all shards of steps into a folder, and tells what that took."""


@contextmanager
def loops(count: int, folder: str) -> Iterator[Way]:
    """So many processes that make all shards without Dask, at once."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:

        def make(made: list[Step], root: str) -> Spent:
            start = Spent.now()
            parts = [pool.submit(in_a_thread, made[:-1], root, part, count) for part in range(count)]
            for part in parts:
                part.result()
            return Spent.now() - start

        make(steps(count), f"{folder}/warm")
        yield make


@contextmanager
def workers(count: int, folder: str) -> Iterator[Way]:
    """So many local workers, to which runs are given, each from plan to end."""
    with open_client(Where(workers=count)) as client:

        def make(made: list[Step], root: str) -> Spent:
            start = Spent.now()
            follow(client, made, root)
            return Spent.now() - start

        # Workers load what they need once, whatever the number of shards.
        make(steps(count), f"{folder}/warm")
        yield make


def follow(client: Client, made: list[Step], root: str) -> None:
    """Submit a run and wait for its end."""
    record = runs.send(client, make_plan([made[-1]], root))
    ending = runs.follow(client, record.name, lambda counts: None)
    if not ending.whole:
        raise SystemExit("a shard failed")


WAYS: dict[str, tuple[Callable[[int, str], AbstractContextManager[Way]], int]] = {
    "plain loop": (loops, 1),
    "1 worker": (workers, 1),
    "2 loops at once": (loops, 2),
    "2 workers": (workers, 2),
}
BESIDE = {"1 worker": "plain loop", "2 workers": "2 loops at once"}


def overhead(shards: int, seconds_per_shard: float, repeats: int, lengths: list[int]) -> dict[str, Any]:
    """Compare loops with runs of several lengths, in turns: what slows the machine down meets all of them."""
    limit_threads()
    start = time.process_time()
    first(0, Effort(rounds=20))
    rounds = max(1, round(20 * seconds_per_shard / (time.process_time() - start)))
    spent: dict[tuple[str, int], list[Spent]] = defaultdict(list)
    for _ in range(repeats):
        for name, (way, count) in WAYS.items():
            with tempfile.TemporaryDirectory() as folder, way(count, folder) as make:
                for length in lengths:
                    spent[name, length].append(make(steps(length * shards, rounds), f"{folder}/{length}"))
    by_itself = {name: constant(count) for name, (_, count) in WAYS.items() if name in BESIDE}
    figures = [compared(spent, length, 2 * shards * length) for length in lengths]
    # Without what a run and its shards cost by themselves, the rest grows with the seconds.
    for name, cost in by_itself.items():
        last = figures[-1][name]
        known = cost["run_seconds"] + last["shards"] * cost["shard_ms"] / 1000
        cost["share_waiting"] = waiting(WAYS[name][1])
        cost["share_of_the_rest"] = round((last["more_cpu"] - known) / last["loop_cpu"], 4)
        out.print(
            f"{name}: {cost['run_seconds']:.2f} processor seconds per run, {cost['shard_ms']:.1f} ms per "
            f"shard, and {cost['share_of_the_rest']:.1%} of the time; "
            f"while shards only wait, {cost['share_waiting']:.2%} of the time"
        )
    return {"runs": figures, "by_itself": by_itself}


def compared(spent: dict[tuple[str, int], list[Spent]], length: int, shards: int) -> dict[str, Any]:
    """Set runs of one length beside the loops that were measured just before each."""
    repeats = len(spent["plain loop", length])
    grid = Table(title=f"{shards} shards, median of {repeats}; in brackets the least and the most")
    for name in ("", "wall s", "processor s", "beside the loop"):
        grid.add_column(name, justify="left" if not name else "right")
    figures: dict[str, Any] = {}
    for name in WAYS:
        wall = statistics.median(s.wall for s in spent[name, length])
        cpu = statistics.median(s.cpu for s in spent[name, length])
        row = [name, f"{wall:.2f}", f"{cpu:.2f}", ""]
        if name in BESIDE:
            pairs = list(zip(spent[name, length], spent[BESIDE[name], length], strict=True))
            more = sorted(run.cpu / loop.cpu - 1 for run, loop in pairs)
            row[3] = f"{statistics.median(more):+.1%} ({more[0]:+.1%} to {more[-1]:+.1%})"
            figures[name] = {
                "shards": shards,
                "wall": round(wall, 2),
                "cpu": round(cpu, 2),
                "loop_wall": round(statistics.median(loop.wall for _, loop in pairs), 2),
                "loop_cpu": round(statistics.median(loop.cpu for _, loop in pairs), 2),
                "more_cpu": round(statistics.median(run.cpu - loop.cpu for run, loop in pairs), 3),
                "cpu_overhead": [round(value, 4) for value in more],
                "wall_overhead": [round(run.wall / loop.wall - 1, 4) for run, loop in pairs],
            }
        grid.add_row(*row)
    out.print(grid)
    return figures


def constant(count: int, few: int = 1, many: int = 40, repeats: int = 9) -> dict[str, float]:
    """Tell what a run costs, and each of its shards, beyond a loop; its shards compute for milliseconds."""

    def cost(name: str, shards: int) -> float:
        way, number = WAYS[name]
        with tempfile.TemporaryDirectory() as folder, way(number, folder) as make:
            return statistics.median(make(steps(shards), f"{folder}/{i}").cpu for i in range(repeats))

    run = "1 worker" if count == 1 else "2 workers"
    less, more = (cost(run, shards) - cost(BESIDE[run], shards) for shards in (few, many))
    per_shard = (more - less) / (2 * (many - few))
    return {"run_seconds": round(less - 2 * few * per_shard, 3), "shard_ms": round(1000 * per_shard, 2)}


def waiting(count: int, seconds: int = 20) -> float:
    """Return what a run whose shards wait takes of its workers' time, its submission included: a share.

    This is what grows with a run's seconds, whatever they are used for; neither others on the machine nor its
    changing speed are in it.
    """

    def step(name: str, make: Callable[..., pa.Table], settings: Effort, **inputs: Whole) -> Step:
        cost = Cost(rows=count, bytes_per_row=8, task_bytes=1e6, work=count, unit="shard")
        shards = 1 if inputs else count
        return Step(
            name=name, folder=name, make=make, settings=settings, inputs=inputs, shards=shards, cost=cost
        )

    paused = step("pause", pause, Effort(rounds=seconds))
    with tempfile.TemporaryDirectory() as folder, workers(count, folder) as make:
        spent = make([paused, step("last", last, Effort(), before=Whole(paused))], f"{folder}/waiting")
    return round(spent.cpu / spent.wall / count, 4)


@contextmanager
def scheduler() -> Iterator[tuple[str, psutil.Process]]:
    """A scheduler in a process of its own: its address and process."""
    with tempfile.NamedTemporaryFile("r+") as log:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        process = subprocess.Popen(
            [*command, "--host=127.0.0.1", "--port=0", "--no-dashboard"], stdout=log, stderr=log
        )
        try:
            while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", Path(log.name).read_text())):
                time.sleep(0.05)
            yield found[1], psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()


def large_graphs(counts: list[int]) -> list[dict[str, Any]]:
    """Submit runs of many shards to a scheduler without workers, so that nothing but the graph is there."""
    rows = []
    for count in counts:
        with (
            scheduler() as (address, process),
            tempfile.TemporaryDirectory() as root,
            open_client(Where(scheduler=address)) as client,
        ):
            runs.install_plugins(client)
            before = process.memory_info().rss
            start = time.perf_counter()
            plan = make_plan([steps(count // 2)[-1]], root)
            planned = time.perf_counter() - start
            record = runs.send(client, plan)
            submitted = time.perf_counter() - start
            tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
            after = process.memory_info().rss
            runs.cancel_run(client, record.name)
        rows.append(
            {
                "shards": count,
                "tasks": tasks,
                "plan_seconds": round(planned, 2),
                "submit_seconds": round(submitted, 2),
                "scheduler_mb": round((after - before) / 1e6),
            }
        )
    grid = Table(title="submitting a run, from plan until the client may go; growth of the scheduler")
    for name in ("shards", "tasks", "seconds", "scheduler, MB"):
        grid.add_column(name, justify="right")
    for row in rows:
        values = (row["shards"], row["tasks"], row["submit_seconds"], row["scheduler_mb"])
        grid.add_row(*(f"{value:,}" for value in values))
    out.print(grid)
    return rows


async def wait_a_while(shard: int, seconds: float) -> int:
    """A task of a simulated worker: it tells the ledger what a real one tells, and waits."""
    worker, key = get_worker(), ("wait", shard)
    await worker.scheduler.lmr_begin(key=key, worker=worker.address)
    await asyncio.sleep(seconds)
    await worker.scheduler.lmr_end(key=key, worker=worker.address, seconds=seconds, made=True)
    return 0


def host_workers(address: str, count: int) -> None:
    """Be a process of many workers."""

    # Hundreds of workers in one process would have nothing else to do than to look at themselves, and take
    # the processor from the scheduler, which is what is measured.
    quiet = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "60s",
        "distributed.admin.system-monitor.interval": "60s",
    }

    async def start() -> None:
        workers = [
            Worker(address, nthreads=1, resources={"CPU": 1}, dashboard=False, memory_limit=0)
            for _ in range(count)
        ]
        for some in range(0, count, 50):
            await asyncio.gather(*workers[some : some + 50])
        await asyncio.gather(*(worker.finished() for worker in workers))

    with dask.config.set(quiet):
        asyncio.run(start())


def many_workers(counts: list[int], waves: int, seconds: float) -> list[dict[str, Any]]:
    """Hand out shards to many simulated workers: what the scheduler needs per shard."""
    rows = []
    for count in counts:
        shares = [count - count // 2, count // 2]  # two processes, for two cores
        with scheduler() as (address, process), open_client(Where(scheduler=address)) as client:
            runs.install_plugins(client)
            command = [sys.executable, __file__, "--address", address, "--host-workers"]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            hosts = [subprocess.Popen([*command, str(share)], **quiet) for share in shares]
            try:
                client.wait_for_workers(count, timeout=900)
                time.sleep(5)  # until the last have said what they are
                spent, start = sum(process.cpu_times()[:2]), time.perf_counter()
                time.sleep(20)
                idle = (sum(process.cpu_times()[:2]) - spent) / (time.perf_counter() - start)
                shards = waves * count
                tasks = {("wait", i): Task(("wait", i), wait_a_while, i, seconds) for i in range(shards)}
                end = {("end", 0): Task(("end", 0), len, List(*(TaskRef(key) for key in tasks)))}
                layers = {
                    "wait": MaterializedLayer(tasks, annotations={"resources": {"CPU": 1}}),
                    "end": MaterializedLayer(end),
                }
                graph = HighLevelGraph(layers, {"wait": set(), "end": {"wait"}})
                spent, start = sum(process.cpu_times()[:2]), time.perf_counter()
                client.get(graph, ("end", 0))
                wall = time.perf_counter() - start
                spent = sum(process.cpu_times()[:2]) - spent
                rows.append(
                    {
                        "workers": count,
                        "shards": shards,
                        "shard_seconds": seconds,
                        "wall_seconds": round(wall, 1),
                        "busy": round(waves * seconds / wall, 3),
                        "scheduler_ms_per_shard": round(1000 * spent / shards, 2),
                        "scheduler_share_idle": round(idle, 4),
                        "scheduler_ms_beyond_idle": round(1000 * (spent - idle * wall) / shards, 2),
                        "scheduler_mb": round(process.memory_info().rss / 1e6),
                    }
                )
                out.print(rows[-1])
            finally:
                for host in hosts:
                    host.kill()
                    host.wait()
    grid = Table(title="simulated workers in two processes: tasks that wait")
    names = "workers", "shards", "s per shard", "wall s", "workers busy", "scheduler, ms per shard"
    names = *names, "its share of a core while all wait", "ms per shard beyond that", "MB"
    for name in names:
        grid.add_column(name, justify="right")
    for row in rows:
        grid.add_row(*(f"{value:,}" for value in row.values()))
    out.print(grid)
    return rows


def main() -> None:
    """Measure, print tables, end with JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", type=int, default=8, help="shards of each of two steps")
    parser.add_argument("--shard-seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 4], help="so many times the shards")
    parser.add_argument("--graphs", type=int, nargs="*", default=[1000, 10_000, 30_000])
    parser.add_argument("--workers", type=int, nargs="*", default=[96, 480, 960])
    parser.add_argument("--waves", type=int, default=4)
    parser.add_argument("--wait-seconds", type=float, default=10.0)
    parser.add_argument("--host-workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--address", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host_workers:
        with suppress(KeyboardInterrupt):
            host_workers(options.address, options.host_workers)
        return
    figures = {
        "overhead": overhead(options.shards, options.shard_seconds, options.repeats, options.lengths),
        "graphs": large_graphs(options.graphs),
        "many_workers": many_workers(options.workers, options.waves, options.wait_seconds),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
