"""The report of a run: one page to look at, made from what is in storage."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lmr import storage
from lmr.errors import PhotoError, ShardError, StorageError
from lmr.evaluation.pictures import data_uri, match_picture, thumbnail
from lmr.evaluation.report import (
    SHOWN_RESULTS,
    QueryExample,
    Report,
    StepCost,
    StepScore,
    Undecoded,
    VerifiedPair,
    pick_queries,
    render_report,
)
from lmr.evaluation.scorers import Scores
from lmr.runtime.steps import Role
from lmr.runtime.tasks import sources_note
from lmr.steps.ranking import read_ranking
from lmr.steps.results.datasets import RunDatasets, store_datasets
from lmr.steps.results.files import read_unusable, store_scores, store_submission
from lmr.steps.results.submission import ids_of, named
from lmr.steps.verification.verify import inliers_of_pair
from lmr.storage.datasets import Dataset
from lmr.storage.json_files import read_json

if TYPE_CHECKING:
    from lmr.steps.both import Both

__all__ = ["costs_of", "finish_run", "store_report"]

EXAMPLES = 9
PAIRS = 4
BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def finish_run(run: RunDatasets) -> None:
    """Write all that people read of a run into its folder: submission, scores, report."""
    store_datasets(run)
    store_submission(run)
    store_scores(run)
    store_report(run)


def store_report(run: RunDatasets) -> str:
    """Write `report/index.html` into the run's folder; return its URL."""
    photos = _Photos(run)
    scores = _scores(run)
    examples = _examples(run, scores, photos)
    shown = {i for e in examples for row in e.rankings.values() for i in row[:SHOWN_RESULTS]}
    thumbnails = {i: photos.thumbnail("gallery", i) for i in sorted(shown)} if run.images else {}
    pairs = _pairs(run, examples, photos)
    found = _facts_of(run.steps)
    report = Report(
        run=run.root.rstrip("/").rsplit("/", 1)[-1],
        about="; ".join(
            [
                f"{len(photos.rows.queries):,} queries in {len(photos.rows.gallery):,} gallery photos",
                *(() if run.images else ("it was given descriptors, so there are no pictures",)),
                *_machines(run.root),
                *sources_note((f.get("source", "") for _, facts in found for f in facts), whose="the run's"),
                *photos.left_out,
            ]
        ),
        scores=scores,
        costs=[_cost(dataset, facts) for dataset, facts in found],
        undecoded=[Undecoded(photo_id=u.id, reason=u.reason) for u in read_unusable(run)]
        if run.unusable
        else None,
        settings=run.settings,
        queries=examples,
        pairs=pairs,
        thumbnails=thumbnails,
    )
    url = storage.join(run.root, "report", "index.html")
    storage.put(url, render_report(report).encode())
    return url


@dataclass
class _RunRecord:
    notes: list[str]


def _machines(root: str) -> list[str]:
    """Return what was noted of the cluster's machines when the run was last submitted to one."""
    url = storage.join(root, "run.json")
    if not storage.exists(url):
        return []
    try:
        record: _RunRecord = read_json(url, _RunRecord, fix="submit the run again")
    except StorageError as error:
        # A report lacks a line rather than the run its report.
        return [f"the machines are not known: {error.what} ({error.got})"]
    return record.notes


def costs_of(datasets: Sequence[Dataset]) -> list[StepCost]:
    """Add up what the shards' own metadata say of each step, whichever run made them."""
    return [_cost(dataset, facts) for dataset, facts in _facts_of(datasets)]


def _facts_of(datasets: Sequence[Dataset]) -> list[tuple[Dataset, list[dict[str, Any]]]]:
    """Read what each dataset's shards say of themselves; one that is damaged says nothing."""

    def facts(dataset: Dataset, shard: int) -> dict[str, Any] | None:
        try:
            return dataset.facts(shard)
        except ShardError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = [(d, pool.map(partial(facts, d), sorted(d.present()))) for d in datasets]
        return [(d, [f for f in some if f is not None]) for d, some in found]


def _cost(dataset: Dataset, facts: Sequence[Mapping[str, Any]]) -> StepCost:
    """Add up what the shards of a step say of themselves, whichever run made them."""
    sizes = dataset.present()
    lost = dataset.shards - len(facts)
    left_out = [f"{lost} of {dataset.shards} shards are gone or damaged, and not counted"] if lost else []
    return StepCost(
        step=dataset.step,
        shards_made=len(facts),
        shards_failed=lost,
        rows=sum(f["rows"] for f in facts),
        n_bytes=sum(sizes.values()),
        seconds=sum(f.get("seconds", 0.0) for f in facts),
        peak_memory_bytes=max((f.get("peak_bytes", 0) for f in facts), default=0),
        notes=(
            *dict.fromkeys(f["note"] for f in facts if "note" in f),
            *sources_note(f.get("source", "") for f in facts),
            *left_out,
        ),
    )


def _scores(run: RunDatasets) -> list[StepScore]:
    if run.scores is None:
        return []
    rows = run.scores.read(0)
    ids = tuple(rows.column("id").to_pylist())
    return [
        StepScore(step=run.label(name), scores=Scores(ids, np.asarray(rows.column(name).to_numpy())))
        for name in run.rankings
    ]


def _examples(run: RunDatasets, scores: Sequence[StepScore], photos: "_Photos") -> list[QueryExample]:
    if scores:
        chosen = pick_queries(scores[0].scores, scores[-1].scores, n_each=EXAMPLES // 3)
    else:
        queries = list(photos.rows.queries)
        picks = np.linspace(0, len(queries) - 1, min(EXAMPLES, len(queries))).astype(int)
        chosen = [(queries[i], "one of many") for i in picks]
    truth: Mapping[str, Sequence[str]] = {}
    if run.solution is not None:
        rows = run.solution.read(0).to_pydict()
        truth = dict(zip(rows["id"], rows["images"], strict=True))
    return [
        QueryExample(
            query_id=query,
            photo=photos.thumbnail("queries", query),
            why=why,
            rankings={
                run.label(name): photos.ranked(ranking, query) for name, ranking in run.rankings.items()
            },
            relevant=truth.get(query) if truth else None,
        )
        for query, why in chosen
    ]


def _pairs(run: RunDatasets, examples: Iterable[QueryExample], photos: "_Photos") -> list[VerifiedPair]:
    """Draw the best verified pair of each example until there are enough; none without verification."""
    pairs: list[VerifiedPair] = []
    if run.pairs is None or run.local is None or run.verified is None or run.images is None:
        return pairs
    for example in examples:
        if len(pairs) == PAIRS:
            break
        if not (ranking := example.rankings[run.label(run.verified)]):
            continue
        gallery = ranking[0]
        query_place, gallery_place = (
            photos.place("queries", example.query_id),
            photos.place("gallery", gallery),
        )
        try:
            xy_query, xy_gallery = inliers_of_pair(run.pairs, run.local, query_place, gallery_place)
            if not len(xy_query):
                continue
            images = photos.image("queries", example.query_id), photos.image("gallery", gallery)
        except ShardError as error:
            photos.leave_out(error)
            continue
        pairs.append(
            VerifiedPair(
                query_id=example.query_id,
                gallery_id=gallery,
                picture=data_uri(match_picture(*images, xy_query, xy_gallery)),
                n_inliers=len(xy_query),
                relevant=None if example.relevant is None else gallery in example.relevant,
            )
        )
    return pairs


class _Photos:
    """Reads single photos and single lists out of a run's shards."""

    def __init__(self, run: RunDatasets) -> None:
        self._lost: dict[str, None] = {}
        self.layouts, self.images = run.layouts, run.images
        self.ids = run.photos.map(ids_of)
        self.rows: Both[dict[str, int]] = self.ids.map(
            lambda ids: {photo_id: row for row, photo_id in enumerate(ids.to_pylist())}
        )

    def place(self, role: Role, photo_id: str) -> tuple[int, int]:
        """Return the shard of a photo, and its row."""
        row = self.rows.of(role)[photo_id]
        return self.layouts.of(role).place(row)[0], row

    def inside(self, role: Role, photo_id: str) -> tuple[int, int]:
        """Return the shard of a photo, and its place there."""
        return self.layouts.of(role).place(self.rows.of(role)[photo_id])

    def image(self, role: Role, photo_id: str) -> bytes:
        """Return the bytes of a photo."""
        shard, inside = self.inside(role, photo_id)
        assert self.images is not None
        images = self.images.of(role).read(shard, ["image"]).column("image")
        content: bytes = images[inside].as_py()
        return content

    def thumbnail(self, role: Role, photo_id: str) -> str:
        """Return a small picture of a photo; a blank where there is none, or it cannot be decoded."""
        if self.images is None:
            return BLANK
        try:
            return thumbnail(self.image(role, photo_id))
        except PhotoError:
            return BLANK
        except ShardError as error:
            self.leave_out(error)
            return BLANK

    def leave_out(self, error: ShardError) -> None:
        """Note a shard without which a picture cannot be shown; the results do not need it any more."""
        self._lost[error.what] = None

    @property
    def left_out(self) -> list[str]:
        """Why pictures are left out, if some are: a line for the report."""
        return [f"pictures are left out: {', '.join(self._lost)}"] if self._lost else []

    def ranked(self, ranking: Dataset, query_id: str) -> list[str]:
        """Return a query's list of gallery ids in one ranking."""
        shard, inside = self.inside("queries", query_id)
        rows = named(read_ranking(ranking, shard), self.ids.gallery, self.ids.queries)
        images: list[str] = rows.column("images")[inside].as_py()
        return images
