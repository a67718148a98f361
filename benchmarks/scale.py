"""Steps 3 to 5 at a million photos: wall time, memory, bytes and mAP@100 of each, through lmr's own steps.

    python benchmarks/scale.py --gallery 1000000 --queries 100000 --growth 10000 100000 --regional 100000

Makes synthetic descriptors on disk, then runs the steps on them as a run would (Parquet shards, two worker
processes): kNN graph, DBA, global search, expansion, and diffusion by columns solved ahead of time, a node
per photo. With --growth the same for smaller galleries; with --regional, regional diffusion on so many photos
of five regions each. Step 2 is left out: no photo is verified.

The descriptors have what makes search hard. Landmarks have from 2 to 500 photos, most of them few, and belong
to themes that a thousand photos share; the photos of one landmark lie along an arc, so that its ends are far
apart; four photos in ten show nothing. The spectrum falls off, as that of real descriptors does.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from lmr.api.progress import ProgressBars
from lmr.cli.output.tables import bytes_text
from lmr.cluster.client import Where
from lmr.runtime.graph import make_plan
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Role, Step, Whole
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.diffusion.offline_columns import ColumnSettings, solve_columns
from lmr.steps.diffusion.online import DiffuseSettings, diffuse
from lmr.steps.diffusion.region_graph import GraphSettings, region_graph
from lmr.steps.expansion import ExpandSettings, expand
from lmr.steps.features.columns import Described
from lmr.steps.global_search.augmentation import AugmentSettings, augment
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.ranking import Ranked, ranking_bytes, read_ranking
from lmr.steps.results.report.costs import costs_of
from lmr.storage.arrow import Ragged, table
from lmr.storage.datasets import Dataset

PER_THEME = 1000  # photos
THEME_SHARE, SPREAD, NOISE, DECAY = 0.75, 0.15, 0.95, 0.3
DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class WorldSettings(Settings):
    """The synthetic world: everything follows from these numbers."""

    gallery: int
    queries: int
    dimension: int = 128
    regions: int = 0
    per_shard: int = 10_000
    seed: int = 0


class World:
    """Landmarks of a synthetic world, and which photo shows which."""

    def __init__(self, settings: WorldSettings) -> None:
        self.settings = settings
        rng = np.random.default_rng(settings.seed)
        n, d = settings.gallery, settings.dimension
        sizes = np.minimum(2 + np.floor(4 * rng.pareto(1.3, n // 4)), 500).astype(np.int64)
        self.sizes = sizes[: np.searchsorted(np.cumsum(sizes), 0.6 * n)]
        scale = (np.arange(d) + 1.0) ** -DECAY
        self.scale = (scale / np.linalg.norm(scale)).astype(np.float32)
        self.themes = self.draw(rng, max(4, n // PER_THEME))
        count = len(self.sizes)
        self.start = self.within_theme(rng, count)
        towards = unit(self.draw(rng, count))
        self.towards = unit(towards - (towards * self.start).sum(1, keepdims=True) * self.start)
        shown = np.repeat(np.arange(count), self.sizes)
        self.gallery = rng.permutation(np.concatenate([shown, np.full(n - len(shown), -1)]))
        # Half of the queries ask for any landmark, half for one in proportion to its photos, as people do.
        ask, often = rng.integers(0, count, settings.queries), rng.choice(shown, settings.queries)
        self.queries = np.where(rng.random(settings.queries) < 0.5, ask, often)

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw vectors of about unit length from the spectrum of all descriptors."""
        return rng.standard_normal((count, len(self.scale)), np.float32) * self.scale

    def within_theme(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Draw landmarks, or photos of nothing, each near a theme."""
        theme = self.themes[rng.integers(0, len(self.themes), count)]
        return unit(THEME_SHARE * theme + np.sqrt(1 - THEME_SHARE**2) * self.draw(rng, count))

    def describe(self, shown: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Describe photos of landmarks (-1: of nothing)."""
        longest = np.minimum(1.5, SPREAD * np.sqrt(self.sizes[np.maximum(shown, 0)]))
        angle = (rng.random(len(shown)) * longest).astype(np.float32)[:, None]
        seen = np.cos(angle) * self.start[shown] + np.sin(angle) * self.towards[shown]
        seen = np.where((shown >= 0)[:, None], seen, self.within_theme(rng, len(shown)))
        return unit(seen + NOISE * self.draw(rng, len(shown)))


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class SideSettings(WorldSettings):
    """The world, and which side of the search is described."""

    role: Role


def described_side(role: Role, world: WorldSettings) -> Described:
    """Declare the descriptors of gallery or queries, as `extract_global` makes them."""
    rows = world.gallery if role == "gallery" else world.queries
    per_photo = 1 + world.regions
    step = Step(
        name=f"synthetic_{role}",
        folder=f"global/{role}",
        make=world_shard,
        settings=SideSettings(**vars(world), role=role),
        inputs={},
        shards=-(-rows // world.per_shard),
        role=role,
        cost=Cost(
            rows=rows,
            bytes_per_row=12.0 + 2.0 * world.dimension * per_photo,
            # Landmarks of the whole world; a shard's vectors as they are drawn, and as written.
            task_bytes=8.0 * world.gallery * world.dimension
            + world.per_shard * world.dimension * (40.0 + 10.0 * per_photo),
            work=rows,
            unit="vector",
        ),
    )
    return Described(step, world.dimension)


def world_shard(shard: int, settings: SideSettings) -> pa.Table:
    """Describe one shard of photos; regions are further views of what the photo shows."""
    world = World(settings)
    shown = world.gallery if settings.role == "gallery" else world.queries
    photos = np.arange(len(shown), dtype=np.int32)[shard * settings.per_shard :][: settings.per_shard]
    rng = np.random.default_rng([settings.seed, shard, settings.role == "queries"])
    whole = world.describe(shown[photos], rng).astype(np.float16)
    parts = [whole] + [
        world.describe(shown[photos], rng).astype(np.float16) for _ in range(settings.regions - 1)
    ]
    regions = np.stack(parts, axis=1).reshape(-1, settings.dimension) if settings.regions else whole[:0]
    offsets = np.arange(len(photos) + 1) * settings.regions
    return table({"photo": photos, "descriptor": whole, "regions": Ragged(regions, offsets)})


def unverified(ranked: Ranked) -> Ranked:
    """Declare what stands for step 2: no photo was verified, and no vote was cast."""
    step = Step(
        name="unverified",
        folder="verified",
        make=unverified_shard,
        settings=Settings(),
        inputs={"ranked": Each(ranked.step)},
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=20.0,
            task_bytes=ranked.per_shard * 4.0 * ranking_bytes(ranked.depth),
            work=ranked.queries,
            unit="vector",
        ),
    )
    return Ranked(step, 1)


def unverified_shard(shard: int, settings: Settings, *, ranked: Dataset) -> pa.Table:
    """Say so for one shard of queries."""
    queries = read_ranking(ranked, shard).queries
    none, zero = np.full((len(queries), 1), -1, np.int32), np.zeros((len(queries), 1))
    return table(
        {
            "query": queries,
            "photos": none,
            "scores": zero.astype(np.float32),
            "inliers": zero.astype(np.int32),
            "confident": np.zeros(len(queries), np.int32),
        }
    )


def mean_average_precision(ranking: Dataset, world: World) -> float:
    """Return mAP@100: a photo is right if it shows the query's landmark."""
    total, present = 0.0, np.bincount(world.gallery[world.gallery >= 0], minlength=len(world.sizes))
    for shard in range(ranking.shards):
        found = read_ranking(ranking, shard)
        wanted = world.queries[found.queries]
        photos = found.photos[:, :DEPTH]
        right = (world.gallery[photos] == wanted[:, None]) & (photos >= 0)
        precision = np.cumsum(right, axis=1) / np.arange(1, photos.shape[1] + 1)
        total += float(((precision * right).sum(1) / np.minimum(present[wanted], DEPTH)).sum())
    return total / len(world.queries)


class Memory:
    """Samples the memory of this process and its children, mapped files not counted."""

    def __init__(self) -> None:
        self.peak, self.done = 0, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """Sample until told to stop."""
        me = psutil.Process()
        while not self.done.wait(0.5):
            now = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    info = process.memory_info()
                except psutil.Error:
                    continue
                now += info.rss - info.shared
            self.peak = max(self.peak, now)


def steps_of(world: WorldSettings, options: argparse.Namespace) -> dict[str, list[Step]]:
    """Declare all steps, in the groups that are timed together."""
    search = {"exact_below": options.exact_below, "recall": options.recall}
    described = Both(described_side("gallery", world), described_side("queries", world))
    neighbours = find_neighbours(described.gallery, NeighbourSettings(neighbours=50, **search))
    dba = augment(described.gallery, neighbours, AugmentSettings())
    settings = RankSettings(depth=DEPTH, **search)
    plainly, augmented = (searchable(side, settings) for side in (described.gallery, dba))
    plain, ranked = (rank(described.queries, gallery, settings) for gallery in (plainly, augmented))
    expanded = expand(described.queries, ranked, unverified(ranked), augmented, ExpandSettings())
    columns = solve_columns(described, neighbours, ColumnSettings(truncation=options.truncation))
    graph = region_graph(described.gallery, GraphSettings(**search))
    regional = world.regions > 0
    method = DiffuseSettings(method="regional" if regional else "offline")
    final = diffuse(described, graph, columns, expanded, augmented, method)
    edges = columns.step.inputs["edges"]
    assert isinstance(edges, Whole)
    return {
        "descriptors": [step for _, side in described.items() for step in side.source.parts],
        "index": [plainly.index] if plainly.index else [],
        "plain search": [plain.step],
        "kNN graph": [neighbours.step],
        "DBA": [*dba.source.parts],
        "index of DBA": [augmented.index] if augmented.index else [],
        "global search": [ranked.step],
        "expansion": [expanded.step],
        "mutual graph": [graph.edges] if regional else [*edges.step.parts],
        "columns": [] if regional else [columns.step],
        "diffusion": [final.step],
    }


def measure(
    groups: dict[str, list[Step]], root: str, workers: int, world: World, out: Console
) -> list[dict[str, object]]:
    """Run the groups one after the other; return what each took."""
    rows: list[dict[str, object]] = []
    for name, steps in groups.items():
        if not steps:
            continue
        memory, start = Memory(), time.perf_counter()
        made = [need.step for need in make_plan(steps, root) if need.missing]
        with ProgressBars(out) as bars:
            run(steps, root, Where(workers=workers), bars)
        wall = time.perf_counter() - start
        memory.done.set()
        costs = costs_of([step.dataset(root) for step in made])
        row: dict[str, object] = {
            "step": name,
            "wall_s": round(wall, 1),
            "task_s": round(sum(c.seconds for c in costs), 1),
            "peak_task_bytes": max((c.peak_memory_bytes for c in costs), default=0),
            "expected_peak_bytes": round(max((s.cost.peak_bytes for s in made), default=0)),
            "peak_all_bytes": memory.peak,
            "written_bytes": sum(c.n_bytes for c in costs),
            "notes": [note for c in costs for note in c.notes],
        }
        if {"query", "photos", "scores"} <= set(steps[-1].dataset(root).read(0).column_names):
            row["map_at_100"] = round(mean_average_precision(steps[-1].dataset(root), world), 4)
        rows.append(row)
        out.print(" ".join(f"{k} {v}" for k, v in row.items()))
    return rows


def show(title: str, rows: list[dict[str, object]], out: Console) -> None:
    """Print one size as a table."""
    shown = Table(title=title)
    for name in (
        "step",
        "wall, s",
        "tasks, s",
        "peak of a task",
        "expected",
        "peak of all",
        "written",
        "mAP@100",
    ):
        shown.add_column(name, justify="left" if name == "step" else "right")
    for row in rows:
        sizes = ("peak_task_bytes", "expected_peak_bytes", "peak_all_bytes", "written_bytes")
        shown.add_row(
            str(row["step"]),
            str(row["wall_s"]),
            str(row["task_s"]),
            *(bytes_text(float(str(row[size]))) for size in sizes),
            str(row.get("map_at_100", "")),
        )
    out.print(shown)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--growth", type=int, nargs="*", default=[], help="smaller galleries to run first")
    parser.add_argument("--regional", type=int, default=0, help="photos for the regional form; 0: not run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--exact-below", type=int, default=100_000)
    parser.add_argument("--truncation", type=int, default=200, help="nodes of a column")
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--out", help="keep the datasets here (default: a temporary folder, deleted)")
    options = parser.parse_args()
    out = Console(width=130)
    sizes: list[tuple[WorldSettings, bool]] = []
    for n in [*options.growth, options.gallery]:
        queries = max(100, options.queries * n // options.gallery)
        per_shard = 20_000 if n >= 1_000_000 else max(500, n // 10)
        sizes.append((WorldSettings(gallery=n, queries=queries, per_shard=per_shard), False))
    if n := options.regional:
        queries = max(100, min(options.queries, n // 10))
        sizes.append(
            (WorldSettings(gallery=n, queries=queries, regions=5, per_shard=max(500, n // 50)), True)
        )
    results = []
    for settings, regional in sizes:
        folder = options.out or tempfile.mkdtemp(prefix="lmr-scale-")
        root = str(Path(folder) / f"{settings.gallery}-{'regional' if regional else 'offline'}")
        try:
            rows = measure(steps_of(settings, options), root, options.workers, World(settings), out)
        finally:
            if not options.out:
                shutil.rmtree(folder)
        what = f"{settings.gallery:,} photos, {settings.queries:,} queries"
        show(what + (f", {5 * settings.gallery:,} regions" if regional else ""), rows, out)
        longest = max(rows[1:], key=lambda row: float(str(row["wall_s"])))
        results.append(
            {
                "gallery": settings.gallery,
                "queries": settings.queries,
                "regional": regional,
                "wall_s": round(sum(float(str(row["wall_s"])) for row in rows), 1),
                "dominated_by": longest["step"],
                "peak_all_bytes": max(int(str(row["peak_all_bytes"])) for row in rows),
                "steps": rows,
            }
        )
    print(json.dumps({"workers": options.workers, "dimension": 128, "sizes": results}))


if __name__ == "__main__":
    main()
