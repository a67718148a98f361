"""What DBA, expansion, verified photos and diffusion each add on the real photos: mAP@100 with and without.

    python benchmarks/ablation.py --out RUN [--global vlad gem]

Every line changes one thing of the descriptor's own settings and keeps the rest. All lines share one run's
folder, so photos are read, described and verified once. Reads the development photos where they lie; the
settings were calibrated on these same photos (docs/results/quality.md).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.runtime.settings import layer
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_scores
from lmr.steps.results.scores import read_solution, solution_for

sys.path.insert(0, str(Path(__file__).parents[1]))
from workflows import retrieval

LINES: dict[str, dict[str, dict[str, Any]]] = {
    "all": {},
    "without DBA": {"augment": {"neighbours": 0}},
    "without expansion": {"expand": {"top": 0, "verified": False}},
    "without verified photos in the expansion": {"expand": {"verified": False}},
    "without diffusion": {"diffuse": {"method": "none"}},
    "offline diffusion of photos": {"diffuse": {"method": "offline"}},
    "offline, queries as nodes": {"diffuse": {"method": "offline"}, "columns": {"queries_are_nodes": True}},
    "regions reduced to 5 per photo": {"graph": {"regions": 5}},
}
"""What each line changes; `all` has regional diffusion."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["vlad", "gem"]
    parser.add_argument("--global", dest="descriptors", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--paper", action="store_true", help="add a line with the paper's settings")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="the run's folder; kept, and used again (default: a temporary one)")
    options = parser.parse_args()
    photos = shared("data/landmarks")
    listed = Both(
        list_photos("gallery", str(photos / "gallery")), list_photos("queries", str(photos / "query"))
    )
    truth = read_solution(str(photos / "retrieval_solution.csv"))
    weights = None
    if "gem" in options.descriptors:
        weights = Weights.of(str(shared("weights/mobilenet_v2_imagenet.pth")))
    inputs = Inputs(photos=listed, solution=solution_for(truth, listed), weights=weights)
    out, scores = Console(width=110), {}
    with tempfile.TemporaryDirectory() as temporary:
        root = options.out or temporary
        for descriptor in options.descriptors:
            own = retrieval.PRESETS[descriptor]
            lines = {name: layer(own, changes) for name, changes in LINES.items()}
            if options.paper:
                chosen = {"describe": {"descriptor": descriptor}}
                lines["the paper's settings"] = layer(retrieval.PRESETS["paper"], chosen)
            for name, settings in lines.items():
                flow = retrieval.build(inputs, settings)
                with ProgressBars(out) as bars:
                    run(flow.targets, root, Where(workers=options.workers), bars)
                scores[descriptor, name] = read_scores(RunDatasets.of(flow, root, settings))
                out.print(descriptor, name, scores[descriptor, name])
    names = list(dict.fromkeys(name for _, name in scores))
    table = Table(title="mAP@100 in the end")
    table.add_column("")
    for descriptor in options.descriptors:
        table.add_column(descriptor, justify="right")
    for name in names:
        table.add_row(name, *(f"{scores[d, name]['diffuse']:.4f}" for d in options.descriptors))
    out.print(table)
    print(json.dumps({d: {name: scores[d, name] for name in names} for d in options.descriptors}))


if __name__ == "__main__":
    main()
