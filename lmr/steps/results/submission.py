"""Submit: rows back to ids, as Kaggle's submission wants them."""

import numpy as np
import pyarrow as pa

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Each, Step
from lmr.steps.photos.listing import Photos
from lmr.steps.ranking import Ranking, read_ranking
from lmr.storage.datasets import Dataset

__all__ = ["ids_of", "named", "name_submission", "submit_shard"]

MAX_PHOTOS = 100
"""Photos per query in a submission, as the challenge has it."""


def name_submission(ranked: Step, gallery: Photos, queries: Photos, photos_per_shard: int) -> Step:
    """Declare the step that names the ranked photos: columns `id`, `images` (list of up to 100 ids)."""
    return Step(
        name="submit",
        folder="submission",
        make=submit_shard,
        settings=Settings(),
        inputs={
            "ranked": Each(ranked),
            "gallery": gallery.given(photos_per_shard),
            "queries": queries.given(photos_per_shard),
        },
        shards=ranked.shards,
        rows=ranked.rows,
        bytes_per_row=17.0 * MAX_PHOTOS,
    )


def submit_shard(
    shard: int, settings: Settings, *, ranked: Dataset, gallery: Dataset, queries: Dataset
) -> pa.Table:
    """Name the photos of the queries of one shard."""
    return named(read_ranking(ranked, shard), ids_of(gallery), ids_of(queries))


def ids_of(photos: Dataset) -> pa.ChunkedArray:
    """Read the ids of all photos of a set, in order of their rows."""
    return photos.read(0, ["id"]).column("id")


def named(ranking: Ranking, gallery_ids: pa.ChunkedArray, query_ids: pa.ChunkedArray) -> pa.Table:
    """Return a ranking with ids in place of rows: columns `id`, `images`."""
    photos = ranking.photos[:, :MAX_PHOTOS]
    counts = (photos >= 0).sum(axis=1)
    images = gallery_ids.take(pa.array(photos[photos >= 0])).combine_chunks()
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, images)
    return pa.table({"id": query_ids.take(pa.array(ranking.queries)), "images": lists})
