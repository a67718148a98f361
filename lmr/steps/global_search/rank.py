"""Step 3b, global search: queries against the augmented gallery."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import PROCESS_BYTES, Each, Source, Step, Whole
from lmr.steps.global_search.search import KnnSettings, index_if_large, search_gallery
from lmr.steps.ranking import Ranking
from lmr.steps.sizes import dimension_of, opening_bytes, rows_per_shard
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["RankSettings", "rank", "rank_shard"]


@dataclass(frozen=True, kw_only=True)
class RankSettings(KnnSettings):
    """Settings of `rank`."""

    depth: Annotated[int, Ge(100)] = 100
    """Gallery photos kept per query, here and in every later ranking."""


def rank(described_queries: Source, augmented: Step, settings: RankSettings) -> Step:
    """Declare the global search; a ranking by inner product."""
    index = index_if_large(augmented, settings)
    return Step(
        name="rank",
        folder="ranked",
        make=rank_shard,
        settings=settings,
        inputs={
            "described": Each(described_queries),
            "gallery": Whole(augmented),
            **index,
        },
        shards=described_queries.shards,
        rows=described_queries.rows,
        bytes_per_row=4.0 + 8.0 * settings.depth,
        peak_bytes=PROCESS_BYTES
        + opening_bytes(index)
        + rows_per_shard(described_queries) * (12 * dimension_of(described_queries) + 40 * settings.depth),
    )


def rank_shard(
    shard: int,
    settings: RankSettings,
    *,
    described: Dataset,
    gallery: Dataset,
    index: Dataset | None = None,
) -> pa.Table:
    """Search with the queries of one shard."""
    rows = described.read(shard, ["photo", "descriptor"])
    queries = to_float(column(rows, "descriptor"))
    sims, photos = search_gallery(queries, stack(gallery, "descriptor"), index, settings.depth)
    return Ranking(column(rows, "photo"), photos, sims).table()
