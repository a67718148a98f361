"""The contest rehearsed: tasks of every step on a sample, and what 1,000,000 x 100,000 photos would take.

    python benchmarks/rehearsal.py --photos-per-shard 1000 --gallery-shards 2 --query-shards 1

Renders a few photos, extracts their features as a run would, and repeats these with noise until there are as
many photos as asked for. Then every step of the default workflow makes its shards on them, one after another
in this process, under a worker's memory limit. A tiny round before pays for first calls. Printed are, per
step: tasks, seconds per task (median, largest), peak memory against what the step states, bytes read and
written. Then follow the core-hours of the whole contest, and its hours and USD on the machines asked for.
What was measured and what is projected from it stand in tables of their own.

The sample keeps the pairs of a gallery photo and the entries of an inverted list. What it cannot keep is
named: see GROWS.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from lmr.cli.plan import machines_of
from lmr.cli.tables import bytes_text
from lmr.cloud.prices import read_prices
from lmr.retrieval.local_search.codebook import coarse_quantiser
from lmr.retrieval.local_search.inverted_file import default_lists
from lmr.runtime.forecast import Forecast, forecast, warnings_of
from lmr.runtime.settings import layer
from lmr.runtime.steps import Given, Step, closure
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.runtime.threads import limit_threads
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.imagined import imagined
from lmr.steps.photos.listing import list_photos
from lmr.steps.workflow import Workflow
from lmr.storage.arrow import column, table
from lmr.testing import World, write_world
from workflows.retrieval import PRESETS, build

GALLERY, QUERIES, CANDIDATES = 1_000_000, 100_000, 100
MOST_BYTES = 1.5e9
PHOTO_STEPS = ("ingest", "extract_local")
GROWS = {
    "search": "a billion entries do not lie in the processor's cache; finding the lists is measured apart",
    "train_quantiser": "131,072 lists are trained in as many cells as their square root",
    "index": "a feature is compared with more centroids",
    "index_global": "lists grow with the root of the gallery",
    "index_augmented": "lists grow with the root of the gallery",
    "index_regions": "lists grow with the root of a part",
    "neighbours": "a search looks through more entries, about as the root of the gallery",
    "rank": "a search looks through more entries, about as the root of the gallery",
    "expand": "a search looks through more entries, about as the root of the gallery",
    "link_regions": "a search looks through every part of the index",
    "verify": "each pair there has nearly a query of its own, whose features are read for it alone",
    "diffuse": "a query's cut is limited by the sample, and a search looks through more entries",
}
"""Steps whose unit of work takes longer in a larger gallery: their core-hours are a lower bound."""


@dataclass
class Took:
    """What the tasks of a step took."""

    step: Step
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    read_bytes: float = 0.0
    written_bytes: int = 0

    @property
    def seconds_per_unit(self) -> float:
        """Of the work that was done."""
        return sum(self.seconds) / (self.step.cost.work * len(self.seconds) / self.step.shards)


def settings_of(options: argparse.Namespace, gallery: int, queries: int) -> Any:
    """Return the default settings in the form that the contest has."""
    features = gallery * options.features
    # As many entries in an inverted list as at a billion features, or nearly.
    lists = max(1, round(features / (GALLERY * options.features / default_lists(GALLERY * options.features))))
    by_index = {name: {"exact_below": 1} for name in ("neighbours", "rank", "graph")}
    pairs = max(1, round(CANDIDATES * QUERIES / GALLERY * gallery / queries))
    sample = {
        "ingest": {"photos_per_shard": options.photos_per_shard},
        "local": {"max_features": options.features},
        # Codes as of a billion, since so many entries are product-quantised.
        "index": {"lists": lists, "pq_above": 1},
        "search": {"candidates": pairs},
        **by_index,
    }
    return layer(PRESETS["vlad"], sample)


def contest(options: argparse.Namespace) -> Workflow:
    """Declare the whole contest."""
    changes = {
        "ingest": {"photos_per_shard": options.contest_photos_per_shard},
        "local": {"max_features": options.features},
    }
    photos = Both(imagined("gallery", GALLERY), imagined("queries", QUERIES))
    return build(Inputs(photos=photos), layer(PRESETS["vlad"], changes))


def steps_of(flow: Workflow) -> list[Step]:
    """Return the steps that do the work: what writes answers needs files that a sample does not have."""
    return closure([*(ranked.step for ranked in flow.rankings.values())])


def rendered(folder: Path, options: argparse.Namespace) -> tuple[list[Took], dict[str, np.ndarray[Any, Any]]]:
    """Render photos, ingest them and extract their features; return what that took, and the features."""
    each = max(2, options.rendered // 4)
    world = replace(
        World(),
        landmarks=each,
        gallery_per_landmark=(2, 2),
        queries=each,
        queries_without_landmark=0,
        distractors=each,
        long_side_px=options.long_side_px,
    )
    write_world(world, folder / "world")
    photos = Both(
        list_photos("gallery", str(folder / "world/gallery")),
        list_photos("queries", str(folder / "world/queries")),
    )
    changes = {"local": {"max_features": options.features}, "ingest": {"photos_per_shard": 32}}
    flow = build(Inputs(photos=photos), layer(PRESETS["vlad"], changes))
    steps = [s for s in steps_of(flow) if s.name in PHOTO_STEPS]
    took = [made(step, str(folder / "rendered")) for step in steps]
    local = next(step for step in steps if step.name == "extract_local").dataset(str(folder / "rendered"))
    rows = pa.concat_tables([local.read(i) for i in range(local.shards)])
    return took, {name: column(rows, name) for name in rows.column_names}


def repeat(
    step: Step, features: dict[str, np.ndarray[Any, Any]], root: str, options: argparse.Namespace
) -> None:
    """Write a dataset of photos, or of the features of rendered photos with noise."""
    dataset, side = step.dataset(root), options.long_side_px
    starts = np.flatnonzero(np.diff(features["photo"], prepend=-1))
    bounds = np.append(starts, len(features["photo"]))
    for shard in range(step.shards):
        rng = np.random.default_rng([shard, step.role == "queries"])
        first = shard * options.photos_per_shard
        photos = np.arange(first, min(first + options.photos_per_shard, photos_of(step)), dtype=np.int32)
        if step.name.startswith("ingest"):
            n = len(photos)
            size = {"width": np.full(n, side, np.int32), "height": np.full(n, side * 3 // 4, np.int32)}
            named = {"id": [f"{photo}" for photo in photos], "image": [b""] * n}
            dataset.write(shard, table({"photo": photos, **named, **size, "reason": [""] * n}))
            continue
        chosen = rng.integers(0, len(starts), len(photos))
        rows = np.concatenate([np.arange(bounds[c], bounds[c + 1]) for c in chosen])
        counts = bounds[chosen + 1] - bounds[chosen]
        columns = {name: values[rows] for name, values in features.items() if name != "photo"}
        noise = rng.integers(-2, 3, columns["descriptor"].shape, np.int8)
        noisy = np.clip(columns["descriptor"].astype(np.int16) + noise, 0, 255).astype(np.uint8)
        columns["xy"] = columns["xy"] + rng.normal(0, 0.5, columns["xy"].shape).astype(np.float32)
        dataset.write(shard, table({"photo": np.repeat(photos, counts), **columns, "descriptor": noisy}))


def photos_of(step: Step) -> int:
    """Return how many photos a step of photos is of."""
    return int(step.cost.work)


def rehearsed(
    features: dict[str, np.ndarray[Any, Any]],
    gallery: int,
    queries: int,
    root: str,
    options: argparse.Namespace,
    out: Console | None = None,
) -> list[Took]:
    """Make every step after extraction on photos that are repeated; return what each took."""
    photos = Both(imagined("gallery", gallery), imagined("queries", queries))
    flow = build(Inputs(photos=photos), settings_of(options, gallery, queries))
    found = []
    for step in steps_of(flow):
        if step.name.removesuffix("_queries") in PHOTO_STEPS:
            repeat(step, features, root, options)
            continue
        found.append(made(step, root))
        if out:
            out.print(f"{step.name}: {sum(found[-1].seconds):.1f} s", highlight=False)
    return found


def made(step: Step, root: str) -> Took:
    """Make the shards of a step, one after another, and measure them."""
    for source in step.inputs.values():
        if isinstance(source, Given):
            source.store(root)
    took, task = Took(step), ShardTask.of(step, root)
    for shard in range(step.shards):
        receipt = make_shard(task, shard)
        if receipt.state != "made":
            raise SystemExit(f"{step.name}/{shard}: {receipt.state}: {receipt.error}")
        took.seconds.append(receipt.seconds)
        took.peak_bytes = max(took.peak_bytes, receipt.peak_bytes)
        took.written_bytes += receipt.bytes
    for source in step.inputs.values():
        if not isinstance(source, Given):
            # A whole input is read once by the machine, and mapped by its tasks.
            took.read_bytes += sum(sum(part.dataset(root).present().values()) for part in source.step.parts)
    return took


def finding_lists(options: argparse.Namespace, dimension: int, probes: int) -> float:
    """Return the seconds that a feature takes to find its lists among as many as the contest has."""
    lists = default_lists(GALLERY * options.features) if not options.small else 4096
    rng = np.random.default_rng(0)
    centroids = np.abs(rng.standard_normal((lists, dimension), np.float32))
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    quantiser = coarse_quantiser(centroids)
    queries = np.abs(rng.standard_normal((2000, dimension), np.float32))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    started = time.perf_counter()
    quantiser.search(queries, probes)
    return (time.perf_counter() - started) / len(queries)


@contextlib.contextmanager
def memory_limited(limit_bytes: int) -> Iterator[None]:
    """Hold this process to a worker's memory: what it allocates beyond fails."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def projected(found: list[Took], finding: float, options: argparse.Namespace) -> Forecast:
    """Return the contest's forecast from the rates that were measured."""
    rates = {took.step.name: took.seconds_per_unit for took in found}
    rates["search"] += finding
    groups = machines_of(options.machines, read_prices(), False, options.disk_gb)
    return forecast(steps_of(contest(options)), rates, groups)


def show(found: list[Took], whole: Forecast, out: Console) -> None:
    """Print what was measured, and what is projected from it."""
    measured, hoped = Table(title="measured"), Table(title="projected: the contest")
    for name in (
        "step",
        "tasks",
        "median, s",
        "largest, s",
        "s per unit",
        "peak",
        "stated",
        "read",
        "written",
    ):
        measured.add_column(name, justify="left" if name == "step" else "right")
    for took in found:
        measured.add_row(
            took.step.name,
            f"{len(took.seconds):,}",
            f"{statistics.median(took.seconds):.2f}",
            f"{max(took.seconds):.2f}",
            f"{took.seconds_per_unit:.2e} / {took.step.cost.unit}",
            *(bytes_text(n) for n in (took.peak_bytes, took.step.cost.peak_bytes)),
            *(bytes_text(n) for n in (took.read_bytes, took.written_bytes)),
        )
    for name in ("step", "tasks", "units", "core-h", "hours", "a task states", "disk", "limited by", "bound"):
        hoped.add_column(name, justify="left" if name in ("step", "limited by", "bound") else "right")
    for step in whole.steps:
        hoped.add_row(
            step.name,
            f"{step.tasks:,}",
            f"{step.work:,.0f} {step.unit}",
            "–" if step.core_hours is None else f"{step.core_hours:,.1f}",
            "–" if step.hours is None else f"{step.hours:.3f}",
            *(bytes_text(n) for n in (step.task_bytes, step.mapped_bytes)),
            step.limit,
            "lower" if step.name in GROWS else "",
        )
    hoped.add_row("all", "", "", f"{whole.core_hours:,.1f}", f"{whole.hours:.2f}", "", "", "", "lower")
    out.print(measured, hoped)
    out.print(f"on {', '.join(f'{g.count} x {g.name}' for g in whole.groups)}: {whole.usd:.2f} USD")
    for warning in warnings_of(whole):
        out.print(f"warning: {warning}", soft_wrap=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos-per-shard", type=int, default=1000)
    parser.add_argument("--contest-photos-per-shard", type=int, default=1000, help="of the projected contest")
    parser.add_argument("--gallery-shards", type=int, default=2)
    parser.add_argument("--query-shards", type=int, default=1)
    parser.add_argument("--features", type=int, default=1000, help="of a photo")
    parser.add_argument(
        "--rendered", type=int, default=40, help="photos to render, whose features are repeated"
    )
    parser.add_argument("--long-side-px", type=int, default=800)
    parser.add_argument("--machines", default="10 x m5.24xlarge, 2 x g5.4xlarge")
    parser.add_argument("--disk-gb", type=float, default=200.0)
    parser.add_argument("--memory-limit", type=float, default=4e9, help="of the process, bytes; in force")
    parser.add_argument(
        "--small", action="store_true", help="find lists among 4,096 in place of 131,072: a test"
    )
    parser.add_argument("--json", help="write the line of JSON to this file too")
    parser.add_argument("--out", help="keep the datasets here (default: a temporary folder, deleted)")
    options = parser.parse_args()
    out = Console(width=150)
    limit_threads()
    with contextlib.ExitStack() as stack:
        folder = Path(
            options.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="lmr-rehearsal-"))
        )
        os.environ["LMR_CACHE"] = str(folder / "cache")
        stack.enter_context(memory_limited(int(options.memory_limit)))
        began = time.perf_counter()
        found, features = rendered(folder, options)
        tiny = argparse.Namespace(**{**vars(options), "photos_per_shard": 12})
        rehearsed(features, 12, 12, str(folder / "warm"), tiny)
        gallery = options.gallery_shards * options.photos_per_shard
        queries = options.query_shards * options.photos_per_shard
        found += rehearsed(features, gallery, queries, str(folder / "run"), options, out)
        finding = finding_lists(options, features["descriptor"].shape[1], PRESETS["vlad"].search.probes)
        whole = projected(found, finding, options)
        show(found, whole, out)
        over = [t.step.name for t in found if t.peak_bytes > t.step.cost.peak_bytes]
        line = {
            "sample": {"gallery": gallery, "queries": queries, "features": options.features},
            "rendered": len(np.unique(features["photo"])),
            "seconds": round(time.perf_counter() - began, 1),
            "finding_lists_s_per_feature": finding,
            "measured": {
                t.step.name: {
                    "tasks": len(t.seconds),
                    "median_s": statistics.median(t.seconds),
                    "largest_s": max(t.seconds),
                    "s_per_unit": t.seconds_per_unit,
                    "peak_bytes": t.peak_bytes,
                    "stated_bytes": t.step.cost.peak_bytes,
                    "read_bytes": t.read_bytes,
                    "written_bytes": t.written_bytes,
                }
                for t in found
            },
            "over_their_statement": over,
            "projected": {
                "machines": options.machines,
                "core_hours": {s.name: s.core_hours for s in whole.steps},
                "all_core_hours": whole.core_hours,
                "hours": whole.hours,
                "usd": whole.usd,
                "unknown": list(whole.unknown),
                "lower_bounds": sorted(GROWS),
            },
        }
    print(json.dumps(line))
    if options.json:
        Path(options.json).write_text(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
