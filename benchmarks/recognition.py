"""Recognition on the development photos: GAP with each ingredient taken away, and how sure wrong names are.

    python benchmarks/recognition.py --out RUN [--workers N]

Every line takes one ingredient from the default settings and keeps the rest. All lines share the run's
folder, so a line makes the last steps only. The settings were chosen on these same photos. The last columns
say how sure the names of queries without a landmark are: how many are surer than half of the right names.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.prepare import Choices, prepare
from lmr.api.retrieve import place_of, run_prepared
from lmr.evaluation.kaggle import parse_recognition_solution
from lmr.steps.results.results import Results

LINES: dict[str, dict[str, Any]] = {
    "all": {},
    "without global neighbours": {"neighbour_weight": 0},
    "without the neighbours' background": {"photo_background_weight": 0},
    "without votes": {"vote_weight": 0},
    "without inliers": {"inlier_weight": 0},
    "as sure without a verified match": {"unverified_weight": 0},
    "as sure beside a second landmark": {"margin": 0},
    "without the query's background": {"background_weight": 0},
    "without the frequency of a landmark": {"frequency_weight": 0},
    "one photo of a landmark for the sum": {"neighbours": 1, "candidates": 1},
}
"""What each line changes of `recognise`."""


@dataclass(frozen=True)
class Figures:
    """What a line came to."""

    gap: float
    accuracy: float
    surer: int
    unlabelled: int
    after_each: dict[str, float]


def figures(results: Results, truth: dict[str, list[str]]) -> Figures:
    """Return the figures of a finished run."""
    rows = results.landmarks()
    right = [name in truth[query] for query, name in zip(rows["query"], rows["landmark"], strict=True)]
    sure = rows["confidence"].to_numpy()
    plain = np.array([not truth[query] for query in rows["query"]])
    median = np.median(sure[np.array(right)])
    landmarks = sum(bool(names) for names in truth.values())
    return Figures(
        gap=list(results.scores.values())[-1],
        accuracy=sum(right) / landmarks,
        surer=int((sure[plain] > median).sum()),
        unlabelled=int(plain.sum()),
        after_each=results.scores,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="the run's folder; kept, and used again (default: a temporary one)")
    options = parser.parse_args()
    photos = shared("data/landmarks")
    solution = photos / "recognition_solution.csv"
    truth = parse_recognition_solution(solution.read_bytes())
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name, changes in LINES.items():
            prepared = prepare(
                "recognition",
                Choices(
                    out=options.out or temporary,
                    gallery=str(photos / "gallery"),
                    queries=str(photos / "query"),
                    labels=str(photos / "photos.csv"),
                    solution=str(solution),
                    settings={"recognise": changes},
                ),
            )
            # The first line makes everything; the others make one shard or two.
            where = place_of("cpu", None, None, options.workers if name == "all" else 0)
            found[name] = figures(run_prepared(prepared, where), truth)
    out = Console(width=110)
    table = Table(title="recognition of the development photos, one ingredient taken away")
    for column in ("", "GAP", "right names", "without landmark, surer than half of the right"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        table.add_row(name, f"{one.gap:.4f}", f"{one.accuracy:.4f}", f"{one.surer} of {one.unlabelled}")
    out.print(table)
    print(json.dumps({name: vars(one) for name, one in found.items()}))


if __name__ == "__main__":
    main()
