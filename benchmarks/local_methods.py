"""Steps 1 and 2 on the real photos: votes and ASMK, with hand-made and learned local features.

    python benchmarks/local_methods.py [--features rootsift xfeat] [--methods votes asmk] [--out FOLDER]

Runs the workflow's own steps on the development photos, one worker process. Features are extracted once and
kept in FOLDER, if one is given. Everything is at its default but what the columns say, and the least count of
inliers of a confident match, which is fitted to precision 0.99 on these photos, as `lmr calibrate` does it.

Times are those of the steps' own tasks: the index with its training, and the search per query.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.progress import ProgressBars
from lmr.cluster.client import Where
from lmr.evaluation.calibrate import fit_threshold, precision_curve
from lmr.evaluation.protocols.scorers import map_at_100
from lmr.runtime.steps import Step, closure
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.local import LocalSettings
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.local_search.asmk import AsmkSettings
from lmr.steps.local_search.votes import SearchSettings
from lmr.steps.photos.listing import list_photos
from lmr.steps.ranking import read_ranking
from lmr.steps.results.calibration.calibrate import labelled_pairs
from lmr.steps.results.folder.datasets import RunDatasets, store_datasets
from lmr.steps.results.scores import read_solution
from lmr.steps.verification.verify import VerifySettings
from lmr.steps.workflow import Workflow

sys.path.insert(0, str(Path(__file__).parents[1]))
from workflows import retrieval

WEIGHTS = {
    "rootsift": None,
    "xfeat": "weights/xfeat/xfeat_folded.npz",
    "aliked-t16": "weights/aliked/aliked-t16.pth",
}
METHODS = {
    "votes": {"search": SearchSettings()},
    "votes+idf": {"search": SearchSettings(idf=True)},
    "asmk": {"search": SearchSettings(method="asmk")},
    "asmk+idf": {"search": SearchSettings(method="asmk"), "asmk": AsmkSettings(idf=True)},
}
PRECISION = 0.99
INDEX = ("train_quantiser", "index", "train_codebook", "index_asmk")


def declared(features: str, method: str, min_inliers: int, prune: int | None) -> tuple[Workflow, Any]:
    """Declare the workflow on the development photos; return it with its settings."""
    photos, weights = shared("data/landmarks"), WEIGHTS[features]
    gallery = list_photos("gallery", str(photos / "gallery"))
    inputs = Inputs(
        photos=Both(
            gallery.first(prune) if prune else gallery, list_photos("queries", str(photos / "query"))
        ),
        local_weights=Weights.of(str(shared(weights))) if weights else None,
    )
    settings = replace(
        retrieval.PRESETS["vlad"],
        local=LocalSettings(features=features),
        verify=VerifySettings(min_inliers=min_inliers),
        **METHODS[method],
    )
    return retrieval.build(inputs, settings), settings


def measured(
    options: argparse.Namespace, features: str, method: str, root: str, out: Console
) -> dict[str, Any]:
    """Run steps 1 and 2 and return their scores and what they cost."""
    truth = read_solution(str(shared("data/landmarks") / "retrieval_solution.csv"))

    def run_to(step: Step) -> None:
        with ProgressBars(out) as bars:
            run([step], root, Where(workers=1), bars)

    flow, settings = declared(features, method, 0, options.prune)
    assert flow.verified is not None
    fitted = None
    if method in options.verify:
        run_to(flow.verified.pairs)
        store_datasets(RunDatasets.of(flow, root, settings))
        pairs = labelled_pairs(root, truth)
        fitted = fit_threshold(precision_curve(pairs.inliers, pairs.right), PRECISION)
        flow, _ = declared(features, method, fitted, options.prune)
        run_to(flow.rankings["verify"].step)
    else:
        run_to(flow.rankings["search"].step)
    photos = flow.inputs.photos
    gallery = set(photos.gallery.ids)
    truth = {query: [image for image in images if image in gallery] for query, images in truth.items()}

    def score(name: str) -> float:
        dataset = flow.rankings[name].step.dataset(root)
        found = [read_ranking(dataset, i).photos for i in range(dataset.shards)]
        ids = {
            query: [photos.gallery.ids[photo] for photo in listed if photo >= 0]
            for query, listed in zip(photos.queries.ids, np.concatenate(found), strict=True)
        }
        return round(float(map_at_100(ids, truth).mean), 4)

    facts = {
        step.name: [step.dataset(root).facts(i) for i in range(step.shards)]
        for step in closure([flow.rankings["search"].step])
    }
    size = sum(
        step.dataset(root).present()[i]
        for step in closure([flow.rankings["search"].step])
        if step.name in ("index", "index_asmk")
        for i in range(step.shards)
    )
    descriptors = sum(fact["rows"] for fact in facts["extract_local"])
    return {
        "features": features,
        "method": method,
        "search": score("search"),
        "verify": score("verify") if method in options.verify else None,
        "min_inliers": fitted,
        "index_seconds": round(sum(f["seconds"] for name in INDEX for f in facts.get(name, [])), 1),
        "search_ms_per_query": round(
            1e3 * sum(f["seconds"] for f in facts["search"]) / len(photos.queries), 1
        ),
        "index_bytes_per_descriptor": round(size / descriptors, 1),
    }


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", nargs="+", choices=list(WEIGHTS), default=["rootsift", "xfeat"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["votes", "votes+idf", "asmk"])
    parser.add_argument(
        "--verify",
        nargs="*",
        choices=list(METHODS),
        default=["votes", "asmk"],
        help="methods that step 2 follows",
    )
    parser.add_argument("--prune", type=int, help="only the first N gallery photos")
    parser.add_argument("--out", help="keep the runs in this folder (default: a temporary one)")
    options = parser.parse_args()
    out = Console(width=110)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.out or temporary
        rows = [measured(options, f, m, root, out) for f in options.features for m in options.methods]
    table = Table(title="mAP@100 of the development photos")
    for name in rows[0]:
        table.add_column(
            name.replace("_", " "), justify="left" if name in ("features", "method") else "right"
        )
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)
    print(json.dumps({"gallery": options.prune, "rows": rows}))


if __name__ == "__main__":
    main()
