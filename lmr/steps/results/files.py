"""The files that a finished run leaves for people: its submission, its scores, and what could not be used."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmr import storage
from lmr.evaluation.kaggle import submission_csv
from lmr.steps.results.datasets import RunDatasets

__all__ = ["Unusable", "read_scores", "read_unusable", "store_scores", "store_submission"]


@dataclass(frozen=True)
class Unusable:
    """A photo that could not be used, and why.

    Attributes
    ----------
    set
        "gallery" or "queries".
    id
        The photo's id.
    reason
        Why it could not be used.
    """

    set: str
    id: str
    reason: str


def store_submission(run: RunDatasets) -> str:
    """Write `submission.csv` into the run's folder, a line per query; return its URL."""
    predictions: dict[str, list[str]] = {}
    for shard in range(run.submission.shards):
        rows = run.submission.read(shard).to_pydict()
        predictions.update(zip(rows["id"], rows["images"], strict=True))
    url = storage.join(run.root, "submission.csv")
    storage.put(url, submission_csv(predictions))
    return url


def store_scores(run: RunDatasets) -> None:
    """Write `scores.json` into the run's folder; nothing without a solution."""
    if scores := read_scores(run):
        facts: dict[str, Any] = {**scores, "protocol": "map_at_100"}
        storage.put(storage.join(run.root, "scores.json"), (json.dumps(facts, indent=2) + "\n").encode())


def read_scores(run: RunDatasets) -> dict[str, float]:
    """Return mAP@100 after each stage; empty without a solution."""
    if run.scores is None:
        return {}
    rows = run.scores.read(0)
    return {name: float(np.nanmean(rows.column(name).to_numpy())) for name in run.rankings}


def read_unusable(run: RunDatasets) -> list[Unusable]:
    """Return the photos that could not be used; none where no photo was looked at."""
    return [] if run.unusable is None else [Unusable(**row) for row in run.unusable.read(0).to_pylist()]
