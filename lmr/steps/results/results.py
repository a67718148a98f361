"""What a finished run leaves for people to read, made from what is in storage."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmr import storage
from lmr.errors import StorageError
from lmr.evaluation.kaggle import submission_csv
from lmr.runtime.steps import closure, grouped
from lmr.steps.workflow import Workflow
from lmr.storage.datasets import Dataset
from lmr.storage.json_files import read_json, write_json

__all__ = [
    "Finished",
    "Unusable",
    "read_record",
    "read_scores",
    "read_unusable",
    "store_record",
    "store_scores",
    "store_submission",
]

RECORD = "datasets.json"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The datasets of a workflow in a run's folder.

    It travels to the worker that closes the run, and so names datasets only: it is small, whatever the
    number of photos.

    Attributes
    ----------
    root
        The run's folder.
    photos, images, local
        Lists of photos, their contents and their local features: gallery, queries.
    starts
        The rows at which generations of photos begin: gallery, queries.
    pairs
        The verified pairs.
    rankings
        A ranking after each step, in order.
    submission, unusable
        What is submitted; photos that could not be used.
    scores, solution
        Scores of every ranking and what they were scored by; None without a solution.
    steps
        The datasets of all steps, for what they cost.
    photos_per_shard
        As ingested.
    settings
        Settings of every step, as plain values.
    """

    root: str
    photos: tuple[Dataset, Dataset]
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    images: tuple[Dataset, Dataset]
    local: tuple[Dataset, Dataset]
    pairs: Dataset
    rankings: Mapping[str, Dataset]
    submission: Dataset
    unusable: Dataset
    scores: Dataset | None
    solution: Dataset | None
    steps: tuple[Dataset, ...]
    photos_per_shard: int
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, flow: Workflow, root: str, settings: Any) -> "Finished":
        """Name the datasets of a workflow below a folder; `settings` is a dataclass of dataclasses."""
        inputs, per_shard = flow.inputs, flow.photos_per_shard
        return cls(
            root=root,
            photos=(
                inputs.gallery.given(per_shard).dataset(root),
                inputs.queries.given(per_shard).dataset(root),
            ),
            starts=(inputs.gallery.starts, inputs.queries.starts),
            images=(flow.images[0].dataset(root), flow.images[1].dataset(root)),
            local=(flow.local[0].dataset(root), flow.local[1].dataset(root)),
            pairs=flow.pairs.dataset(root),
            rankings={name: step.dataset(root) for name, step in flow.rankings.items()},
            submission=flow.submission.dataset(root),
            unusable=flow.unusable.dataset(root),
            scores=flow.scores.dataset(root) if flow.scores else None,
            solution=inputs.solution.dataset(root) if inputs.solution else None,
            steps=tuple(source.dataset(root) for source in grouped(closure(flow.targets))),
            photos_per_shard=per_shard,
            settings=dataclasses.asdict(settings),
        )


@dataclass(frozen=True)
class Unusable:
    """A photo that could not be used, and why."""

    set: str
    id: str
    reason: str


@dataclass
class _Record:
    settings: dict[str, Any]
    gallery: Dataset
    queries: Dataset
    pairs: Dataset


def store_record(run: Finished) -> None:
    """Write `datasets.json` into the run's folder: the settings, and which datasets hold photos and pairs.

    For commands that look at a run afterwards and do not know how it was made.
    """

    def place(dataset: Dataset) -> dict[str, Any]:
        folder = dataset.url[len(run.root.rstrip("/")) + 1 :]
        return {**dataclasses.asdict(dataset), "url": folder}

    record = {
        "settings": run.settings,
        "gallery": place(run.photos[0]),
        "queries": place(run.photos[1]),
        "pairs": place(run.pairs),
    }
    write_json(storage.join(run.root, RECORD), record)


def read_record(root: str) -> dict[str, Any]:
    """Return what `store_record` wrote, its datasets opened.

    Raises
    ------
    StorageError
        If the folder holds no finished run.
    """
    url = storage.join(root, RECORD)
    if not storage.exists(url):
        raise StorageError(
            "there is no finished run here",
            got=f"no {url}",
            fix="give the folder that lmr run had as --out; if an older lmr made it, run it once more",
        )
    fix = f"delete {url} and run lmr run again: it is made anew"
    record: dict[str, Any] = vars(read_json(url, _Record, fix=fix))
    for name in ("gallery", "queries", "pairs"):
        record[name] = replace(record[name], url=storage.join(root, record[name].url))
    return record


def store_submission(run: Finished) -> str:
    """Write `submission.csv` into the run's folder, a line per query; return its URL."""
    predictions: dict[str, list[str]] = {}
    for shard in range(run.submission.shards):
        rows = run.submission.read(shard).to_pydict()
        predictions.update(zip(rows["id"], rows["images"], strict=True))
    url = storage.join(run.root, "submission.csv")
    storage.put(url, submission_csv(predictions))
    return url


def store_scores(run: Finished) -> None:
    """Write `scores.json` into the run's folder; nothing without a solution."""
    if scores := read_scores(run):
        facts: dict[str, Any] = {**scores, "protocol": "map_at_100"}
        storage.put(storage.join(run.root, "scores.json"), (json.dumps(facts, indent=2) + "\n").encode())


def read_scores(run: Finished) -> dict[str, float]:
    """Return mAP@100 after each step; empty without a solution."""
    if run.scores is None:
        return {}
    rows = run.scores.read(0)
    return {name: float(np.nanmean(rows.column(name).to_numpy())) for name in run.rankings}


def read_unusable(run: Finished) -> list[Unusable]:
    """Return the photos that could not be used."""
    return [Unusable(**row) for row in run.unusable.read(0).to_pylist()]
