"""The files that a finished run leaves for people: its submission, its scores, and what could not be used."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmr import storage
from lmr.errors import ShardError
from lmr.evaluation.protocols.kaggle import submission_csv
from lmr.runtime.tasks import sources_note
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.datasets import Dataset
from lmr.storage.json_files import read_json, write_json
from lmr.text import csv_cell, printable

__all__ = [
    "Unusable",
    "read_accuracy",
    "read_notes",
    "read_scores",
    "read_sources",
    "read_unusable",
    "score_rows",
    "store_photos",
    "store_scores",
    "store_sources",
    "store_submission",
]


SOURCES = "sources.json"
"""Is there only where a run's shards come from several sources of lmr."""


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
    path
        Where it lies below its folder.
    """

    set: str
    id: str
    reason: str
    path: str = ""


def store_submission(run: RunDatasets) -> str:
    """Write `submission.csv` into the run's folder, a line per query; return its URL."""
    predictions: dict[str, list[str]] = {}
    for shard in range(run.submission.shards):
        rows = run.submission.read(shard).to_pydict()
        predictions.update(zip(rows["id"], rows["images"], strict=True))
    url = storage.join(run.root, "submission.csv")
    storage.put(url, submission_csv(predictions))
    return url


def store_photos(run: RunDatasets) -> str:
    """Write `photos.csv` into the run's folder: the path of every id in the other files; return its URL.

    Columns `set`, `id`, `path`, and `label` where a list gave one.
    """
    tables = {role: photos.read(0) for role, photos in run.photos.items()}
    with_labels = any("label" in rows.column_names for rows in tables.values())
    lines = ["set,id,path,label" if with_labels else "set,id,path"]
    for role, rows in tables.items():
        columns = [rows.column("id").to_pylist(), map(csv_cell, rows.column("path").to_pylist())]
        if with_labels:
            known = rows.column("label").to_pylist() if "label" in rows.column_names else [""] * len(rows)
            columns.append(map(csv_cell, known))
        # Ids are as Kaggle's file has them, and need no quotes.
        lines += [",".join([role, *row]) for row in zip(*columns, strict=True)]
    url = storage.join(run.root, "photos.csv")
    storage.put(url, "\n".join([*lines, ""]).encode())
    return url


def store_scores(run: RunDatasets) -> None:
    """Write `scores.json` into the run's folder; nothing without a solution."""
    if scores := read_scores(run):
        protocol = {"protocol": "map_at_100" if run.recognised is None else "gap"}
        facts: dict[str, Any] = {**scores, **read_accuracy(run), **protocol}
        storage.put(storage.join(run.root, "scores.json"), (json.dumps(facts, indent=2) + "\n").encode())


def read_scores(run: RunDatasets) -> dict[str, float]:
    """Return mAP@100 after each stage, of recognition GAP after each ingredient; empty without a solution."""
    if run.recognised is not None:
        return {} if "scores" not in run.recognised else _means(run.recognised["scores"])
    if run.scores is None:
        return {}
    return _means(run.scores, run.rankings)


def read_accuracy(run: RunDatasets) -> dict[str, float]:
    """Return the `accuracy` of recognition; empty for other workflows and without a solution."""
    scored = run.recognised is not None and "scores" in run.recognised
    return _means(run.recognised["scores"], ["accuracy"]) if scored and run.recognised else {}


def score_rows(run: RunDatasets) -> pa.Table | None:
    """Return every query's score after each stage or ingredient, and column `id`; None without scores."""
    dataset = run.scores if run.recognised is None else run.recognised.get("scores")
    if dataset is None:
        return None
    rows = dataset.read(0)
    return rows.select(["id", *(run.rankings if run.recognised is None else _ingredients(rows))])


def _ingredients(rows: pa.Table) -> list[str]:
    """Return the ingredients that names were scored after: all columns but the others."""
    return [name for name in rows.column_names if name not in ("id", "accuracy")]


def _means(scores: Dataset, names: Iterable[str] | None = None) -> dict[str, float]:
    rows = scores.read(0)
    names = _ingredients(rows) if names is None else names
    return {name: float(np.nanmean(rows.column(name).to_numpy())) for name in names}


def store_sources(run: RunDatasets, sources: Iterable[str]) -> tuple[str, ...]:
    """Keep whether the shards of a run come from several sources of lmr; return the sentence that says so.

    Parameters
    ----------
    run
        The run.
    sources
        The digest of the source that made each shard, as the shard names it; empty where it names none.
    """
    told = sources_note(sources, whose="the run's")
    url = storage.join(run.root, SOURCES)
    if told:
        write_json(url, {"told": list(told)})
    elif storage.exists(url):
        storage.delete(url)
    return told


def read_sources(run: RunDatasets) -> list[str]:
    """Return what is to be told when the shards of a closed run come from several sources of lmr."""
    url = storage.join(run.root, SOURCES)
    if not storage.exists(url):
        return []
    told = read_json(url, dict[str, list[str]], fix="write it anew with `lmr report`")["told"]
    return [printable(line) for line in told]


def read_notes(run: RunDatasets) -> list[str]:
    """Return what the steps of one shard, which learn from the whole gallery, say to people.

    A finished run does not need the shards of its early steps any more: one that was lost says nothing.
    """
    notes: dict[str, None] = {}
    for dataset in run.steps:
        with suppress(ShardError):
            if dataset.shards == 1 and (note := dataset.facts(0).get("note")):
                notes[note] = None
    return [*notes, *read_sources(run)]


def read_unusable(run: RunDatasets) -> list[Unusable]:
    """Return the photos that could not be used; none where no photo was looked at."""
    if run.unusable is None:
        return []
    found: list[Unusable] = []
    bad = run.unusable.read(0)
    for role, photos in run.photos.items():
        some = bad.filter(pc.equal(bad.column("set"), role))
        listed = photos.read(0, ["id", "path"]).take(some.column("photo"))
        columns = (listed.column("id"), some.column("reason"), listed.column("path"))
        found += [Unusable(role, *row) for row in zip(*(c.to_pylist() for c in columns), strict=True)]
    return found
