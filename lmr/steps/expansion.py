"""Step 4, global expansion: query + top of the global search + verified photos, searched again."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.expansion import expand as expansion
from lmr.retrieval.expansion.fuse import add_evidence
from lmr.retrieval.global_search.augmentation import weights_of
from lmr.retrieval.global_search.exact import similarities
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step
from lmr.steps.features.columns import Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.global_search.search import Searchable, search_gallery
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes, read_ranking, with_head
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["ExpandSettings", "expand", "expand_shard"]

GATHERED = 1024  # queries whose candidates' descriptors are gathered at a time


@dataclass(frozen=True, kw_only=True)
class ExpandSettings(Settings):
    """Settings of `expand`."""

    top: Annotated[int, Ge(0), Le(1_000)] = 5
    """Photos of the global search that are averaged in."""
    verified: bool = True
    """Whether the confident matches of step 2 are averaged in too."""
    alpha: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of their similarity as weight; 0 is the plain mean."""
    vote_weight: Annotated[float, Ge(0), Le(1_000)] = 0.8
    """Weight of the logarithm of step 1's votes, compared with what chance gives, against the new search's
    similarity; 0 leaves them out."""


def expand(
    queries: Described,
    ranked: Ranked,
    verified: Ranked | None,
    gallery: Searchable,
    settings: ExpandSettings,
) -> Ranked:
    """Declare the expansion; a ranking, with the expanded query as column `descriptor`.

    Scores are similarities to the expanded query plus the weighted logarithm of the votes. Confident matches
    stand at the head whatever their score; column `confident` says how many.

    Parameters
    ----------
    queries
        The queries' descriptors.
    ranked
        What the global search found.
    verified
        What the local search found, confident matches first; None where nothing was verified.
    gallery
        What the global search searched: it is searched again.
    settings
        The settings.
    """
    found = gallery.cost(ranked.per_shard, ranked.depth)
    row_bytes = ranking_bytes(ranked.depth) + 4.0 + 2.0 * queries.dimension
    local = 0 if verified is None else verified.depth
    averaged = settings.top + local
    step = Step(
        name="expand",
        folder="expanded",
        make=expand_shard,
        revision=2,  # until 1 the weakest candidate stood for chance
        settings=settings,
        inputs={
            "described": Each(queries.source),
            "ranked": Each(ranked.step),
            **({} if verified is None else {"verified": Each(verified.step)}),
            **gallery.inputs(),
        },
        **gallery.where(),
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=row_bytes,
            # The photos that are averaged in, in float64; the earlier search's lists as fetched and as read,
            # and those that both make, merged and in the table. What is found anew is in the search's cost.
            task_bytes=found.task_bytes
            + ranked.per_shard * (8.0 * averaged * 3.0 + 24.0 * queries.dimension)
            + 4.0 * local * queries.dimension * min(ranked.per_shard, GATHERED)
            + ranked.per_shard * (4.0 * row_bytes + 16.0 * local),
            work=ranked.queries,
            unit="vector",
            mapped_bytes=found.mapped_bytes,
        ),
    )
    return Ranked(step, ranked.depth)


def expand_shard(
    shard: int,
    settings: ExpandSettings,
    *,
    described: Dataset,
    ranked: Dataset,
    gallery: Dataset,
    verified: Dataset | None = None,
    index: Dataset | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Expand the queries of one shard and search again."""
    before = read_ranking(ranked, shard)
    local, inliers, confident, chance = _read_verified(verified, shard, before.queries)
    averaged = confident[:, None] if settings.verified else 0
    head = np.where(np.arange(local.photos.shape[1]) < averaged, local.photos, -1)
    ids, weights = expansion.matches_with_verified(
        before.photos, weights_of(before.scores, settings.alpha), head, top=settings.top
    )
    queries = to_float(column(described.read(shard, ["descriptor"]), "descriptor"))
    descriptors = stack(gallery, "descriptor")
    expanded = expansion.expand_queries(queries, ids, weights, descriptors)
    depth = before.photos.shape[1]
    exact = ExactSearch(device)
    sims, found = search_gallery(expanded, descriptors, index, depth, exact)
    candidate_sims = similarities(expanded, local.photos, descriptors)
    photos, scores = np.full_like(before.photos, -1), np.zeros_like(before.scores)
    for q in range(len(photos)):
        rows = np.concatenate([found[q], local.photos[q]])
        rows, first = np.unique(rows, return_index=True)
        order, totals = add_evidence(
            rows,
            np.concatenate([sims[q], candidate_sims[q]])[first],
            local.photos[q],
            local.scores[q],
            background=float(chance[q]),
            weight=settings.vote_weight,
            depth=depth,
        )
        sure = slice(0, confident[q])
        photos[q], scores[q] = with_head(order, totals, local.photos[q, sure], inliers[q, sure], depth)
    ranking = Ranking(before.queries, photos, scores)
    return exact.told(ranking.table(descriptor=expanded.astype(np.float16), confident=confident))


def _read_verified(
    verified: Dataset | None, shard: int, queries: NDArray[np.int32]
) -> tuple[Ranking, NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Read what the local search found, its inliers, how many are confident, and what chance gives."""
    if verified is None:
        none, zeros = np.empty((len(queries), 0), np.int32), np.zeros(len(queries), np.int32)
        return Ranking(queries, none, none.astype(np.float32)), none, zeros, np.ones(len(queries), np.float32)
    more = verified.read(shard, ["inliers", "confident", "background"])
    ranking = read_ranking(verified, shard)
    return ranking, column(more, "inliers"), column(more, "confident"), column(more, "background")
