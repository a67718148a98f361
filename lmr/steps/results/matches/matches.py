"""The matches of a run as tables for people and programs: `matches.csv` and `matches.parquet`.

Both hold the final list of every query, a row per photo. They are written query by query, so that a hundred
thousand queries take no more memory than a file of them. A file holds at most `MOST_ROWS` rows, which
spreadsheets can open; where there are more, files are numbered: `matches-00000.csv`, `matches-00001.csv`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lmr import storage
from lmr.runtime.steps import Role
from lmr.steps.results.csv_rows import csv_header, csv_lines
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.folder.files import read_unusable
from lmr.steps.results.matches.lists import QueryLists, RunLists

__all__ = ["MOST_ROWS", "Answer", "answers", "files_of", "match_tables", "store_matches"]

MOST_ROWS = 500_000
"""Most rows of a file; spreadsheets take 1,048,576."""

_QUERIES_AT_ONCE = 1000
_EMPTY: dict[str, list[str]] = {
    name: [] for name in ("query", "query_path", "rank", "photo", "photo_path", "score", "stage")
}
_OURS = re.compile(r"matches(-\d{5})?\.(csv|parquet)")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for one query.

    Attributes
    ----------
    query, path
        The query's id, and its path below the folder of queries; its id again where it is no file.
    matches
        Photos in its final list.
    confident
        How many of these are confident matches; None without verification.
    unreadable
        Why the query could not be read; empty for most.
    """

    query: str
    path: str
    matches: int
    confident: int | None = None
    unreadable: str = ""

    @property
    def sentence(self) -> str:
        """What people read of it."""
        if self.unreadable:
            return f"{self.path}: could not be read ({self.unreadable})"
        if not self.matches:
            return f"{self.path}: no match"
        found = f"{self.path}: {self.matches:,} match{'es' if self.matches != 1 else ''}"
        return found if self.confident is None else f"{found}, {self.confident or 'none'} of them confident"


def answers(run: RunDatasets) -> Iterator[Answer]:
    """Yield what was found for each query, in order of the queries' rows."""
    lists = RunLists(run)
    ids, paths = (lists.photos.queries.column(name).to_pylist() for name in ("id", "path"))
    reasons = _reasons(run)
    for part in lists:
        counts = (part.last.photos >= 0).sum(axis=1)
        sure = None if part.confident is None else part.confident.sum(axis=1)
        for i, row in enumerate(part.queries.tolist()):
            answer = Answer(query=ids[row], path=paths[row] or ids[row], matches=int(counts[i]))
            answer = replace(answer, unreadable=reasons.get(answer.query, ""))
            yield answer if sure is None else replace(answer, confident=int(sure[i]))


def _reasons(run: RunDatasets) -> dict[str, str]:
    if run.unusable is None or not run.unusable.present():
        return {}
    return {photo.id: photo.reason for photo in read_unusable(run) if photo.set == "queries"}


def files_of(run: RunDatasets) -> list[str]:
    """Return the URLs of the files of matches that are there."""
    names = storage.folder_sizes(run.root)
    return [storage.join(run.root, n) for n in sorted(names) if _OURS.fullmatch(n) and n.endswith(".csv")]


def store_matches(run: RunDatasets, most_rows: int = MOST_ROWS) -> list[str]:
    """Write the matches of a run into its folder; return the names of the files.

    Columns: `query`, `query_path`, `rank` (from 1), `photo`, `photo_path`, `score` (of the last stage),
    `inliers` (0 where the pair was not verified), `confident` (more inliers than the threshold),
    `probability` (that the photo shows the query's landmark), `stage` (the first stage whose list holds the
    photo). What a workflow does not make, or needs a calibration that was not given, is left out.
    Files of an earlier run with more queries are removed.
    """
    before = {name for name in storage.folder_sizes(run.root) if _OURS.fullmatch(name)}
    written: list[str] = []
    pending: list[pa.Table] = []
    for block in match_tables(run, max(most_rows, 1)):
        if pending and sum(len(one) for one in pending) + len(block) > most_rows:
            written += _write(run.root, f"-{len(written) // 2:05d}", pending)
            pending = []
        pending.append(block)
    written += _write(run.root, f"-{len(written) // 2:05d}" if written else "", pending or [pa.table(_EMPTY)])
    for name in sorted(before - set(written)):
        storage.delete(storage.join(run.root, name))
    return written


def match_tables(run: RunDatasets, most_rows: int = MOST_ROWS) -> Iterator[pa.Table]:
    """Yield the matches of some queries at a time, no query in two tables; columns as of `store_matches`."""
    lists = RunLists(run)
    for part in lists:
        at_once = max(1, min(_QUERIES_AT_ONCE, most_rows // max(part.last.photos.shape[1], 1)))
        for start in range(0, len(part.queries), at_once):
            yield _block(lists, part, slice(start, start + at_once))


def _block(lists: RunLists, part: QueryLists, some: slice) -> pa.Table:
    photos = part.last.photos[some]
    query, place = np.nonzero(photos >= 0)
    chosen = photos[query, place]

    def texts(role: Role, name: str, rows: NDArray[np.int32]) -> pa.ChunkedArray:
        return lists.photos.of(role).column(name).take(pa.array(rows))

    def at(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(values[some][query, place])

    rows = part.queries[some][query]
    stage = np.array(list(part.stages), object)[at(part.brought_by)]
    columns: dict[str, Any] = {
        "query": texts("queries", "id", rows),
        "query_path": texts("queries", "path", rows),
        "rank": (place + 1).astype(np.int32),
        "photo": texts("gallery", "id", chosen),
        "photo_path": texts("gallery", "path", chosen),
        "score": at(part.last.scores),
    }
    if part.inliers is not None and part.confident is not None:
        columns |= {"inliers": at(part.inliers), "confident": at(part.confident)}
    if part.probability is not None:
        columns["probability"] = at(part.probability)
    return pa.table(columns | {"stage": pa.array(stage, pa.string())})


def _write(root: str, number: str, blocks: list[pa.Table]) -> list[str]:
    names = [f"matches{number}.{kind}" for kind in ("csv", "parquet")]
    text = csv_header(blocks[0]) + "".join(map(csv_lines, blocks))
    storage.put(storage.join(root, names[0]), text.encode())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(blocks), sink, compression="zstd")
    storage.put(storage.join(root, names[1]), memoryview(sink.getvalue()))
    return names
