"""Own descriptors of Oxford 5k through kNN, DBA, expansion and diffusion, scored by the classic protocol.

    python benchmarks/oxford_descriptors.py [--out RUN]

Reads the descriptors where they lie (colour autocorrelograms of 256 dimensions, by name, without photos) and
runs the workflow `descriptors` on them. Queries are whole photos and stay in the gallery, as the classic
protocol has them; rankings are whole. The descriptors are weak: the table shows that the steps run, and
what neighbours do where they are mostly wrong.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _shared import shared
from rich.console import Console
from rich.table import Table

import lmr
from lmr.evaluation.protocols.scorers import map_classic

PLAIN = {"augment.neighbours": 0}
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "kNN": ("rank", PLAIN),
    "DBA": ("rank", {}),
    "expansion": ("expand", PLAIN),
    "DBA and expansion": ("expand", {}),
    "diffusion": ("diffuse", {**PLAIN, "expand.top": 0}),
    "expansion and diffusion": ("diffuse", PLAIN),
    "DBA, expansion and diffusion": ("diffuse", {}),
    "the same, diffusion solved ahead": ("diffuse", {"diffuse.method": "offline"}),
}
"""The stage whose ranking is scored, and what is changed of the settings."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", help="the run's folder; kept, and used again (default: a temporary one)")
    options = parser.parse_args()
    folder = shared("data/oxford5k_descriptors")
    names = (folder / "names.txt").read_text().split()
    row_of = {name.removesuffix(".jpg"): row for row, name in enumerate(names)}
    truth = json.loads((folder / "groundtruth_names.json").read_text())
    lists = {
        place: {kind: [name.removesuffix(".jpg") for name in some] for kind, some in one.items()}
        for place, one in truth.items()
    }
    queries = {f"{place}_{i}": name for place, one in lists.items() for i, name in enumerate(one["query"])}
    right = [
        {"ok": lists[place]["good"] + lists[place]["ok"], "junk": lists[place]["junk"]}
        for place in (query.rpartition("_")[0] for query in queries)
    ]
    features = np.load(folder / "features.npy")
    scores: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, (stage, changes) in LINES.items():
            results = lmr.run_workflow(
                "descriptors",
                gallery_descriptors=features,
                gallery_ids=list(row_of),
                query_descriptors=features[[row_of[photo] for photo in queries.values()]],
                query_ids=list(queries),
                settings={"rank.depth": len(names), **changes},
                out=Path(options.out or temporary),
                workers=options.workers,
            )
            found = results.ranking(stage).groupby("query")["photo"].apply(list)
            scores[name] = map_classic([found[query] for query in queries], right).mean
    table = Table(title=f"Oxford 5k, classic mAP over {len(queries)} queries")
    table.add_column("")
    table.add_column("mAP", justify="right")
    for name, score in scores.items():
        table.add_row(name, f"{score:.4f}")
    Console(width=110).print(table)
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
