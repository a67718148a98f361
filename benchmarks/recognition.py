"""Recognition on the development photos: GAP with each ingredient taken away, and how sure wrong names are.

    python benchmarks/recognition.py --out RUN [--global KIND] [--workers N]

Every line of the first table takes one ingredient from the default settings and keeps the rest. All lines
share the run's folder, so a line makes the last steps only. The settings were chosen on these same photos.

The second table names by calibrated probability. Each query's probabilities come from a model that was fitted
without its landmark: landmarks are dealt to five folds, in five orders, and the figures are means over the
orders. The last columns say how sure the names of queries without a landmark are: how many are surer than
half of the right names.
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
from lmr.evaluation.recognition import accuracy, gap
from lmr.evaluation.reliability import reliability
from lmr.retrieval.probability import COMBINE, SIGNALS, combined, held_out
from lmr.steps.recognition.labels import landmarks_of, names_of
from lmr.steps.results.fit_probability import LabelledAnswers, labelled_answers, right_photos
from lmr.steps.results.results import Results
from lmr.steps.results.submission import ids_of

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


SEEDS = range(5)

PROBABLE: dict[str, dict[str, Any]] = {
    "all signals, the surest photo": {},
    **{f"all signals, {how}": {"how": how} for how in COMBINE if how != "best"},
    "isotonic": {"method": "isotonic"},
    **{f"without {name}": {"names": tuple(n for n in SIGNALS if n != name)} for name in SIGNALS},
    **{f"{name} alone": {"names": (name,)} for name in SIGNALS},
}
"""What each line of the second table changes."""


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


def probable(answers: LabelledAnswers, truth: dict[str, list[str]], **changes: Any) -> dict[str, float]:
    """Return the figures of names by probabilities that were fitted without each query's landmark."""
    how = changes.pop("how", "best")
    parts = answers.run.recognised or {}
    landmarks, names = landmarks_of(parts["labels"])[answers.photos], names_of(parts["labels"])
    queries = ids_of(answers.run.photos.queries).to_pylist()
    some = landmarks >= 0
    rows: list[tuple[float, ...]] = []
    for seed in SEEDS:
        said = held_out(answers.signals, answers.right, answers.groups, seed=seed, **changes)
        cells, sure = combined(answers.queries[some], landmarks[some], said[some], how)
        named: dict[str, tuple[str, float]] = {}
        for (query, landmark), one in zip(cells.tolist(), sure.tolist(), strict=True):
            if one > named.get(queries[query], ("", -1.0))[1]:
                named[queries[query]] = (names[landmark], one)
        right = [one for query, (name, one) in named.items() if name in truth[query]]
        plain = np.array([one for query, (_, one) in named.items() if not truth[query]])
        found = reliability(said, answers.right)
        above = float((plain > np.median(right)).sum())
        rows.append(
            (gap(named, truth).mean, accuracy(named, truth).mean, above, found.brier, found.calibration_error)
        )
    columns = np.array(rows)
    keys = ("gap", "accuracy", "surer", "brier", "calibration_error")
    means = dict(zip(keys, columns.mean(axis=0).tolist(), strict=True))
    return means | {"gap_spread": float(columns[:, 0].std(ddof=1)), "base_brier": found.base_brier}


def show_probable(out: Console, found: dict[str, dict[str, float]]) -> None:
    """Print the second table."""
    table = Table(title="named by probability, fitted on other landmarks")
    for column in ("", "GAP", "±", "right names", "surer", "Brier", "mean gap"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        shares = [f"{one[key]:.4f}" for key in ("gap", "gap_spread", "accuracy")]
        table.add_row(
            name, *shares, f"{one['surer']:.1f}", f"{one['brier']:.5f}", f"{one['calibration_error']:.4f}"
        )
    out.print(table)
    out.print(
        f"Brier score of the bare share of right answers: {next(iter(found.values()))['base_brier']:.5f}"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", help="the run's folder; kept, and used again (default: a temporary one)")
    parser.add_argument("--global", dest="descriptor", help="the global descriptor (default: lmr's)")
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
                    descriptor=options.descriptor,
                    settings={"recognise": changes},
                ),
            )
            # The first line makes everything; the others make one shard or two.
            where = place_of("cpu", None, None, options.workers if name == "all" else 0)
            found[name] = figures(run_prepared(prepared, where), truth)
        answers = labelled_answers(prepared.root, right_photos(prepared.root, str(solution)))
        likely = {name: probable(answers, truth, **changes) for name, changes in PROBABLE.items()}
    out = Console(width=110)
    table = Table(title="recognition of the development photos, one ingredient taken away")
    for column in ("", "GAP", "right names", "without landmark, surer than half of the right"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        table.add_row(name, f"{one.gap:.4f}", f"{one.accuracy:.4f}", f"{one.surer} of {one.unlabelled}")
    out.print(table)
    show_probable(out, likely)
    print(json.dumps({name: vars(one) for name, one in found.items()} | {"probability": likely}))


if __name__ == "__main__":
    main()
