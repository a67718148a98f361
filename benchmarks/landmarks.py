"""How good each choice of features is on the development photos: mAP@100 after each step.

    python benchmarks/landmarks.py [--variants lite0 vlad mobilenet lite0+xfeat] [--seeds 5] [--out FOLDER]

The first variant is the one that the others are compared with. Steps 1 and 2 hang on the seed of the local
index, so each variant runs with several: scores are means over them, with the least and the greatest.
Standard errors are those of the mean over queries, of each query's mean over seeds. Differences are paired,
query by query.

All runs share a folder, so that photos are read and described once. Reads the development photos where they
lie; the settings were chosen on these same photos. Times are those of `benchmarks/landmarks_workers.py`.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from _development import VARIANTS, development_inputs, mean_error, scored

from workflows import retrieval

Scores = dict[str, NDArray[np.float64]]
"""AP@100 (seeds, queries) by stage."""


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the local index, from 0 on")
    parser.add_argument("--workers", type=int, default=1, help="worker processes; 0: this process")
    parser.add_argument("--out", help="the runs' folder; kept, and used again (default: a temporary one)")
    options = parser.parse_args()
    found: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.variants:
            variant, root = VARIANTS[name], options.out or temporary
            inputs, runs = development_inputs(variant), []
            for seed in range(options.seeds):
                flow = retrieval.build(inputs, variant.settings({"index": {"seed": seed}}))
                started, spent = time.perf_counter(), time.process_time()
                runs.append(scored(flow, root, options.workers))
                wall, own = time.perf_counter() - started, time.process_time() - spent
                ends = {stage: round(float(values.mean()), 4) for stage, values in runs[-1].items()}
                took = f"{wall:.0f} s by the clock, {own:.0f} s of this process"
                print(f"{name}, seed {seed}: {ends}; {took}", file=sys.stderr, flush=True)
            found[name] = {stage: np.stack([run[stage] for run in runs]) for stage in runs[0]}
    show(found, Console(width=140))


def show(found: dict[str, Scores], out: Console) -> None:
    """Print the table of scores and that of paired differences, and all figures as one line of JSON."""
    first = next(iter(found))
    seeds, queries = next(iter(found[first].values())).shape
    table = Table(
        title=f"mAP@100 ± standard error over {queries} queries; least to greatest of {seeds} seeds"
    )
    paired = Table(title=f"difference from {first}, paired by query, ± standard error")
    for one in (table, paired):
        one.add_column("after step")
    for name in found:
        table.add_column(name, justify="right")
    for name in list(found)[1:]:
        paired.add_column(name, justify="right")
    figures: dict[str, dict[str, dict[str, float]]] = {name: {} for name in found}
    for stage in found[first]:
        cells, differences = [], []
        for name, scores in found.items():
            by_seed, by_query = scores[stage].mean(axis=1), scores[stage].mean(axis=0)
            mean, error = mean_error(by_query)
            more, more_error = mean_error(by_query - found[first][stage].mean(axis=0))
            cells.append(f"{mean:.3f} ± {error:.3f}; {by_seed.min():.3f} to {by_seed.max():.3f}")
            differences.append(f"{more:+.3f} ± {more_error:.3f}")
            figures[name][stage] = {
                "mean": round(mean, 4),
                "error": round(error, 4),
                "least": round(float(by_seed.min()), 4),
                "greatest": round(float(by_seed.max()), 4),
                "paired": round(more, 4),
                "paired_error": round(more_error, 4),
            }
        table.add_row(retrieval.LABELS[stage], *cells)
        paired.add_row(retrieval.LABELS[stage], *differences[1:])
    out.print(table)
    if len(found) > 1:
        out.print(paired)
    print(json.dumps({"seeds": seeds, "queries": queries, "scores": figures}))


if __name__ == "__main__":
    main()
