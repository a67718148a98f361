"""Submit: rows back to ids, as Kaggle's submission wants them."""

import numpy as np
import pyarrow as pa

from lmr.evaluation.protocols.kaggle import MAX_PREDICTIONS
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step
from lmr.steps.both import Both
from lmr.steps.photos.listing import Photos
from lmr.steps.ranking import Ranked, Ranking, read_ranking
from lmr.storage.datasets import Dataset

__all__ = ["ids_of", "name_submission", "submit_shard", "with_ids"]

ID_BYTES = 40.0
"""Of a long file name with its place in a column."""


def name_submission(ranked: Ranked, photos: Both[Photos]) -> Step:
    """Declare the step that names the ranked photos: columns `id`, `images` (list of up to 100 ids)."""
    return Step(
        name="submit",
        folder="submission",
        make=submit_shard,
        settings=Settings(),
        inputs={"ranked": Each(ranked.step), **{role: side.named() for role, side in photos.items()}},
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=ID_BYTES * (1 + MAX_PREDICTIONS),
            # The ids of all photos, and the lists as rows, as ids and as written.
            task_bytes=2.0 * ID_BYTES * (len(photos.gallery) + len(photos.queries))
            + 6.0 * ranked.per_shard * ID_BYTES * (1 + MAX_PREDICTIONS),
            work=ranked.queries,
            unit="vector",
        ),
    )


def submit_shard(
    shard: int, settings: Settings, *, ranked: Dataset, gallery: Dataset, queries: Dataset
) -> pa.Table:
    """Name the photos of the queries of one shard."""
    return with_ids(read_ranking(ranked, shard), ids_of(gallery), ids_of(queries))


def ids_of(photos: Dataset) -> pa.ChunkedArray:
    """Read the ids of all photos of a set, in order of their rows."""
    return photos.read(0, ["id"]).column("id")


def with_ids(ranking: Ranking, gallery_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> pa.Table:
    """Return a ranking with ids in place of rows: columns `id`, `images`."""
    photos = ranking.photos[:, :MAX_PREDICTIONS]
    counts = (photos >= 0).sum(axis=1)
    images = gallery_ids.take(pa.array(photos[photos >= 0])).combine_chunks()
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, images)
    return pa.table({"id": query_ids.take(pa.array(ranking.queries)), "images": lists})
