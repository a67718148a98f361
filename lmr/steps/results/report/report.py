"""The report of a run: a page to look at, made from what is in storage, also of a run that has not ended."""

import re
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lmr import storage
from lmr.evaluation.pages.report import (
    QueryFiles,
    Report,
    StepScore,
    Undecoded,
    render_report,
    report_script,
)
from lmr.evaluation.pages.report_data import ListedPhoto, PhotoPicture, QueryEntry, ReportData
from lmr.evaluation.protocols.scorers import Scores
from lmr.steps.results.folder.datasets import RunDatasets, store_datasets
from lmr.steps.results.folder.duplicates import store_duplicates
from lmr.steps.results.folder.files import (
    Unusable,
    read_unusable,
    store_photos,
    store_scores,
    store_sources,
    store_submission,
)
from lmr.steps.results.folder.kept import keep_results
from lmr.steps.results.folder.protocol_files import read_protocols, read_published, store_protocols
from lmr.steps.results.matches.lists import QueryLists, RunLists
from lmr.steps.results.matches.matches import store_matches
from lmr.steps.results.recognition import store_recognition, store_recognition_page
from lmr.steps.results.report.costs import cost_of, read_facts
from lmr.steps.results.report.how_made import how_made, settings_shown
from lmr.steps.results.report.pictures import Pictures, draw, pick
from lmr.steps.results.report.run_page import store_run_page
from lmr.steps.results.report.spreads import Spreads

__all__ = ["finish_run", "store_report"]

SHOWN = 24
"""Photos of a query's final list that the report shows; confident matches beyond them are shown too."""

HEAD = 10
"""Photos that it shows of every stage's list; of a query without pictures, of the final list only."""

_DATA = re.compile(r"(data-[0-9a-f]{8})/.*")


def finish_run(run: RunDatasets) -> None:
    """Write all that people read of a run into its folder: submission, scores, matches, report."""
    store_datasets(run)
    if run.recognised is None:
        store_submission(run)
    store_photos(run)
    store_scores(run)
    store_protocols(run)
    store_matches(run)
    store_duplicates(run)
    store_report(run)
    if run.recognised is not None:
        store_recognition(run, run.recognised)
    keep_results(run)


def store_report(run: RunDatasets, *, most_pictured: int | None = None) -> str:
    """Write `report/index.html` and the pages and files beside it; return the page's URL.

    A reader never meets half a report: the files of queries get a new folder each time, the page that names
    it is written last, and the folder before is removed then.

    Parameters
    ----------
    run
        The run. Shards that are not there yet are left out.
    most_pictured
        How many queries have pictures at most; None: some hundreds.
    """
    report, data = storage.join(run.root, "report"), f"data-{uuid.uuid4().hex[:8]}"
    lists = RunLists(run)
    scores = _scores(run)
    made = read_facts(run.steps)
    put = partial(_put, storage.join(report, data))
    put("report.js", report_script())
    files, confident, lost, spreads = _store_queries(run, lists, scores, put, data, most_pictured)
    page = Report(
        course=store_run_page(run.root),
        run=run.root.rstrip("/").rsplit("/", 1)[-1],
        about="; ".join(
            [
                f"{len(lists.photos.queries):,} queries in {len(lists.photos.gallery):,} gallery photos",
                *(() if run.images else ("it was given descriptors, so there are no pictures",)),
                *([f"pictures are left out: {', '.join(lost)}"] if lost else []),
            ]
        ),
        state=_state(run),
        stages=[run.label(name) for name in lists.stages],
        verified=run.verified in lists.stages,
        files=files,
        more={"recognition.html": "Recognition"} if store_recognition_page(run) else {},
        scores=scores,
        protocols={
            (protocol, metric): {run.label(stage): mean for stage, mean in stages.items()}
            for protocol, metrics in (read_protocols(run) if _scored(run) else {}).items()
            for metric, stages in metrics.items()
        },
        published=read_published(run) if _scored(run) else (),
        confident_counts=confident,
        inliers=spreads.inliers,
        recall=spreads.recall,
        costs=[cost_of(dataset, facts) for dataset, facts in made],
        undecoded=_undecoded(run),
        settings=settings_shown(run),
        facts=how_made(run, store_sources(run, (f.get("source", "") for _, facts in made for f in facts))),
    )
    url = storage.join(report, "index.html")
    before = {match[1] for path in storage.find(report) if (match := _DATA.fullmatch(path))}
    storage.put(url, render_report(page).encode())
    for folder in before - {data}:
        storage.delete(storage.join(report, folder))
    return url


def _put(folder: str, name: str, data: bytes) -> None:
    storage.put(storage.join(folder, name), data)


def _store_queries(
    run: RunDatasets,
    lists: RunLists,
    scores: Sequence[StepScore],
    put: Any,
    folder: str,
    most_pictured: int | None,
) -> tuple[QueryFiles, list[int], list[str], Spreads]:
    """Write the files of queries; return them, each query's confident matches, lost shards, and spreads."""
    ids, paths = (lists.photos.gallery.column(name) for name in ("id", "path"))
    data = ReportData(put, lambda row: (ids[row].as_py(), paths[row].as_py() or ids[row].as_py()))
    entries = _Entries(run, lists, scores)
    final = [entries.last_score(row) for row in range(len(entries.ids))] if scores else []
    chosen = pick(run, lists, final, entries.wanted, most_pictured)
    pictures = draw(run, chosen, data)
    confident: list[int] = []
    spreads = Spreads(entries.ids, entries.right)
    seen = 0
    for part in lists:
        spreads.add(part)
        for i, row in enumerate(part.queries.tolist()):
            while seen < row:  # a shard that is not there yet
                data.add(entries.unsearched(seen), {})
                seen += 1
            entry = entries.of(part, i, pictures)
            if entry.confident is not None and not entry.unreadable:
                confident.append(entry.confident)
            data.add(entry, pictures.photos)
            seen += 1
    for row in range(seen, len(entries.ids)):
        data.add(entries.unsearched(row), {})
    data.close()
    files = QueryFiles(
        folder=folder,
        index_files=data.files["index"],
        queries=data.queries,
        pictured=data.pictured,
        unreadable=data.unreadable,
        without_confident=data.without_confident,
    )
    return files, confident, list(pictures.lost), spreads


class _Entries:
    """Makes the report's entries of queries."""

    def __init__(self, run: RunDatasets, lists: RunLists, scores: Sequence[StepScore]) -> None:
        self.lists, self.scores = lists, scores
        self.ids: list[str] = lists.photos.queries.column("id").to_pylist()
        paths = lists.photos.queries.column("path").to_pylist()
        self.paths: list[str] = [path or self.ids[row] for row, path in enumerate(paths)]
        self.reasons = {u.id: u.reason for u in _unusable(run) or () if u.set == "queries"}
        self.scored = {query: i for i, query in enumerate(scores[0].scores.query_ids)} if scores else {}
        self.right = _right(run, lists)

    def wanted(self, part: QueryLists, i: int) -> list[int]:
        """Return the gallery rows of which a query's entry shows pictures, its list first."""
        heads = [ranking.photos[i, :HEAD] for ranking in part.stages.values()]
        rows = np.concatenate([part.last.photos[i, self._shown(part, i)], *heads])
        return list(dict.fromkeys(rows[rows >= 0].tolist()))

    def _shown(self, part: QueryLists, i: int) -> Any:
        shown = np.arange(part.last.photos.shape[1]) < SHOWN
        if part.confident is not None:
            shown |= part.confident[i]
        return np.flatnonzero(shown & (part.last.photos[i] >= 0))

    def of(self, part: QueryLists, i: int, pictures: Pictures) -> QueryEntry:
        """Return the entry of a query of a shard."""
        row = int(part.queries[i])
        pictured = row in pictures.queries
        shown = self._shown(part, i) if pictured else self._shown(part, i)[:HEAD]
        photos = part.last.photos[i, shown].tolist()
        ranks = np.zeros((len(shown), len(self.lists.stages)), np.int32)
        for place, name in enumerate(self.lists.stages):
            if name in part.ranks:
                ranks[:, place] = part.ranks[name][i, shown]
        right = self.right.get(self.ids[row], set()) if self.right is not None else None
        listed = [
            ListedPhoto(
                photo=photo,
                ranks=ranks[n].tolist(),
                inliers=None if part.inliers is None else int(part.inliers[i, shown[n]]),
                confident=None if part.confident is None else bool(part.confident[i, shown[n]]),
                right=None if right is None else photo in right,
                probability=None if part.probability is None else float(part.probability[i, shown[n]]),
                lines=pictures.lines.get((row, photo), ()),
            )
            for n, photo in enumerate(photos)
        ]
        heads = (
            []
            if not pictured
            else [
                [p for p in part.stages[name].photos[i, :HEAD].tolist() if p >= 0]
                if name in part.stages
                else []
                for name in self.lists.stages
            ]
        )
        return QueryEntry(
            query_id=self.ids[row],
            path=self.paths[row],
            found=int((part.last.photos[i] >= 0).sum()),
            confident=None if part.confident is None else int(part.confident[i].sum()),
            unreadable=self.reasons.get(self.ids[row], ""),
            scores=self._scores(row),
            n_right=None if right is None else len(right),
            listed=listed,
            heads=heads,
            picture=pictures.queries.get(row, PhotoPicture()),
        )

    def unsearched(self, row: int) -> QueryEntry:
        """Return the entry of a query for which no stage has a list yet."""
        reason = self.reasons.get(self.ids[row], "not searched yet")
        return QueryEntry(query_id=self.ids[row], path=self.paths[row], found=0, unreadable=reason)

    def last_score(self, row: int) -> float:
        """Return a query's score after the last stage; NaN where it has none."""
        return self._scores(row)[-1] if self._scores(row) else np.nan

    def _scores(self, row: int) -> list[float]:
        at = self.scored.get(self.ids[row])
        return [] if at is None else [float(step.scores.per_query[at]) for step in self.scores]


def _right(run: RunDatasets, lists: RunLists) -> Mapping[str, set[int]] | None:
    """Return the gallery rows that the solution names for each query; None without a solution."""
    if run.solution is None or not run.solution.present():
        return None
    truth = run.solution.read(0).to_pydict()
    row_of = {photo: row for row, photo in enumerate(lists.photos.gallery.column("id").to_pylist())}
    return {
        query: {row_of[photo] for photo in photos}
        for query, photos in zip(truth["id"], truth["images"], strict=True)
    }


def _scores(run: RunDatasets) -> list[StepScore]:
    if run.scores is None or not run.scores.present():
        return []
    rows = run.scores.read(0)
    ids = tuple(rows.column("id").to_pylist())
    return [
        StepScore(step=run.label(name), scores=Scores(ids, np.asarray(rows.column(name).to_numpy())))
        for name in run.rankings
    ]


def _scored(run: RunDatasets) -> bool:
    """Return whether all scores are there that were asked for: a run may be looked at before it has ended."""
    return all(one is None or one.present() for one in (run.scores, run.protocols))


def _unusable(run: RunDatasets) -> list[Unusable] | None:
    """Return the photos that could not be used; None where they are not known yet."""
    return read_unusable(run) if run.unusable is not None and run.unusable.present() else None


def _undecoded(run: RunDatasets) -> list[Undecoded] | None:
    unusable = _unusable(run)
    if unusable is None:
        return None
    return [Undecoded(photo_id=u.path or u.id, reason=u.reason, role=u.set) for u in unusable]


def _state(run: RunDatasets) -> str:
    """Say what is missing of a run that has not ended; nothing of one that has."""
    missing = [name for name, ranking in run.rankings.items() if len(ranking.present()) < ranking.shards]
    if not missing:
        return ""
    stages = ", ".join(run.label(name) for name in missing)
    return (
        f"This run has not ended. Not finished yet: {stages}. The lists are those of the last finished stage."
    )
