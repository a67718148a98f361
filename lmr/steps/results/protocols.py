"""Score by protocols: a run's rankings by any protocol of the field, whole, with junk taken out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.evaluation.protocols.metrics import measured
from lmr.evaluation.protocols.table import Protocol, find_protocol, sides
from lmr.evaluation.scores import first_five
from lmr.runtime.settings import Settings, digest
from lmr.runtime.steps import Cost, Given, Role, Step, Whole
from lmr.steps.both import Both
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.names import PhotoNames, told
from lmr.steps.ranking import Ranked, read_ranking
from lmr.steps.results.scores import refuse_lost
from lmr.storage.arrow import with_note
from lmr.storage.datasets import Dataset

__all__ = [
    "ProtocolSettings",
    "score_protocols",
    "score_protocols_shard",
    "truth_for",
]

LISTS = ("right", "easy", "hard", "ok", "junk")
"""Lists of photos that a ground truth may have; `right` is a plain solution's."""

_ROW_BYTES = 100.0  # an id and three short names


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings(Settings):
    """Settings of `score_protocols`."""

    protocols: tuple[str, ...] = ()
    """Names of protocols, such as revisited-medium or recall@1,5."""


def truth_for(
    truths: Mapping[str, Mapping[str, Sequence[str]]], photos: Both[Photos], *, pruned: bool = False
) -> Given:
    """Check a ground truth against the photos and return it as a dataset, its photos as rows.

    Parameters
    ----------
    truths
        Query id to lists of gallery ids, by their names in `LISTS`.
    photos
        The photos of the run.
    pruned
        Whether these are the first shards only: then what the truth says of other photos is left out.

    Raises
    ------
    LmrError
        If it names queries twice, or queries or gallery photos that are not there.
    """
    names = photos.map(lambda some: PhotoNames(some.ids, some.places if all(some.paths) else some.ids))
    lost: dict[Role, list[str]] = {"queries": [], "gallery": []}
    found: dict[int, dict[str, list[int]]] = {}
    twice = []
    for query, lists in truths.items():
        row = names.queries.find(query)
        if row is None:
            lost["queries"].append(query)
            continue
        if row in found:
            twice.append(query)
        rows = {name: [names.gallery.find(one) for one in lists.get(name, ())] for name in LISTS}
        for name, of_photos in rows.items():
            pairs = zip(lists.get(name, ()), of_photos, strict=True)
            lost["gallery"] += [one for one, there in pairs if there is None]
        found[row] = {
            name: list(dict.fromkeys(one for one in some if one is not None)) for name, some in rows.items()
        }
    if not pruned:
        refuse_lost(lost, photos)
    if twice:
        raise LmrError(
            f"the ground truth names {len(twice)} queries twice",
            got=first_five(map(told, twice)),
            fix="keep one line for each query, whatever it is called there",
        )
    ids = [photos.queries.ids[row] for row in found]
    columns = {name: [lists[name] for lists in found.values()] for name in LISTS}
    rows_of = {name: pa.array(some, pa.list_(pa.int32())) for name, some in columns.items()}
    rows_table = pa.table({"id": ids, "query": pa.array(list(found), pa.int32()), **rows_of})
    return Given(
        name="truth", folder="truth", rows=rows_table, fingerprint=digest([ids, columns, photos.gallery.ids])
    )


def score_protocols(
    rankings: Mapping[str, Ranked], truth: Given, protocols: Sequence[str], photos: Both[Photos]
) -> Step:
    """Declare the step that scores every ranking by protocols.

    A row is a score: columns `id` of the query, `protocol`, `metric`, `stage` and `score`. A query that a
    protocol leaves out has NaN.
    """
    metrics = sum(len(find_protocol(name).metrics) for name in protocols)
    queries = len(photos.queries)
    longest = max(ranked.per_shard * ranked.depth for ranked in rankings.values())
    rows = queries * metrics * len(rankings)
    return Step(
        name="protocols",
        folder="protocols",
        make=score_protocols_shard,
        settings=ProtocolSettings(protocols=tuple(protocols)),
        inputs={"truth": truth, **{f"ranking_{name}": Whole(one.step) for name, one in rankings.items()}},
        shards=1,
        cost=Cost(
            rows=rows,
            bytes_per_row=_ROW_BYTES,
            # One shard of a ranking as stored and as lists of Python's integers; the truth; what is written.
            task_bytes=60.0 * longest + 20.0 * truth.rows.nbytes + 4.0 * _ROW_BYTES * rows,
            work=queries * len(rankings),
            unit="vector",
        ),
    )


def score_protocols_shard(
    shard: int, settings: ProtocolSettings, *, truth: Dataset, **rankings: Dataset
) -> pa.Table:
    """Score all rankings by all protocols."""
    rows = truth.read(0)
    place = {row: i for i, row in enumerate(rows.column("query").to_pylist())}
    lists_of = {name: rows.column(name).to_pylist() for name in LISTS}
    of_query = [{name: lists_of[name][i] for name in LISTS} for i in range(len(rows))]
    found: dict[tuple[str, str, str], NDArray[np.float64]] = {}
    notes = []
    for name in settings.protocols:
        protocol = find_protocol(name)
        both = [_sides(protocol, lists) for lists in of_query]
        right, junk = [one for one, _ in both], [one for _, one in both]
        for stage, ranking in ((one.removeprefix("ranking_"), some) for one, some in rankings.items()):
            # A query without a list has found nothing.
            scores = measured(protocol.metrics, lambda: repeat((), len(rows)), right, junk)
            ends = _Ends()
            for at, ranked in _lists(ranking, place):
                mine, out = [right[i] for i in at], [junk[i] for i in at]
                for metric, values in measured(protocol.metrics, lambda: ranked, mine, out).items():  # noqa: B023
                    scores[metric][at] = values
                ends.add(ranked, mine)
            found |= {(name, metric, stage): values for metric, values in scores.items()}
            if protocol.whole and ends.lost:
                notes.append(f"{name} after {stage}: {ends}")
    return _table(rows.column("id"), found, notes)


@dataclass
class _Ends:
    """Where lists end, and how many right photos stand in none."""

    lost: int = 0
    longest: int = 0

    def add(self, ranked: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> None:
        self.longest = max(self.longest, *map(len, ranked), 0)
        self.lost += sum(len(set(some).difference(one)) for some, one in zip(right, ranked, strict=True))

    def __str__(self) -> str:
        photos = "right photo stands" if self.lost == 1 else "right photos stand"
        return (
            f"{self.lost:,} {photos} in no list, which counts as not found; "
            f"the longest list has {self.longest:,} photos"
        )


def _sides(protocol: Protocol, lists: Mapping[str, Sequence[int]]) -> tuple[Sequence[int], Sequence[int]]:
    return sides(protocol, lists) if protocol.right else (lists["right"], ())


def _lists(ranking: Dataset, place: Mapping[int, int]) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield, shard by shard, the places of queries in the truth and their lists."""
    for shard in range(ranking.shards):
        part = read_ranking(ranking, shard)
        asked = [n for n, query in enumerate(part.queries.tolist()) if query in place]
        at = [place[int(part.queries[n])] for n in asked]
        yield at, [part.photos[n][part.photos[n] >= 0].tolist() for n in asked]


def _table(
    ids: pa.ChunkedArray, found: Mapping[tuple[str, str, str], NDArray[np.float64]], notes: Sequence[str]
) -> pa.Table:
    parts = [
        pa.table(
            {
                "id": ids.combine_chunks(),
                **{
                    name: pa.array([one] * len(ids), pa.string())
                    for name, one in zip(("protocol", "metric", "stage"), key, strict=True)
                },
                "score": pa.array(values, pa.float64()),
            }
        )
        for key, values in found.items()
    ]
    rows = pa.concat_tables(parts)
    return with_note(rows, ". ".join(notes)) if notes else rows
