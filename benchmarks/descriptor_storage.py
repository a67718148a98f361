"""What local descriptors in 8 bits lose: mAP@100 after local search, float16 against int8, on real photos.

    python benchmarks/descriptor_storage.py [--local xfeat] [--workers 2] [--prune N]

The workflow's first step, with everything as it is by default, on the development photos. Features are
extracted once, in float16; those in 8 bits are the same ones, stored by the step's own function.
`benchmarks/local_features.py` compares matches and inliers of pairs.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _shared import shared
from rich.console import Console

from lmr import storage
from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.features.local.quantise import to_int8
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.local import LocalSettings
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.scores import read_solution, score_rankings, solution_for
from lmr.steps.workflow import Workflow
from lmr.storage.arrow import column, table

sys.path.insert(0, str(Path(__file__).parents[1]))
from workflows import retrieval

WEIGHTS = {"xfeat": "xfeat/xfeat_folded.npz", "aliked-t16": "aliked/aliked-t16.pth"}


def in_eight_bits(rows: pa.Table) -> pa.Table:
    """Return rows of local features with their descriptors as int8."""
    columns: dict[str, Any] = {name: column(rows, name) for name in rows.column_names}
    return table(columns | {"descriptor": to_int8(columns["descriptor"])})


def searched(flow: Workflow, root: str, workers: int) -> float:
    """Run the first step and return its mAP@100."""
    inputs = flow.inputs
    assert inputs.solution is not None
    scores = score_rankings({"search": flow.rankings["search"]}, inputs.solution, inputs.photos)
    run([scores], root, Where(workers=workers), ProgressBars(Console(quiet=True)))
    return float(np.nanmean(column(scores.dataset(root).read(0), "search")))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--local", choices=list(WEIGHTS), default="xfeat")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prune", type=int, help="only the first N shards of gallery and queries")
    options = parser.parse_args()
    photos = shared("data/landmarks")
    settings = replace(retrieval.PRESETS["vlad"], local=LocalSettings(features=options.local))
    listed = Both(
        list_photos("gallery", str(photos / "gallery")), list_photos("queries", str(photos / "query"))
    )
    if options.prune:
        count = options.prune * settings.ingest.photos_per_shard
        listed = listed.map(lambda some: some.first(count))
    truth = read_solution(str(photos / "retrieval_solution.csv"))
    inputs = Inputs(
        photos=listed,
        solution=solution_for(truth, listed, pruned=bool(options.prune)),
        local_weights=Weights.of(str(shared(f"weights/{WEIGHTS[options.local]}"))),
    )
    halves = retrieval.build(inputs, settings)
    small = replace(settings, local=replace(settings.local, storage="int8"))
    eighths = retrieval.build(inputs, small)
    with tempfile.TemporaryDirectory() as root:
        result: dict[str, object] = {"local": options.local}
        result |= {role: len(side) for role, side in listed.items()}
        result["map_at_100_float16"] = round(searched(halves, root, options.workers), 4)
        assert halves.local is not None
        assert eighths.local is not None
        for whole, eighth in halves.local.zip(eighths.local).values():
            for shard in range(whole.source.shards):
                rows = whole.source.dataset(root).read(shard)
                eighth.source.dataset(root).write(shard, in_eight_bits(rows))
        result["map_at_100_int8"] = round(searched(eighths, root, options.workers), 4)
        for name, local in (("float16", halves.local), ("int8", eighths.local)):
            files = storage.folder_sizes(local.gallery.source.dataset(root).url)
            result[f"bytes_{name}"] = sum(files.values())
    print(f"mAP@100 after local search: {result['map_at_100_float16']} from float16, ", end="")
    print(f"{result['map_at_100_int8']} from int8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
