"""The contest rehearsed: true tasks of every step, and what 1,000,000 x 100,000 photos would take.

    python benchmarks/rehearsal.py --out FOLDER

Declares the default workflow for 1,000,000 gallery photos and 100,000 queries, and makes some tasks of every
step of it: their settings, their shards and their memory are the contest's. Each step runs in a process of
its own, under a worker's memory limit. Smaller galleries follow (--growth), for the law by which a unit of
work grows. It prints what was measured, that law, and what the whole contest would take.

What tasks read is made so that they do the contest's work, without a contest's storage:

- Some photos are rendered, and listed again and again until they fill a shard. It is ingested, and its
  features are extracted. The features of further shards are these with noise.
- The first gallery shards are indexed, as many as make a sub-index. It is linked as often as the contest
  has one, and so are the shards from which the quantiser is trained.
- The candidates of all queries are written: ten million pairs. Those of two gallery shards are of the
  queries whose features are there, and no query meets a shard twice.
- Descriptors are those of a synthetic world, as in `scale.py`; what is searched after augmentation is what
  was searched before it, which is harder.
- One part of the index of regions is made, and linked as often as the contest has parts. Their links are
  drawn so that every one is mutual, as many as there can be.
- Diffusion that starts from the regions nearest to a query's own is counted as two tasks: that search, at
  the rate at which the graph's links are found, and diffusion from photos, which is made.
- A search with few queries and one with more give what a whole shard takes, where it is not searched.

What a machine unpacks once for all its tasks is told apart from the tasks. With --out, what was measured is
kept there, and the same command goes on with what is missing.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from _rehearsal_law import exponent, told
from _rehearsal_steps import Rehearsal, Size, declared
from _rehearsal_task import Took
from rich.console import Console
from rich.table import Table

from lmr.cli.output.tables import bytes_text
from lmr.cli.plan import machines_of
from lmr.cloud.prices import read_prices
from lmr.runtime.forecast import Forecast, forecast, warnings_of
from lmr.runtime.steps import closure
from lmr.steps.photos.listing import PHOTOS_PER_SHARD
from lmr.testing import World, write_world
from workflows.retrieval import PRESETS

CONTEST = Size(1_000_000, 100_000, photos_per_shard=PHOTOS_PER_SHARD, features=1000)
SMALL = Size(400, 40, photos_per_shard=20, features=100, known_shards=2, searched=5)
REGION_PARTS = 11
"""Parts of the contest's index of regions; see `lmr.steps.global_search.search.PART_BYTES`."""
STAGES = ("photos", "local", "search", "verify", "aggregate", "global", "regions", "diffuse", "close")
HYPERTHREAD = 0.5
"""A processor of a cloud's machine is half a core: at worst it does half of what one of this machine does."""


def rendered(folder: Path, count: int, long_side_px: int) -> Path:
    """Render some photos; return their folder."""
    each = max(2, count // 4)
    world = replace(
        World(),
        landmarks=each,
        gallery_per_landmark=(2, 2),
        queries=each,
        queries_without_landmark=0,
        distractors=each,
        long_side_px=long_side_px,
    )
    write_world(world, folder)
    return folder


def rehearsed(one: Rehearsal, world: Path, stages: Iterable[str], photos: int) -> Iterator[Took]:
    """Yield what the tasks of each step took, at one size of gallery."""
    if {"photos", "local", "search", "verify", "aggregate", "close"} & set(stages):
        yield from one.photos(world, photos)
        one.local_inputs()
    if "local" in stages:
        yield from one.local_index()
    if "search" in stages:
        yield from one.local_search()
    if "verify" in stages:
        yield from one.verification()
        yield from one.checks()
    if "aggregate" in stages:
        yield from one.aggregation()
    if {"global", "diffuse"} & set(stages):
        one.global_inputs()
        yield from one.global_search()
    if {"regions", "diffuse"} & set(stages):
        parts = REGION_PARTS if one.size.gallery >= CONTEST.gallery else 1
        yield from one.regions(max(one.size.gallery // parts, one.size.photos_per_shard), parts)
    if "diffuse" in stages:
        yield from one.diffusion()
    if "close" in stages:
        yield from one.closing()


def projected(
    found: Mapping[str, Took], options: argparse.Namespace, size: Size, speed: float = 1.0
) -> Forecast:
    """Return the contest's forecast from the processor seconds that were measured."""
    rates = {name: took.cpu_per_unit for name, took in found.items()}
    groups = machines_of(options.machines, read_prices(), False, options.disk_gb)
    contest = declared(
        replace(size, gallery=CONTEST.gallery, queries=CONTEST.queries, photos_per_shard=options.per_shard),
        options,
    )[0]
    return forecast(closure(contest.targets), rates, groups, speed=speed)


def tables(
    found: Mapping[str, Took], growth: Mapping[str, Mapping[int, float]], quick: Forecast, slow: Forecast
) -> list[Table]:
    """Show what was measured, its law, and what is projected from it."""
    measured, laws, hoped = Table(title="measured"), Table(title="growth"), Table(title="projected: contest")
    _columns(
        measured,
        "step, tasks, CPU s (median), CPU s (largest), clock s (median), CPU s per unit, peak, stated, "
        "a task reads, a machine reads, written, unpacking CPU s",
    )
    for took in found.values():
        now = took.figures
        measured.add_row(
            took.step,
            f"{now['tasks']:,}",
            *(f"{now[name]:.2f}" for name in ("median_cpu_seconds", "largest_cpu_seconds", "median_seconds")),
            f"{took.cpu_per_unit:.2e} / {took.unit}",
            *(bytes_text(n) if n else "–" for n in (took.peak_bytes, took.stated_bytes)),
            *(bytes_text(n) for n in (took.read_bytes, took.mapped_bytes, took.written_bytes)),
            f"{took.unpacking_seconds:.1f}",
        )
    sizes = sorted({size for by_size in growth.values() for size in by_size})
    _columns(laws, "step, unit" + "".join(f"; μs at {size:,} photos" for size in sizes) + "; law", ";")
    for name, by_size in growth.items():
        each = (f"{by_size[size] * 1e6:,.1f}" if size in by_size else "–" for size in sizes)
        laws.add_row(f"{name}, {found[name].unit if name in found else ''}", *each, told(by_size))
    _columns(hoped, "step, tasks, units, core-h, hours, hours at worst, a task states, disk, limited by")
    for step, worst in zip(quick.steps, slow.steps, strict=True):
        hoped.add_row(
            step.name,
            f"{step.tasks:,}",
            f"{step.work:,.0f} {step.unit}",
            "–" if step.core_hours is None else f"{step.core_hours:,.2f}",
            *("–" if one.hours is None else f"{one.hours:.3f}" for one in (step, worst)),
            *(bytes_text(n) for n in (step.task_bytes, step.mapped_bytes)),
            step.limit,
        )
    hoped.add_row("all", "", "", f"{quick.core_hours:,.1f}", f"{quick.hours:.2f}", f"{slow.hours:.2f}")
    return [measured, laws, hoped]


def _columns(table: Table, names: str, separator: str = ",") -> None:
    for name in names.split(separator):
        table.add_column(
            name.strip(), justify="left" if name.strip().startswith(("step", "lim")) else "right"
        )


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=STAGES, choices=STAGES, help="make these tasks only")
    parser.add_argument(
        "--growth", type=int, nargs="+", default=[10_000, 100_000], help="smaller galleries, for the law"
    )
    parser.add_argument("--no-growth", action="store_const", const=[], dest="growth", help="none of these")
    parser.add_argument("--growth-only", nargs="*", default=STAGES[1:8], choices=STAGES[1:8])
    parser.add_argument("--per-shard", type=int, default=PHOTOS_PER_SHARD, help="photos in a shard")
    parser.add_argument("--group", type=int, default=16, help="gallery shards in a sub-index")
    parser.add_argument("--rendered", type=int, default=40, help="different ones among them")
    parser.add_argument("--world", type=Path, help="folder of photos in place of rendered ones")
    parser.add_argument("--long-side-px", type=int, default=800)
    parser.add_argument("--searched", type=int, default=64, help="queries that search the whole gallery")
    parser.add_argument("--preset", default=next(iter(PRESETS)), help="of the workflow")
    parser.add_argument("--machines", default="10 x m5.24xlarge, 2 x g5.4xlarge")
    parser.add_argument("--disk-gb", type=float, default=200.0)
    parser.add_argument("--memory-limit", type=float, default=4e9, help="of a process, bytes; in force")
    parser.add_argument("--small", action="store_true", help="400 photos of 100 features: a test")
    parser.add_argument("--json", help="write the line of JSON to this file too")
    parser.add_argument("--out", help="keep everything here (default: a temporary folder, deleted)")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark."""
    options, out = arguments(), Console(width=190)
    with contextlib.ExitStack() as stack:
        options.out = options.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="lmr-rehearsal-"))
        folder = Path(options.out)
        os.environ["LMR_CACHE"] = str(folder / "cache")
        began = time.perf_counter()
        full = replace(CONTEST, photos_per_shard=options.per_shard, indexed_shards=options.group)
        full = SMALL if options.small else replace(full, searched=options.searched)
        world = options.world or rendered(folder / "world", options.rendered, options.long_side_px)
        runs = {full.gallery: (full, options.only)}
        for gallery in options.growth:
            smaller = replace(full, gallery=gallery, queries=max(gallery // 10, full.photos_per_shard))
            smaller = replace(smaller, searched=32)
            runs[gallery] = (smaller, options.growth_only)
        found: dict[str, Took] = {}
        growth: dict[str, dict[int, float]] = {}
        for gallery, (size, stages) in runs.items():
            one = Rehearsal(size, str(folder / f"{gallery}"), options)
            for took in rehearsed(one, world, stages, full.photos_per_shard):
                out.print(f"{gallery:,} photos, {took.step}: {sum(took.cpu_seconds):.1f} s", highlight=False)
                growth.setdefault(took.step, {})[gallery] = took.cpu_per_unit
                if gallery == full.gallery:
                    found[took.step] = took
        growth = {name: dict(sorted(by_size.items())) for name, by_size in growth.items() if len(by_size) > 1}
        quick, slow = (projected(found, options, full, speed) for speed in (1.0, HYPERTHREAD))
        out.print(*tables(found, growth, quick, slow))
        out.print(f"{quick.usd:.2f} USD, at worst {slow.usd:.2f} USD, on {options.machines}")
        for warning in warnings_of(quick):
            out.print(f"warning: {warning}", soft_wrap=True)
        if quick.unknown:
            out.print(f"not in it, since not measured: {', '.join(quick.unknown)}")
        over = [t.step for t in found.values() if t.stated_bytes and t.peak_bytes > t.stated_bytes]
        line = {
            "sample": {"gallery": full.gallery, "queries": full.queries, "features": full.features},
            "seconds": round(time.perf_counter() - began, 1),
            "measured": {name: took.figures for name, took in found.items()},
            "over_their_statement": over,
            "growth": growth,
            "exponents": {name: exponent([*sizes], [*sizes.values()]) for name, sizes in growth.items()},
            "projected": {
                "machines": options.machines,
                "core_hours": {s.name: s.core_hours for s in quick.steps},
                "all_core_hours": quick.core_hours,
                "hours": quick.hours,
                "usd": quick.usd,
                "hours_at_worst": slow.hours,
                "usd_at_worst": slow.usd,
                "unknown": list(quick.unknown),
            },
        }
    print(json.dumps(line))
    if options.json:
        Path(options.json).write_text(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
