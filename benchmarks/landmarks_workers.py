"""The whole workflow on real photos: seconds and memory per step, 1 worker against 2.

    python benchmarks/landmarks_workers.py [--global vlad|gem] [--workers 1 2] [--prune N]

Reads the development photos where they lie. Each number of workers starts from nothing; a second run of the
same command shows what resuming costs.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.progress import ProgressBars
from lmr.cli.output import tables
from lmr.cluster.client import Where
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_scores
from lmr.steps.results.report.costs import costs_of
from lmr.steps.results.scores import read_solution, solution_for

sys.path.insert(0, str(Path(__file__).parents[1]))
from workflows import retrieval

if TYPE_CHECKING:
    from lmr.evaluation.pages.report import StepCost


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["vlad", "triangulation", "gem"]
    parser.add_argument("--global", dest="descriptor", choices=kinds, default="vlad")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prune", type=int, help="only the first N shards of gallery and queries")
    parser.add_argument("--out", help="keep the runs in this folder (default: a temporary one)")
    options = parser.parse_args()
    out = Console(width=110)
    photos = shared("data/landmarks")
    settings = retrieval.PRESETS[options.descriptor]
    listed = Both(
        list_photos("gallery", str(photos / "gallery")), list_photos("queries", str(photos / "query"))
    )
    if options.prune:
        count = options.prune * settings.ingest.photos_per_shard
        listed = listed.map(lambda some: some.first(count))
    truth = read_solution(str(photos / "retrieval_solution.csv"))
    weights = None
    if options.descriptor == "gem":
        weights = Weights.of(str(shared("weights/mobilenet_v2_imagenet.pth")))
    inputs = Inputs(
        photos=listed,
        solution=solution_for(truth, listed, pruned=bool(options.prune)),
        weights=weights,
    )
    flow = retrieval.build(inputs, settings)
    figures: dict[str, object] = {
        "descriptor": options.descriptor,
        "gallery": len(listed.gallery),
        "queries": len(listed.queries),
    }
    walls: dict[int, float] = {}
    costs_by_workers: dict[int, list[StepCost]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for workers in options.workers:
            root = str(Path(options.out or temporary) / f"{options.descriptor}-{workers}")
            with ProgressBars(out) as bars:
                started = time.perf_counter()
                run(flow.targets, root, Where(workers=workers), bars)
                walls[workers] = time.perf_counter() - started
            finished = RunDatasets.of(flow, root, settings)
            scores = read_scores(finished)
            costs_by_workers[workers] = costs_of(finished.steps)
            started = time.perf_counter()
            again = run(flow.targets, root, Where(workers=workers), ProgressBars(out))
            resumed = time.perf_counter() - started
            if again.summaries:
                raise SystemExit("the resumed run made shards again")
            figures[f"scores_{workers}"] = {name: round(score, 4) for name, score in scores.items()}
    table = Table(title="seconds of all tasks and peak memory of one, by number of workers")
    table.add_column("step")
    for workers in options.workers:
        table.add_column(f"{workers}: seconds", justify="right")
        table.add_column("peak", justify="right")
    for costs in zip(*costs_by_workers.values(), strict=True):
        cells = [(f"{c.seconds:.1f}", tables.bytes_text(c.peak_memory_bytes)) for c in costs]
        table.add_row(costs[0].step, *(cell for pair in cells for cell in pair))
    out.print(table)
    out.print(tables.scores_table(scores, flow.labels))
    first, last = options.workers[0], options.workers[-1]
    figures |= {
        "wall_seconds": {str(w): round(s, 1) for w, s in walls.items()},
        "speedup": round(walls[first] / walls[last], 2),
        "resumed_seconds": round(resumed, 2),
        "peak_bytes": max(c.peak_memory_bytes for costs in costs_by_workers.values() for c in costs),
        "same_scores": len({json.dumps(figures[f"scores_{w}"]) for w in options.workers}) == 1,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
