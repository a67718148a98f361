"""Recognition on the development photos: GAP with each ingredient taken away, and by calibrated probability.

    python benchmarks/recognition.py --out RUN [--global KIND] [--workers N]

The workflow is run once; the lines are computed from what it found, as its last steps do. Every line of the
first table takes one ingredient from the settings of the preset and keeps the rest. The settings were chosen
on these same photos.

The second table chooses how many photos speak for a landmark, by cross-validation: what is chosen on some
landmarks is looked at on others.

The third table names by calibrated probability. Each query's probabilities come from a model that was fitted
without its landmark: landmarks are dealt to five folds, in five orders, and the figures are means over the
orders. "Surer" counts queries without a landmark that are surer than half of the right names.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _shared import shared
from rich.console import Console
from rich.table import Table

from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.api.retrieve import place_of, run_prepared
from lmr.evaluation.protocols.kaggle import parse_recognition_solution
from lmr.evaluation.protocols.recognition import accuracy, gap
from lmr.evaluation.reliability import reliability
from lmr.retrieval.naming import Distractors, Found, NamingRecipe, name_after_each
from lmr.retrieval.probability import SIGNALS, held_out
from lmr.retrieval.probable_names import COMBINE, combined
from lmr.steps.ranking import read_ranking
from lmr.steps.recognition.labels import landmarks_of, names_of
from lmr.steps.results.calibration.fit_probability import LabelledAnswers, labelled_answers, right_photos
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.submission import ids_of
from lmr.storage.arrow import column
from lmr.storage.mapped import stack

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
    "ten neighbours and three candidates": {"neighbours": 10, "candidates": 3},
    "one neighbour and one candidate": {"neighbours": 1, "candidates": 1},
}
"""What each line of the first table changes of `recognise`."""

GRID = [{"neighbours": n, "candidates": m} for n in (1, 2, 3, 5, 10) for m in (1, 2, 3, 5)]
"""What the second table chooses from."""

PROBABLE: dict[str, dict[str, Any]] = {
    "all signals, the surest photo": {},
    **{f"all signals, {how}": {"how": how} for how in COMBINE if how != "best"},
    "isotonic": {"method": "isotonic"},
    **{f"without {name}": {"names": tuple(n for n in SIGNALS if n != name)} for name in SIGNALS},
    **{f"{name} alone": {"names": (name,)} for name in SIGNALS},
}
"""What each line of the third table changes."""

SEEDS, FOLDS = range(5), 5

Names = dict[str, tuple[str, float]]
Truth = dict[str, list[str]]


@dataclass(frozen=True, eq=False)
class Recognition:
    """What a run of recognition found, from which names are made."""

    run: RunDatasets
    truth: Truth
    found: Found
    distractors: Distractors
    answers: LabelledAnswers

    @property
    def queries(self) -> list[str]:
        """Ids of the queries."""
        ids: list[str] = ids_of(self.run.photos.queries).to_pylist()
        return ids

    def named(self, **changes: Any) -> Names:
        """Return the names by the run's settings with some changed."""
        recipe = replace(NamingRecipe(**self.run.settings["recognise"]), **changes)
        labels = (self.run.recognised or {})["labels"]
        stages = name_after_each(self.found, landmarks_of(labels), self.distractors, recipe)[0]
        last, names = list(stages.values())[-1], names_of(labels)
        rows = zip(self.queries, last.landmarks.tolist(), last.confidence.tolist(), strict=True)
        return {query: (names[mark], sure) for query, mark, sure in rows if mark >= 0}

    def figures(self, named: Names) -> dict[str, float]:
        """Return GAP, the share of right names, and how many queries without a landmark are surer."""
        right = [sure for query, (name, sure) in named.items() if name in self.truth[query]]
        surer = sum(sure > np.median(right) for query, (_, sure) in named.items() if not self.truth[query])
        return {
            "gap": gap(named, self.truth).mean,
            "accuracy": accuracy(named, self.truth).mean,
            "surer": float(surer),
        }


def recognition(run: RunDatasets, solution: str, truth: Truth) -> Recognition:
    """Read what a finished run found; all queries lie in one shard."""
    near, local = read_ranking(run.rankings["rank"], 0), read_ranking(run.rankings["verify"], 0)
    parts = {one.step: one for one in run.steps}
    found = Found(
        neighbours=near.photos,
        similarities=near.scores,
        candidates=local.photos,
        votes=local.scores,
        inliers=column(run.rankings["verify"].read(0), "inliers"),
    )
    distractors = Distractors(
        queries=column(parts["background_queries"].read(0), "background"),
        photos=np.asarray(stack(parts["background"], "background")),
        frequency=column(parts["frequency"].read(0), "share"),
    )
    answers = labelled_answers(run.root, right_photos(run.root, solution))
    return Recognition(run, truth, found, distractors, answers)


def chosen(one: Recognition) -> dict[str, Any]:
    """Choose how many photos speak for a landmark, by cross-validation over landmarks.

    In each fold the settings are taken that have the best GAP on all other folds. Their names of the fold's
    queries are kept, and GAP is that of the names of all folds.
    """
    named = [one.named(**settings) for settings in GRID]
    group_of = dict(zip(one.answers.queries.tolist(), one.answers.groups.tolist(), strict=True))
    kinds = np.unique(list(group_of.values()))
    taken: Counter[int] = Counter()
    scores = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(kinds).tolist()
        fold_of = {group: place % FOLDS for place, group in enumerate(order)}
        kept: Names = {}
        for fold in range(FOLDS):
            mine = {one.queries[query] for query, group in group_of.items() if fold_of[group] == fold}
            others = {query: shown for query, shown in one.truth.items() if query not in mine}
            known = [gap({q: n for q, n in some.items() if q in others}, others).mean for some in named]
            best = int(np.argmax(known))
            taken[best] += 1
            kept |= {query: name for query, name in named[best].items() if query in mine}
        scores.append(gap(kept, one.truth).mean)
    return {
        "gap": float(np.mean(scores)),
        "spread": float(np.std(scores, ddof=1)),
        "taken": [{**GRID[place], "folds": count} for place, count in taken.most_common()],
    }


def probable(one: Recognition, **changes: Any) -> dict[str, float]:
    """Return the figures of names by probabilities that were fitted without each query's landmark."""
    how, answers = changes.pop("how", "best"), one.answers
    parts = one.run.recognised or {}
    landmarks, names = landmarks_of(parts["labels"])[answers.photos], names_of(parts["labels"])
    some = landmarks >= 0
    found: list[dict[str, float]] = []
    for seed in SEEDS:
        said = held_out(answers.signals, answers.right, answers.groups, seed=seed, **changes)
        cells, sure = combined(answers.queries[some], landmarks[some], said[some], how)
        named: Names = {}
        for (query, landmark), value in zip(cells.tolist(), sure.tolist(), strict=True):
            if value > named.get(one.queries[query], ("", -1.0))[1]:
                named[one.queries[query]] = (names[landmark], value)
        good = reliability(said, answers.right)
        more = {"brier": good.brier, "base_brier": good.base_brier, "error": good.calibration_error}
        found.append(one.figures(named) | more)
    means = {key: float(np.mean([figures[key] for figures in found])) for key in found[0]}
    return means | {"spread": float(np.std([figures["gap"] for figures in found], ddof=1))}


def show(title: str, columns: dict[str, str], lines: dict[str, dict[str, float]]) -> None:
    """Print a table of figures, by the formats of its columns."""
    table = Table(title=title)
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    for name, figures in lines.items():
        table.add_row(name, *(format(figures[key], kind) for key, kind in columns.items()))
    Console(width=110).print(table)


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
    solution = str(photos / "recognition_solution.csv")
    truth = parse_recognition_solution((photos / "recognition_solution.csv").read_bytes())
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(
            "recognition",
            Choices(
                out=options.out or temporary,
                gallery=str(photos / "gallery"),
                queries=str(photos / "query"),
                labels=str(photos / "photos.csv"),
                solution=solution,
                descriptor=options.descriptor,
            ),
        )
        results = run_prepared(prepared, place_of("cpu", None, None, options.workers))
        one = recognition(results.datasets, solution, truth)
        lines = {name: one.figures(one.named(**changes)) for name, changes in LINES.items()}
        # The lines stand for runs: the first must be what the run itself came to.
        assert abs(lines["all"]["gap"] - list(results.scores.values())[-1]) < 1e-9
        picked = chosen(one)
        likely = {name: probable(one, **changes) for name, changes in PROBABLE.items()}
    plain = {"gap": ".4f", "accuracy": ".4f", "surer": ".0f"}
    show("recognition of the development photos, one ingredient taken away", plain, lines)
    print(f"chosen by cross-validation: GAP {picked['gap']:.4f} ± {picked['spread']:.4f}, {picked['taken']}")
    columns = {
        "gap": ".4f",
        "spread": ".4f",
        "accuracy": ".4f",
        "surer": ".1f",
        "brier": ".5f",
        "error": ".4f",
    }
    show("named by probability, fitted on other landmarks", columns, likely)
    print(f"Brier score of the bare share of right answers: {likely['isotonic']['base_brier']:.5f}")
    print(json.dumps({"lines": lines, "after_each": results.scores, "chosen": picked, "probability": likely}))


if __name__ == "__main__":
    main()
