"""The report of a run: one page to look at, made from what is in storage."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from lmr.errors import PhotoError
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
from lmr.runtime import storage
from lmr.runtime.graph import Plan
from lmr.runtime.joined import by_name
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Step
from lmr.steps.ranking import read_ranking
from lmr.steps.submit import named
from lmr.steps.verify import inliers_of_pair
from lmr.steps.workflow import Workflow, read_unusable

__all__ = ["costs_of", "store_report"]

EXAMPLES = 9
PAIRS = 4
BLANK = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def store_report(flow: Workflow, plan: Plan, root: str, settings: Any) -> str:
    """Write `report/index.html` into the run's folder; return its URL.

    Parameters
    ----------
    flow
        A workflow that has run.
    plan
        What the run had to do, for the costs.
    root
        The run's folder.
    settings
        The workflow's settings, a dataclass of one dataclass per step.
    """
    photos = _Photos(flow, root)
    scores = _scores(flow, root)
    examples = _examples(flow, root, scores, photos)
    shown = {i for e in examples for row in e.rankings.values() for i in row[:SHOWN_RESULTS]}
    report = Report(
        run=root.rstrip("/").rsplit("/", 1)[-1],
        about=f"{len(flow.inputs.queries):,} queries in {len(flow.inputs.gallery):,} gallery photos",
        scores=scores,
        costs=costs_of([need.step for need in plan], root),
        undecoded=[Undecoded(photo_id=u.id, reason=u.reason) for u in read_unusable(flow, root)],
        settings=dataclasses.asdict(settings),
        queries=examples,
        pairs=_pairs(flow, root, examples, photos),
        thumbnails={i: photos.thumbnail("gallery", i) for i in sorted(shown)},
    )
    url = storage.join(root, "report", "index.html")
    storage.put(url, render_report(report).encode())
    return url


def costs_of(steps: Sequence[Step], root: str) -> list[StepCost]:
    """Add up what the shards' own metadata say of each step, whichever run made them."""
    with ThreadPoolExecutor(16) as pool:
        return [_cost(source.dataset(root), pool) for source in by_name(steps)]


def _cost(dataset: Dataset, pool: ThreadPoolExecutor) -> StepCost:
    sizes = dataset.present()
    facts = list(pool.map(dataset.facts, sorted(sizes)))
    return StepCost(
        step=dataset.step,
        shards_made=len(sizes),
        shards_failed=dataset.shards - len(sizes),
        rows=sum(f["rows"] for f in facts),
        n_bytes=sum(sizes.values()),
        seconds=sum(f.get("seconds", 0.0) for f in facts),
        peak_memory_bytes=max((f.get("peak_bytes", 0) for f in facts), default=0),
    )


def _scores(flow: Workflow, root: str) -> list[StepScore]:
    if flow.scores is None:
        return []
    rows = flow.scores.dataset(root).read(0)
    ids = tuple(rows.column("id").to_pylist())
    return [
        StepScore(step=name, scores=Scores(ids, np.asarray(rows.column(name).to_numpy())))
        for name in flow.rankings
    ]


def _examples(
    flow: Workflow, root: str, scores: Sequence[StepScore], photos: "_Photos"
) -> list[QueryExample]:
    if scores:
        chosen = pick_queries(scores[0].scores, scores[-1].scores, n_each=EXAMPLES // 3)
    else:
        queries = flow.inputs.queries.ids
        picks = np.linspace(0, len(queries) - 1, min(EXAMPLES, len(queries))).astype(int)
        chosen = [(queries[i], "one of many") for i in picks]
    truth: Mapping[str, Sequence[str]] = {}
    if flow.inputs.solution is not None:
        rows = flow.inputs.solution.rows.to_pydict()
        truth = dict(zip(rows["id"], rows["images"], strict=True))
    return [
        QueryExample(
            query_id=query,
            photo=photos.thumbnail("queries", query),
            why=why,
            rankings={name: photos.ranked(step, query) for name, step in flow.rankings.items()},
            relevant=truth.get(query) if truth else None,
        )
        for query, why in chosen
    ]


def _pairs(
    flow: Workflow, root: str, examples: Iterable[QueryExample], photos: "_Photos"
) -> list[VerifiedPair]:
    """Draw the best verified pair of each example until there are enough."""
    pairs: list[VerifiedPair] = []
    for example in examples:
        if len(pairs) == PAIRS or not example.rankings["verify"]:
            break
        gallery = example.rankings["verify"][0]
        places = photos.place("queries", example.query_id), photos.place("gallery", gallery)
        local = flow.local[0].dataset(root), flow.local[1].dataset(root)
        xy_query, xy_gallery = inliers_of_pair(flow.pairs.dataset(root), local, *places)
        if not len(xy_query):
            continue
        images = photos.image("queries", example.query_id), photos.image("gallery", gallery)
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

    def __init__(self, flow: Workflow, root: str) -> None:
        self.root, self.flow = root, flow
        self.sets = {"gallery": flow.inputs.gallery, "queries": flow.inputs.queries}
        self.rows = {name: {i: row for row, i in enumerate(p.ids)} for name, p in self.sets.items()}
        self.images = dict(zip(self.sets, (s.dataset(root) for s in flow.images), strict=True))
        self.ids = [pa.chunked_array([list(photos.ids)]) for photos in self.sets.values()]

    def place(self, name: str, photo_id: str) -> tuple[int, int]:
        """Return the shard of a photo, and its row."""
        row = self.rows[name][photo_id]
        return self.inside(name, row)[0], row

    def inside(self, name: str, row: int) -> tuple[int, int]:
        """Return the shard of a row, and its place there."""
        return self.sets[name].place(row, self.flow.photos_per_shard)

    def image(self, name: str, photo_id: str) -> bytes:
        """Return the bytes of a photo."""
        shard, inside = self.inside(name, self.rows[name][photo_id])
        images = self.images[name].read(shard, ["image"]).column("image")
        content: bytes = images[inside].as_py()
        return content

    def thumbnail(self, name: str, photo_id: str) -> str:
        """Return a small picture of a photo; a blank where it cannot be decoded."""
        try:
            return thumbnail(self.image(name, photo_id))
        except PhotoError:
            return BLANK

    def ranked(self, step: Step, query_id: str) -> list[str]:
        """Return a query's list of gallery ids in one ranking."""
        shard, inside = self.inside("queries", self.rows["queries"][query_id])
        rows = named(read_ranking(step.dataset(self.root), shard), *self.ids)
        images: list[str] = rows.column("images")[inside].as_py()
        return images
