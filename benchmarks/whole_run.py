"""The default workflow on thousands of real-sized photos, through all five steps to the end, by `lmr run`.

    python benchmarks/whole_run.py --gallery 20000 --queries 2000

Some photos are rendered, and each file is linked under many names. Their features are extracted once; those
of every shard are these with noise, and are written where the run looks for them, so that it takes them for
what it has made itself. So is what a network makes of the photos. Then `lmr run retrieval` makes all the
rest, with worker processes whose memory is limited. It prints, per step: shards, the processor's seconds and
those of the clock of all tasks, the peak memory of a process during a task, what it held before, what the
task added, and the peak that the step states; then the seconds of the whole, and the peak of all processes
together. The processor's seconds are those of workers: photos are decoded in processes of their own.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
from _rehearsal_data import write_described, write_features
from rehearsal import rendered
from rich.console import Console
from rich.table import Table

from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.cli.output.tables import bytes_text
from lmr.runtime.steps import closure, grouped
from lmr.runtime.tasks import ShardTask, make_shard
from lmr.steps.results.report.costs import read_facts
from lmr.storage.datasets import Dataset


def link_photos(world: Path, folder: Path, role: str, count: int) -> Path:
    """Link the photos of a rendered world under so many names; return their folder."""
    files = sorted((world / role).glob("*.jpg"))
    target = folder / role
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        link = target / f"{role[0]}{number:07d}.jpg"
        if not link.exists():
            os.link(files[number % len(files)], link)
    return target


def features_of(world: Path, root: Path, chosen: Choices) -> dict[str, Dataset]:
    """Extract local features of a rendered world's gallery, and what a network makes of it, by step."""
    sides = {role: str(world / role) for role in ("gallery", "queries")}
    prepared = prepare("retrieval", replace(chosen, out=str(root), **sides))
    prepared.flow.inputs.photos.gallery.given().store(prepared.root)
    steps = {step.name: step for step in closure(prepared.flow.targets)}
    made = {}
    for name in ("ingest", "extract_local", "network"):
        if name in steps:
            receipt = make_shard(ShardTask.of(steps[name], prepared.root), 0)
            if receipt.error:
                raise SystemExit(receipt.error)
            made[name] = steps[name].dataset(prepared.root)
    return made


class Watched:
    """The largest memory that a process and those below it held together, mapped files not counted."""

    def __init__(self, process: int) -> None:
        self.process, self.peak, self.done = psutil.Process(process), 0, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        """Look, until told to stop."""
        while not self.done.wait(0.5):
            held = 0
            try:
                for one in [self.process, *self.process.children(recursive=True)]:
                    info = one.memory_info()
                    held += info.rss - info.shared
            except psutil.Error:
                continue
            self.peak = max(self.peak, held)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--photos-per-shard", type=int, default=1000)
    parser.add_argument("--features", type=int, default=1000, help="of a photo")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-limit", type=float, default=4e9, help="of each process, bytes; in force")
    parser.add_argument("--global", dest="descriptor", help="global descriptor (default: the default's)")
    parser.add_argument("--world", type=Path, help="folder of photos in place of rendered ones")
    parser.add_argument("--out", help="keep everything here (default: a temporary folder, deleted)")
    options = parser.parse_args()
    out = Console(width=120)
    with ExitStack() as stack:
        folder = Path(options.out or stack.enter_context(tempfile.TemporaryDirectory(prefix="lmr-whole-")))
        os.environ["LMR_CACHE"] = str(folder / "cache")
        world = options.world or rendered(folder / "world", 40, 800)
        sides = {"gallery": options.gallery, "queries": options.queries}
        linked = {role: link_photos(world, folder / "photos", role, n) for role, n in sides.items()}
        changes = (
            f"ingest.photos_per_shard={options.photos_per_shard}",
            f"local.max_features={options.features}",
        )
        chosen = Choices(
            out=str(folder / "run"),
            gallery=str(linked["gallery"]),
            queries=str(linked["queries"]),
            descriptor=options.descriptor,
            overrides=changes,
        )
        prepared = prepare("retrieval", chosen)
        steps = {step.name: step for step in closure(prepared.flow.targets)}
        extracted, each = features_of(world, folder / "seed", chosen), options.photos_per_shard
        for source, write in (("extract_local", write_features), ("network", write_described)):
            for name, count in ((source, options.gallery), (f"{source}_queries", options.queries)):
                if source in extracted:
                    step = steps[name]
                    write(step, prepared.root, extracted[source], step.shards, each, count)
        command = [sys.executable, "-m", "lmr", "run", "retrieval", "--out", str(folder / "run")]
        command += ["--gallery", str(linked["gallery"]), "--queries", str(linked["queries"])]
        command += ["--workers", str(options.workers)]
        command += ["--global", options.descriptor] if options.descriptor else []
        for change in changes:
            command += ["--set", change]
        limit = int(options.memory_limit)
        began = time.perf_counter()
        running = subprocess.Popen(
            command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        )
        watched = Watched(running.pid)
        code = running.wait()
        seconds = time.perf_counter() - began
        watched.done.set()
        shown = Table(title=f"{options.gallery:,} photos, {options.queries:,} queries")
        for title in ("step", "shards", "CPU s", "clock s", "peak", "held before", "of its own", "stated"):
            shown.add_column(title, justify="left" if title == "step" else "right")
        rows = {}
        for source in grouped(closure(prepared.flow.targets)):
            [(dataset, facts)] = read_facts([source.dataset(prepared.root)])
            # What was written beforehand tells no seconds.
            made = [one for one in facts if "cpu_seconds" in one]
            row = rows[dataset.step] = {
                "shards": len(facts),
                "cpu_seconds": round(sum(f["cpu_seconds"] for f in made), 2),
                "seconds": round(sum(f["seconds"] for f in made), 2),
                "peak_bytes": max((f["peak_bytes"] for f in made), default=0),
                "start_bytes": max((f["start_bytes"] for f in made), default=0),
                "own_bytes": max((f["peak_bytes"] - f["start_bytes"] for f in made), default=0),
                "stated_bytes": max(step.cost.peak_bytes for step in source.parts),
            }
            sizes = (bytes_text(n) for name, n in row.items() if name.endswith("_bytes"))
            counts = f"{len(facts):,}", f"{row['cpu_seconds']:.1f}", f"{row['seconds']:.1f}"
            shown.add_row(dataset.step, *counts, *sizes)
        out.print(shown)
        out.print(f"all: {seconds:.1f} s, all processes at most {bytes_text(watched.peak)}, exit code {code}")
    line = {
        "gallery": options.gallery,
        "queries": options.queries,
        "workers": options.workers,
        "exit_code": code,
        "seconds": round(seconds, 1),
        "peak_all_bytes": watched.peak,
        "steps": rows,
    }
    print(json.dumps(line))
    sys.exit(code)


if __name__ == "__main__":
    main()
