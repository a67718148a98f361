"""Step 1b, local search: features of a query vote for gallery photos; the best candidates stay."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.index import nearest_lists, search_index
from lmr.retrieval.vote import vote
from lmr.runtime.limits import threads
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Step, Whole
from lmr.runtime.tables import column
from lmr.steps.build_index import open_sub_indexes
from lmr.steps.ranking import Ranking

__all__ = ["SearchSettings", "search", "search_shard"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """Settings of `search`."""

    candidates: Annotated[int, Ge(1)] = 100
    """Gallery photos kept per query."""
    neighbours: Annotated[int, Ge(2)] = 20
    """Nearest gallery features that each query feature votes with."""
    burst: Annotated[float, Ge(0)] = 0.5
    """The n features of a query that fall into one inverted list and vote for one photo count as their sum
    divided by n ** burst (Jégou et al. 2009); 0 counts all in full."""
    probes: Annotated[int, Ge(1)] = 16
    """Inverted lists visited per query feature."""


def search(images: Step, local: Step, index: Step, settings: SearchSettings) -> Step:
    """Declare the step that searches the gallery by local features; a ranking by votes."""
    return Step(
        name="search",
        folder="candidates",
        make=search_shard,
        settings=settings,
        inputs={"images": Each(images), "local": Each(local), "index": Whole(index)},
        shards=images.shards,
        rows=images.rows,
        bytes_per_row=4.0 + 8.0 * settings.candidates,
    )


def search_shard(
    shard: int, settings: SearchSettings, *, images: Dataset, local: Dataset, index: Dataset
) -> pa.Table:
    """Search with the queries of one shard."""
    queries = column(images.read(shard, ["photo"]), "photo")
    features = local.read(shard, ["photo", "descriptor"])
    descriptors = to_float(column(features, "descriptor"))
    distances, photos = search_index(
        open_sub_indexes(index),
        descriptors,
        k=settings.neighbours,
        probes=settings.probes,
        threads=threads(),
    )
    query_of_feature = (column(features, "photo") - queries[0]).astype(np.int64)
    ranked, votes = vote(
        query_of_feature,
        distances,
        photos,
        n_queries=len(queries),
        candidates=settings.candidates,
        words=nearest_lists(next(open_sub_indexes(index)), descriptors, threads=threads()),
        burst=settings.burst,
    )
    return Ranking(queries, ranked, votes).table()
