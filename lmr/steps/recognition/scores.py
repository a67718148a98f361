"""Score recognition: what each query gives to GAP after each ingredient."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from lmr.evaluation.protocols.recognition import accuracy, gap
from lmr.retrieval.naming import INGREDIENTS, PROBABILITY
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Given, Step, Whole
from lmr.steps.photos.listing import Photos
from lmr.steps.recognition.labels import Labels, names_of
from lmr.steps.results.submission import ID_BYTES, ids_of
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset

__all__ = ["predictions_of", "score_recognition", "score_shard"]

Predictions = dict[str, tuple[str, float] | None]


def score_recognition(named: Step, labels: Labels, truth: Given, queries: Photos) -> Step:
    """Declare the scores: columns `id`, one per ingredient, and `accuracy`.

    The mean of an ingredient's column over the queries with a landmark is GAP; the others have NaN there.
    `accuracy` is 1 for a query whose last name is right.
    """
    return Step(
        name="evaluate_recognition",
        folder="scores/recognition",
        make=score_shard,
        settings=Settings(),
        inputs={"truth": truth, "queries": queries.named(), "labels": labels.rows, "named": Whole(named)},
        shards=1,
        cost=Cost(
            rows=len(queries),
            bytes_per_row=ID_BYTES + 8.0 * (1 + len(INGREDIENTS)),
            # The names of queries and landmarks, a prediction and the truth of each, in their order.
            task_bytes=2.0 * ID_BYTES * (labels.count + len(labels.rows.rows))
            + len(queries) * (6.0 * ID_BYTES + 400.0 + 40.0 * len(INGREDIENTS))
            + 4.0 * truth.rows.nbytes,
            work=len(queries) * len(INGREDIENTS),
            unit="vector",
        ),
    )


def score_shard(
    shard: int, settings: Settings, *, truth: Dataset, queries: Dataset, labels: Dataset, named: Dataset
) -> pa.Table:
    """Score every ingredient."""
    rows = truth.read(0).to_pydict()
    right = dict(zip(rows["id"], rows["landmarks"], strict=True))
    ids, landmarks = ids_of(queries).to_pylist(), names_of(labels)
    columns: dict[str, object] = {"id": rows["id"]}
    known: dict[str, tuple[str, float]] = {}
    width = column(named.read(0, ["landmark"]), "landmark").shape[1]
    for place, ingredient in enumerate([*INGREDIENTS, *PROBABILITY][:width]):
        predictions = predictions_of(named, ids, landmarks, place)
        known = {one: name for one, name in predictions.items() if name is not None and one in right}
        columns[ingredient] = np.asarray(gap(known, right).per_query)
    columns["accuracy"] = np.asarray(accuracy(known, right).per_query)
    return pa.table(columns)


def predictions_of(named: Dataset, ids: list[str], landmarks: list[str], place: int = -1) -> Predictions:
    """Return query id to landmark and confidence after an ingredient; None where nothing is named."""
    return {
        ids[query]: None if mark < 0 else (landmarks[mark], sure) for query, mark, sure in _rows(named, place)
    }


def _rows(named: Dataset, place: int) -> Iterator[tuple[int, int, float]]:
    for shard in range(named.shards):
        rows = named.read(shard, ["query", "landmark", "confidence"])
        marks, sure = column(rows, "landmark")[:, place], column(rows, "confidence")[:, place]
        yield from zip(column(rows, "query").tolist(), marks.tolist(), sure.tolist(), strict=True)
