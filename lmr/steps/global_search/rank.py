"""Step 3b, global search: queries against the augmented gallery."""

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Cost, Each, Step
from lmr.steps.features.columns import Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.global_search.search import KnnSettings, Searchable, search_gallery
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["RankSettings", "rank", "rank_shard"]


@dataclass(frozen=True, kw_only=True)
class RankSettings(KnnSettings):
    """Settings of `rank`."""

    depth: Annotated[int, Ge(100), Le(100_000)] = 100
    """Gallery photos kept per query, here and in every later ranking."""


def rank(queries: Described, gallery: Searchable, settings: RankSettings) -> Ranked:
    """Declare the global search; a ranking by inner product."""
    found = gallery.cost(queries.per_shard, settings.depth)
    step = Step(
        name="rank",
        folder="ranked",
        make=rank_shard,
        settings=settings,
        inputs={"described": Each(queries.source), **gallery.inputs()},
        **gallery.where(),
        shards=queries.shards,
        role="queries",
        cost=Cost(
            rows=queries.rows,
            bytes_per_row=ranking_bytes(settings.depth),
            task_bytes=found.task_bytes,
            work=queries.rows,
            unit="vector",
            mapped_bytes=found.mapped_bytes,
        ),
    )
    return Ranked(step, settings.depth)


def rank_shard(
    shard: int,
    settings: RankSettings,
    *,
    described: Dataset,
    gallery: Dataset,
    index: Dataset | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Search with the queries of one shard."""
    rows = described.read(shard, ["photo", "descriptor"])
    queries = to_float(column(rows, "descriptor"))
    exact = ExactSearch(device)
    sims, photos = search_gallery(queries, stack(gallery, "descriptor"), index, settings.depth, exact)
    return exact.told(Ranking(column(rows, "photo"), photos, sims).table())
