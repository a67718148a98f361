"""Growing a gallery beside making it from nothing: seconds, shards, pairs verified, mAP@100 of the workflow.

    python benchmarks/grow.py [--photos 600] [--more 0.05] [--workers 2]

Takes the first of the real development photos, holds some back evenly, runs the workflow, adds them and runs
it again in the same folder; then the same gallery once more from nothing, in another folder.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.runtime.tasks import Summary
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.inputs import Inputs
from lmr.steps.photos.generations import recall, remember
from lmr.steps.photos.listing import Photos, list_photos
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_scores
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Workflow

sys.path.insert(0, str(Path(__file__).parents[1]))
from workflows import retrieval


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=600, help="gallery photos in the end")
    parser.add_argument("--more", type=float, default=0.05, help="the part of them that is added")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    out = Console(width=110)
    photos = shared("data/landmarks")
    listed = list_photos("gallery", str(photos / "gallery")).first(options.photos)
    late = set(listed.ids[:: round(1 / options.more)])
    queries = list_photos("queries", str(photos / "query"))
    truth = read_solution(str(photos / "retrieval_solution.csv"))

    def timed(gallery: Photos, root: str) -> tuple[float, dict[str, Summary], float, dict[str, int]]:
        both = Both(gallery, queries)
        inputs = Inputs(photos=both, solution=solution_for(truth, both, pruned=True))
        flow = retrieval.build(inputs, retrieval.PRESETS["vlad"])
        remember(flow.inputs.photos.gallery, root)
        with ProgressBars(out) as bars:
            started = time.perf_counter()
            outcome = run(flow.targets, root, Where(workers=options.workers), bars)
            seconds = time.perf_counter() - started
        scores = read_scores(RunDatasets.of(flow, root, retrieval.PRESETS["vlad"]))
        return seconds, {s.step: s for s in outcome.summaries}, scores["diffuse"], pairs_of(flow, root)

    with tempfile.TemporaryDirectory() as folder:
        # Nothing that is unpacked on this machine is left from another run.
        os.environ["LMR_CACHE"] = f"{folder}/cache"
        # The first run also compiles what is compiled, so that neither of the two that are compared does.
        timed(without(listed, late), f"{folder}/grown")
        gallery = recall(listed, f"{folder}/grown").photos
        grown, made, grown_score, grown_pairs = timed(gallery, f"{folder}/grown")
        scratch, made_anew, scratch_score, scratch_pairs = timed(listed, f"{folder}/scratch")
    out.print(comparison(made, made_anew))
    figures = {
        "gallery": len(listed),
        "added": len(late),
        "workers": options.workers,
        "seconds_grown": round(grown, 1),
        "seconds_from_nothing": round(scratch, 1),
        "ratio": round(scratch / grown, 2),
        "verify_seconds_grown": round(made["verify"].seconds, 2),
        "verify_seconds_from_nothing": round(made_anew["verify"].seconds, 2),
        "pairs_grown": grown_pairs,
        "pairs_from_nothing": scratch_pairs,
        "map_grown": round(grown_score, 4),
        "map_from_nothing": round(scratch_score, 4),
    }
    print(json.dumps(figures))


def pairs_of(flow: Workflow, root: str) -> dict[str, int]:
    """Count the pairs of a run: verified by it, and taken over from an earlier one."""
    assert flow.verified is not None
    dataset = flow.verified.pairs.dataset(root)
    facts = [dataset.facts(shard) for shard in range(dataset.shards)]
    taken = sum(one.get("taken_over", 0) for one in facts)
    return {"verified": sum(one["rows"] for one in facts) - taken, "taken_over": taken}


def without(listed: Photos, late: set[str]) -> Photos:
    """Return the photos but some."""
    kept = [row for row, photo in enumerate(listed.ids) if photo not in late]
    ids, paths, stamps = (
        tuple(column[row] for row in kept) for column in (listed.ids, listed.paths, listed.stamps)
    )
    return replace(listed, ids=ids, paths=paths, stamps=stamps)


def comparison(grown: dict[str, Summary], scratch: dict[str, Summary]) -> Table:
    """Show shards made and seconds of tasks, per step."""
    table = Table(title="shards made and seconds of tasks")
    for name in ("step", "grown: shards", "seconds", "from nothing: shards", "seconds"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step, anew in scratch.items():
        ours = grown.get(step, Summary(step=step))
        table.add_row(step, f"{ours.made}", f"{ours.seconds:.1f}", f"{anew.made}", f"{anew.seconds:.1f}")
    return table


if __name__ == "__main__":
    main()
