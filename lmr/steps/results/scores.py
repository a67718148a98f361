"""Evaluate: the score of every query after each step, by the protocol of the challenge."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import MAX_PREDICTIONS, parse_solution
from lmr.evaluation.protocols.scorers import map_at_100
from lmr.evaluation.scores import first_five
from lmr.runtime.settings import Settings, digest
from lmr.runtime.steps import Cost, Given, Role, Step, Whole
from lmr.steps.both import Both
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.names import PhotoNames, encoded, told
from lmr.steps.ranking import Ranked, read_ranking
from lmr.steps.results.submission import ID_BYTES, ids_of, with_ids
from lmr.storage.datasets import Dataset

__all__ = ["score_rankings", "evaluate_shard", "read_solution", "refuse_lost", "solution_for"]


def read_solution(url: str) -> dict[str, list[str]]:
    """Read a retrieval solution from storage: query id to the ids of its right photos.

    Raises
    ------
    StorageError
        If the file cannot be read.
    LmrError
        If it is no solution; with every fault of the file.
    """
    return parse_solution(storage.read(url), url)


def solution_for(
    solution: Mapping[str, Sequence[str]], photos: Both[Photos], *, pruned: bool = False
) -> Given:
    """Check a solution against the photos and return it as a dataset.

    Photos are found by short name, path or id, as `PhotoNames` has it.

    Parameters
    ----------
    solution
        Query id to the ids of its right photos.
    photos
        The photos of the run.
    pruned
        Whether these are the first shards only: then what the solution says of other photos is left out.

    Raises
    ------
    LmrError
        If the solution names queries or gallery photos that are not there: all of them, the first five by
        name.
    """
    names = photos.map(lambda some: PhotoNames(some.ids, some.places if all(some.paths) else some.ids))
    kept: dict[str, list[str]] = {}
    lost: dict[Role, list[str]] = {"queries": [], "gallery": []}
    twice: list[str] = []
    for query, images in solution.items():
        row = names.queries.find(query)
        if row is None:
            lost["queries"].append(query)
            continue
        if photos.queries.ids[row] in kept:
            twice.append(query)
            continue
        found = {image: names.gallery.find(image) for image in images}
        lost["gallery"] += [image for image, right in found.items() if right is None]
        # A photo that is called by two of its names is one.
        rights = dict.fromkeys(right for right in found.values() if right is not None)
        kept[photos.queries.ids[row]] = [photos.gallery.ids[right] for right in rights]
    if not pruned:
        refuse_lost(lost, photos)
    if twice:
        raise LmrError(
            f"the solution names {len(twice)} queries twice",
            got=first_five(map(told, twice)),
            fix="keep one line for each query, whatever it is called there",
        )
    if not any(kept.values()):
        raise LmrError(
            "the solution has no right photo for any of these queries",
            got=f"{len(kept)} queries in the solution",
            fix="give the solution that belongs to these photos, or run without --solution",
        )
    rows = pa.table({"id": list(kept), "images": pa.array(list(kept.values()), pa.list_(pa.string()))})
    return Given(name="solution", folder="solution", rows=rows, fingerprint=digest(kept))


def refuse_lost(lost: Mapping[Role, Sequence[str]], photos: Both[Photos]) -> None:
    """Refuse a solution that names photos that are not there, or that could be several."""
    missing = {role: list(dict.fromkeys(names)) for role, names in lost.items() if names}
    if not missing:
        return
    what = {
        "queries": "queries that are not there",
        "gallery": "photos that are not in the gallery",
    }
    raise LmrError(
        "the solution names " + " and ".join(f"{len(names):,} {what[r]}" for r, names in missing.items()),
        got="; ".join(f"{role}: {first_five(map(told, names))}" for role, names in missing.items()),
        fix="give the solution that belongs to these photos; a name that several photos have finds none: "
        f"there, write the path, such as {encoded(photos.gallery.places[0] or photos.gallery.ids[0])}",
    )


def score_rankings(rankings: Mapping[str, Ranked], solution: Given, photos: Both[Photos]) -> Step:
    """Declare the step that scores every ranking: columns `id` and, per ranking, the query's AP@100.

    Queries without a right photo are left out of the mean and have NaN.
    """
    return Step(
        name="evaluate",
        folder="scores",
        make=evaluate_shard,
        settings=Settings(),
        inputs={
            "solution": solution,
            **{role: side.named() for role, side in photos.items()},
            **{f"ranking_{name}": Whole(ranked.step) for name, ranked in rankings.items()},
        },
        shards=1,
        cost=Cost(
            rows=len(photos.queries),
            bytes_per_row=ID_BYTES + 8.0 * len(rankings),
            # The ids of all photos, one ranking as lists of Python's strings, and the solution.
            task_bytes=2.0 * ID_BYTES * (len(photos.gallery) + len(photos.queries))
            + len(photos.queries) * MAX_PREDICTIONS * 3.0 * ID_BYTES
            + 4.0 * solution.rows.nbytes,
            work=len(photos.queries) * len(rankings),
            unit="vector",
        ),
    )


def evaluate_shard(
    shard: int,
    settings: Settings,
    *,
    solution: Dataset,
    gallery: Dataset,
    queries: Dataset,
    **rankings: Dataset,
) -> pa.Table:
    """Score all rankings."""
    rows = solution.read(0).to_pydict()
    truth = dict(zip(rows["id"], rows["images"], strict=True))
    columns: dict[str, object] = {"id": rows["id"]}
    ids = ids_of(gallery), ids_of(queries)
    for name, ranking in rankings.items():
        predictions: dict[str, list[str]] = {}
        for i in range(ranking.shards):
            part = with_ids(read_ranking(ranking, i), *ids).to_pydict()
            predictions.update(zip(part["id"], part["images"], strict=True))
        known = {query: images for query, images in predictions.items() if query in truth}
        columns[name.removeprefix("ranking_")] = np.asarray(map_at_100(known, truth).per_query)
    return pa.table(columns)
