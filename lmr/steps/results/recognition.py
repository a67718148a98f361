"""The files that a run of recognition leaves: submission, table of names, wrong labels, and the page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError, PhotoError, ShardError
from lmr.evaluation.pages.pictures import thumbnail
from lmr.evaluation.pages.recognition import (
    Attraction,
    NamedQuery,
    Photo,
    RecognitionPage,
    SuspectLabel,
    render_recognition,
)
from lmr.evaluation.protocols.kaggle import recognition_csv
from lmr.retrieval.label_check import Suspects, suspect_labels
from lmr.runtime.steps import Role
from lmr.steps.recognition.labels import landmarks_of, names_of
from lmr.steps.recognition.scores import Predictions, predictions_of
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_accuracy, read_scores
from lmr.steps.results.submission import ids_of
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.text import csv_cell

__all__ = ["read_names", "store_recognition", "store_recognition_page"]

SHOWN = 60
"""Confusions, attracting landmarks and wrong labels that the page shows."""

PICTURE_PX = 220


def read_names(run: RunDatasets) -> Predictions:
    """Return query id to landmark and confidence; None for a query that is named nothing.

    Raises
    ------
    LmrError
        If the workflow names no landmarks.
    """
    if run.recognised is None:
        raise LmrError(
            "this workflow names no landmarks", got=run.root, fix="open a run of the workflow recognition"
        )
    names = names_of(run.recognised["labels"])
    return predictions_of(run.recognised["named"], ids_of(run.photos.queries).to_pylist(), names)


def store_recognition(run: RunDatasets, parts: Mapping[str, Dataset]) -> None:
    """Write `submission.csv`, `landmarks.csv`, and `wrong_labels.csv` where labels were checked."""
    predictions = read_names(run)
    storage.put(storage.join(run.root, "submission.csv"), recognition_csv(predictions))
    facts = _Facts(run, parts, predictions)
    storage.put(storage.join(run.root, "landmarks.csv"), facts.table().encode())
    if facts.suspects is not None:
        storage.put(storage.join(run.root, "wrong_labels.csv"), facts.label_table(facts.suspects).encode())


def store_recognition_page(run: RunDatasets) -> bool:
    """Write `report/recognition.html`; return whether it could be: all names must be there."""
    parts = run.recognised or {}
    if not parts or any(len(part.present()) < part.shards for part in parts.values()):
        return False
    page = render_recognition(_Facts(run, parts, read_names(run)).page())
    storage.put(storage.join(run.root, "report", "recognition.html"), page.encode())
    return True


class _Facts:
    """What is read of a run of recognition, and the texts that are made of it."""

    def __init__(self, run: RunDatasets, parts: Mapping[str, Dataset], predictions: Predictions) -> None:
        self.run, self.predictions = run, predictions
        self.landmarks, self.names = landmarks_of(parts["labels"]), names_of(parts["labels"])
        self.queries, self.gallery = (photos.read(0, ["id", "path"]) for photos in _both(run))
        self.photo = self._column(parts["named"], "photo")
        self.support = self._column(parts["named"], "support")
        self.truth = _truth(parts["truth"]) if "truth" in parts else None
        self.suspects = self._suspects(parts["label_pairs"]) if "label_pairs" in parts else None

    def _column(self, named: Dataset, name: str) -> NDArray[np.int32]:
        return np.concatenate([column(named.read(i, [name]), name) for i in range(named.shards)])

    def _suspects(self, pairs: Dataset) -> Suspects:
        least = int(self.run.settings["verify"]["min_inliers"])
        columns: dict[str, list[NDArray[np.int64]]] = {"query": [], "photo": [], "inliers": []}
        for shard in range(pairs.shards):
            rows = pairs.read(shard, list(columns))
            for name, found in columns.items():
                found.append(column(rows, name).astype(np.int64))
        query, photo, inliers = (np.concatenate(found) for found in columns.values())
        return suspect_labels(query, photo, inliers, self.landmarks, min_inliers=least)

    def _id(self, role: Role, row: int) -> str:
        photos = self.queries if role == "queries" else self.gallery
        return str(photos.column("id")[row].as_py())

    def _is_right(self, query: str) -> bool:
        named = self.predictions[query]
        return self.truth is not None and named is not None and named[0] in self.truth.get(query, ())

    def table(self) -> str:
        """Return a line per query, as CSV."""
        lines = ["id,path,landmark,confidence,support,photo" + (",right" if self.truth is not None else "")]
        paths = self.queries.column("path").to_pylist()
        for row, (query, named) in enumerate(self.predictions.items()):
            name, sure = ("", "") if named is None else (csv_cell(named[0]), repr(named[1]))
            photo = self._id("gallery", int(self.photo[row])) if self.photo[row] >= 0 else ""
            cells = [query, csv_cell(paths[row] or ""), name, sure, str(self.support[row]), photo]
            if self.truth is not None:
                cells.append(csv_cell(" ".join(self.truth.get(query, ()))))
            lines.append(",".join(cells))
        return "\n".join([*lines, ""])

    def label_table(self, found: Suspects) -> str:
        """Return a line per suspicious label, as CSV."""
        lines = ["id,landmark,neighbours_say,others,own,neighbour"]
        for i, row in enumerate(found.photos.tolist()):
            own, other = self.names[self.landmarks[row]], self.names[found.landmarks[i]]
            beside = self._id("gallery", int(found.neighbours[i]))
            cells = [self._id("gallery", row), csv_cell(own), csv_cell(other)]
            lines.append(",".join([*cells, str(found.others[i]), str(found.own[i]), beside]))
        return "\n".join([*lines, ""])

    def page(self) -> RecognitionPage:
        """Return what the page shows."""
        ids = list(self.predictions)
        named = [(row, *one) for row, one in enumerate(self.predictions.values()) if one is not None]
        scored = [one for one in named if self.truth is not None and ids[one[0]] in self.truth]
        right = np.array([self._is_right(ids[row]) for row, _, _ in scored], bool)
        wrong = [one for one, is_right in zip(scored, right, strict=True) if not is_right]
        wrong.sort(key=lambda one: (-one[2], one[0]))
        shown, suspects = wrong[:SHOWN], self._shown_suspects()
        rows = {int(self.photo[row]) for row, _, _ in shown if self.photo[row] >= 0}
        rows |= {row for pair in suspects for row in pair}
        queries = self._photos("queries", [row for row, _, _ in shown])
        gallery = self._photos("gallery", rows)
        truth = self.truth or {}
        accuracy = read_accuracy(self.run).get("accuracy")
        scores = read_scores(self.run)
        return RecognitionPage(
            run=self.run.root.rstrip("/").rsplit("/", 1)[-1],
            about=f"{len(ids):,} queries, {len(named):,} of them named; {len(self.names):,} landmarks on "
            f"{int((self.landmarks >= 0).sum()):,} of {len(self.landmarks):,} gallery photos",
            scores={self.run.label(name): gap for name, gap in scores.items()},
            accuracy=accuracy,
            confidence=np.array([sure for _, _, sure in scored], np.float64),
            right=right,
            shows=np.array([bool(truth[ids[row]]) for row, _, _ in scored], bool),
            confused=[
                NamedQuery(
                    query=queries[row],
                    landmark=name,
                    confidence=sure,
                    right=truth[ids[row]],
                    photo=gallery.get(int(self.photo[row])),
                )
                for row, name, sure in shown
            ],
            n_confused=len(wrong),
            attractions=_attractions([(ids[row], name) for row, name, _ in scored], truth)[:SHOWN],
            suspects=None if self.suspects is None else self._suspect_labels(gallery),
            n_suspects=0 if self.suspects is None else len(self.suspects.photos),
        )

    def _shown_suspects(self) -> list[tuple[int, int]]:
        if self.suspects is None:
            return []
        pairs = zip(self.suspects.photos.tolist(), self.suspects.neighbours.tolist(), strict=True)
        return list(pairs)[:SHOWN]

    def _suspect_labels(self, gallery: Mapping[int, Photo]) -> list[SuspectLabel]:
        assert self.suspects is not None
        return [
            SuspectLabel(
                photo=gallery[row],
                label=self.names[self.landmarks[row]],
                neighbour=gallery[beside],
                neighbour_label=self.names[self.suspects.landmarks[i]],
                others=int(self.suspects.others[i]),
                own=int(self.suspects.own[i]),
            )
            for i, (row, beside) in enumerate(self._shown_suspects())
        ]

    def _photos(self, role: Role, rows: Iterable[int]) -> dict[int, Photo]:
        """Return photos by row, with small pictures; one whose shard is gone has none."""
        pictures = small_pictures(self.run, role, rows)
        return {row: Photo(name=self._id(role, row), picture=picture) for row, picture in pictures.items()}


def small_pictures(run: RunDatasets, role: Role, rows: Iterable[int]) -> dict[int, str]:
    """Return small pictures of photos by row; empty where a photo, or its shard, cannot be read."""
    wanted = dict.fromkeys(sorted(set(rows)), "")
    if run.images is None:
        return wanted
    images, contents = run.images.of(role), dict[int, bytes]()
    shards: dict[int, list[tuple[int, int]]] = {}
    for row in wanted:
        shard, inside = run.layouts.of(role).place(row)
        shards.setdefault(shard, []).append((row, inside))
    for shard, places in shards.items():
        try:
            stored = images.read(shard, ["image"]).column("image")
        except ShardError:
            continue
        contents |= {row: stored[inside].as_py() for row, inside in places}
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(_picture, contents.values())
        return {**wanted, **dict(zip(contents, made, strict=True))}


def _picture(jpeg_bytes: bytes) -> str:
    try:
        return thumbnail(jpeg_bytes, PICTURE_PX)
    except PhotoError:
        return ""


def _attractions(named: Sequence[tuple[str, str]], truth: Mapping[str, Sequence[str]]) -> list[Attraction]:
    """Count for each landmark the queries that were given its name wrongly, and rightly."""
    right = Counter(name for query, name in named if name in truth[query])
    wrong = Counter(name for query, name in named if name not in truth[query])
    plain = Counter(name for query, name in named if not truth[query])
    worst = sorted(wrong.items(), key=lambda one: (-one[1], one[0]))
    return [
        Attraction(landmark=name, wrong=count, without_landmark=plain[name], right=right[name])
        for name, count in worst
    ]


def _both(run: RunDatasets) -> tuple[Dataset, Dataset]:
    return run.photos.queries, run.photos.gallery


def _truth(dataset: Dataset) -> dict[str, list[str]]:
    rows = dataset.read(0).to_pydict()
    return dict(zip(rows["id"], rows["landmarks"], strict=True))
