"""Step 1, local search: gallery photos with features like the query's; the best candidates stay.

By votes each feature looks up its nearest gallery features and votes for their photos; by ASMK
(`lmr.steps.local_search.asmk`) photos are compared per visual word.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.local_search.inverted_file import nearest_lists, search_sub_index
from lmr.retrieval.local_search.votes import inverse_frequency, vote
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Each, Source, Step, Whole
from lmr.runtime.threads import threads
from lmr.steps.local_search.asmk import AsmkSettings, index_asmk, search_by_asmk
from lmr.steps.local_search.index import IndexSettings, entries_per_list, index_local, open_sub_indexes
from lmr.steps.ranking import Ranking
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset

__all__ = ["SearchSettings", "search", "search_by_votes", "search_votes_shard"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """Settings of `search`; those of `method` "asmk" are in `AsmkSettings`."""

    method: Literal["votes", "asmk"] = "votes"
    """How gallery photos are compared with a query."""
    candidates: Annotated[int, Ge(1)] = 100
    """Gallery photos kept per query."""
    neighbours: Annotated[int, Ge(2)] = 20
    """Nearest gallery features that each query feature votes with."""
    burst: Annotated[float, Ge(0)] = 0.5
    """The n features of a query that fall into one inverted list and vote for one photo count as their sum
    divided by n ** burst (Jégou et al. 2009); 0 counts all in full."""
    idf: bool = False
    """Whether votes count less that come from an inverted list with many gallery features."""
    probes: Annotated[int, Ge(1)] = 16
    """Inverted lists visited per query feature."""


def search(
    images: Source,
    local: tuple[Source, Source],
    settings: SearchSettings,
    index: IndexSettings,
    asmk: AsmkSettings,
) -> Step:
    """Declare the index of the gallery and its search with the queries; a ranking.

    Parameters
    ----------
    images
        Of the queries.
    local
        Local features of gallery and queries.
    settings, index, asmk
        Settings of the search, of its index, and of ASMK where `settings.method` asks for it.
    """
    if settings.method == "asmk":
        inverted = index_asmk(local[0], asmk.of_index(index.gallery_shards_per_index, index.seed))
        return search_by_asmk(images, local[1], inverted, asmk.of_search(settings.candidates))
    return search_by_votes(images, local[1], index_local(local[0], index), settings)


def search_by_votes(images: Source, local: Source, index: Source, settings: SearchSettings) -> Step:
    """Declare the step that searches the gallery by votes; they are the ranking's scores."""
    return Step(
        name="search",
        folder="candidates",
        make=search_votes_shard,
        settings=settings,
        inputs={"images": Each(images), "local": Each(local), "index": Whole(index)},
        shards=images.shards,
        rows=images.rows,
        bytes_per_row=4.0 + 8.0 * settings.candidates,
    )


def search_votes_shard(
    shard: int, settings: SearchSettings, *, images: Dataset, local: Dataset, index: Dataset
) -> pa.Table:
    """Search with the queries of one shard."""
    queries = column(images.read(shard, ["photo"]), "photo")
    features = local.read(shard, ["photo", "descriptor"])
    descriptors = to_float(column(features, "descriptor"))
    distances, photos = search_sub_index(
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
        idf=inverse_frequency(entries_per_list(index)) if settings.idf else None,
    )
    return Ranking(queries, ranked, votes).table()
