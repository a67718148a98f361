"""The landmark of each gallery photo, and the true landmarks of queries: lists that a run starts from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import NOTHING, is_plain_id, parse_recognition_solution
from lmr.evaluation.scores import first_five
from lmr.evaluation.table_text import cells_of, text_of
from lmr.runtime.settings import digest
from lmr.runtime.steps import Given
from lmr.steps.parquet_files import parquet_table
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.names import PhotoNames, encoded, told
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.text import counted, printable

__all__ = [
    "Labels",
    "imagined_labels",
    "landmarks_of",
    "names_of",
    "read_labels",
    "stored_labels",
    "truth_of",
]

_COLUMNS = ("landmark", "landmark_id", "landmarks", "label")
_IMAGINED_PHOTOS = 20  # of a landmark, as in the Google Landmarks Dataset v2
_FIX = "give CSV or Parquet with the columns id and landmark; an empty landmark stands for none"


@dataclass(frozen=True, eq=False)
class Labels:
    """What each photo of a gallery shows.

    Attributes
    ----------
    rows
        A row per gallery photo: columns `landmark` (int32, number of its landmark, -1 for none) and `name`.
    names
        Names of the landmarks, in order of the numbers.
    """

    rows: Given
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many landmarks there are."""
        return len(self.names)


def read_labels(photos: Photos, url: str | None) -> tuple[Labels, list[str]]:
    """Return the labels of a gallery, and what is odd about them, in sentences.

    Parameters
    ----------
    photos
        The gallery.
    url
        CSV or Parquet file with the columns `id` and `landmark`. None: the labels of the gallery's own list,
        or else the first folder of each photo's path.

    Raises
    ------
    LmrError
        If the file is no such table, names a photo twice, or names landmarks that cannot stand in Kaggle's
        files; if no photo has a landmark.
    """
    news: list[str] = []
    if url is not None:
        texts, news = _of_file(photos, url)
        from_where = f"the landmarks of {printable(url)}"
    elif photos.labels:
        texts = ["" if label.lower() in NOTHING else encoded(label) for label in photos.labels]
        from_where = "the labels of the gallery's list"
    else:
        texts = [encoded(path.partition("/")[0]) if "/" in path else "" for path in photos.places]
        from_where = "the folders of the gallery"
    names = sorted(set(texts) - {""})
    if not names:
        raise LmrError(
            "no photo of the gallery has a landmark",
            got=from_where,
            fix="give --labels a CSV id,landmark, or a gallery with a folder per landmark",
        )
    number = {name: i for i, name in enumerate(names)} | {"": -1}
    landmarks = np.array([number[text] for text in texts], np.int32)
    labelled = int((landmarks >= 0).sum())
    news.append(
        f"{labelled:,} of {len(texts):,} gallery photos show one of {len(names):,} landmarks ({from_where})"
    )
    rows = Given(
        name="labels",
        folder="solution/labels",
        rows=pa.table({"landmark": landmarks, "name": pa.array(texts, pa.string())}),
        fingerprint=digest(texts),
    )
    return Labels(rows=rows, names=tuple(names)), news


def imagined_labels(photos: Photos) -> Labels:
    """Return labels to plan and to draw with: every landmark has as many photos."""
    texts = tuple(f"landmark{row // _IMAGINED_PHOTOS}" for row in range(len(photos)))
    return read_labels(replace(photos, labels=texts), None)[0]


def stored_labels(labels: Dataset) -> Labels:
    """Return the labels of a run that has ended, as its folder keeps them.

    Raises
    ------
    ShardError
        If they are no longer there.
    """
    rows = Given(
        name=labels.step, folder="solution/labels", rows=labels.read(0), fingerprint=labels.fingerprint
    )
    return Labels(rows=rows, names=tuple(names_of(labels)))


def truth_of(url: str, photos: Photos, labels: Labels, *, pruned: bool = False) -> tuple[Given, list[str]]:
    """Read a recognition solution and check it against the queries.

    Returns
    -------
    truth
        Columns `id` and `landmarks` (list of names; empty where the query shows none).
    news
        What is odd about it, in sentences.

    Raises
    ------
    LmrError
        If the file is no recognition solution, or names queries that are not there, or none with a landmark.
    """
    names = PhotoNames(photos.ids, photos.places if all(photos.paths) else photos.ids)
    kept: dict[str, list[str]] = {}
    lost: list[str] = []
    for query, landmarks in parse_recognition_solution(storage.read(url), url).items():
        row = names.find(query)
        if row is None:
            lost.append(query)
        else:
            kept[photos.ids[row]] = landmarks
    if lost and not pruned:
        raise LmrError(
            f"the solution names {len(lost):,} queries that are not there",
            got=first_five(map(told, lost)),
            fix="give the solution that belongs to these photos",
        )
    if not any(kept.values()):
        raise LmrError(
            "the solution has no landmark for any of these queries",
            got=f"{len(kept)} of the queries in {printable(url)}",
            fix="give the solution that belongs to these photos, or run without --solution",
        )
    known = set(labels.names)
    foreign = [query for query, shown in kept.items() if shown and not known.intersection(shown)]
    news = []
    if foreign:
        news.append(
            f"{counted(len(foreign), 'query shows', 'queries show')} a landmark that no gallery photo "
            f"is labelled with, and cannot be named rightly: {first_five(map(told, foreign))}"
        )
    rows = pa.table({"id": list(kept), "landmarks": pa.array(list(kept.values()), pa.list_(pa.string()))})
    return Given(name="truth", folder="solution/landmarks", rows=rows, fingerprint=digest(kept)), news


def landmarks_of(labels: Dataset) -> NDArray[np.int64]:
    """Read the number of each gallery photo's landmark, -1 for none."""
    return column(labels.read(0, ["landmark"]), "landmark").astype(np.int64)


def names_of(labels: Dataset) -> list[str]:
    """Read the names of the landmarks, in order of their numbers."""
    found = pc.unique(labels.read(0, ["name"]).column("name")).to_pylist()
    return sorted(name for name in found if name)


def _of_file(photos: Photos, url: str) -> tuple[list[str], list[str]]:
    """Return the landmark of each gallery photo as a file has it, and what is odd."""
    names = PhotoNames(photos.ids, photos.places if all(photos.paths) else photos.ids)
    texts = [""] * len(photos)
    seen: dict[int, str] = {}
    lost, twice, bad = [], [], []
    for name, landmark in _rows(url):
        row = names.find(name)
        if row is None:
            lost.append(name)
        elif row in seen:
            twice.append(name)
        else:
            seen[row] = name
            texts[row] = "" if landmark.lower() in NOTHING else landmark
            if texts[row] and not is_plain_id(landmark):
                bad.append(landmark)
    if not seen:
        raise LmrError(
            "the labels name no photo of this gallery",
            got=f"{printable(url)}: {first_five(map(told, lost))}",
            fix="give the labels that belong to these photos, by id or path",
        )
    if twice:
        raise LmrError(
            f"the labels name {len(twice):,} photos twice",
            got=first_five(map(told, twice)),
            fix="keep one line for each photo",
        )
    if bad:
        raise LmrError(
            f"{len(set(bad)):,} landmarks cannot stand in a submission",
            got=first_five(map(told, dict.fromkeys(bad))),
            fix="name a landmark without spaces, commas and quotes, one for each photo: st_paul",
        )
    news = []
    if lost:
        naming = counted(len(lost), "label names", "labels name")
        news.append(f"{naming} no gallery photo: {first_five(map(told, lost))}")
    if len(seen) < len(photos):
        without = [one for row, one in enumerate(photos.ids) if row not in seen]
        news.append(
            f"{len(without):,} gallery photos have no line in the labels and count as photos without a"
            f" landmark: {first_five(map(told, without))}"
        )
    return texts, news


def _rows(url: str) -> Iterator[tuple[str, str]]:
    """Yield id and landmark of each line."""
    if url.lower().endswith(".parquet"):
        table = parquet_table(storage.read(url), url)
        wanted = _places(table.column_names, url)
        ids, landmarks = (table.column(place).to_pylist() for place in wanted)
        yield from (
            (str(one), "" if name is None else str(name)) for one, name in zip(ids, landmarks, strict=True)
        )
        return
    places: tuple[int, int] | None = None
    width = 0
    for line, cells in cells_of(text_of(storage.read(url), url), url):
        if places is None:
            places, width = _places(cells, url), len(cells)
        elif len(cells) != width or not cells[places[0]]:
            raise LmrError(
                f"line {line} of {printable(url)} has no id and {width} columns",
                got=printable(",".join(cells)[:60]),
                fix="separate columns by commas, and quote cells that hold one",
            )
        else:
            yield cells[places[0]], cells[places[1]]
    if places is None:
        raise LmrError(f"{printable(url)} holds no lines", got="an empty file", fix=_FIX)


def _places(header: Sequence[str], url: str) -> tuple[int, int]:
    where: Mapping[str, int] = {name.strip().lower(): place for place, name in enumerate(header)}
    landmark = next((where[name] for name in _COLUMNS if name in where), None)
    if "id" not in where or landmark is None:
        raise LmrError(
            f"{printable(url)} has no columns id and landmark",
            got=printable(",".join(header)[:80]),
            fix=_FIX,
        )
    return where["id"], landmark
