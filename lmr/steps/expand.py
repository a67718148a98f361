"""Step 4, global expansion: query + top of the global search + verified photos, searched again."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval import expand as expansion
from lmr.retrieval.augment import weights_of
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.fuse import fuse
from lmr.retrieval.neighbours import top_k
from lmr.runtime.cache import stack
from lmr.runtime.limits import threads
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Step, Whole
from lmr.runtime.tables import column
from lmr.steps.ranking import Ranking, read_ranking

__all__ = ["ExpandSettings", "expand", "expand_shard"]


@dataclass(frozen=True, kw_only=True)
class ExpandSettings(Settings):
    """Settings of `expand`."""

    top: Annotated[int, Ge(0)] = 5
    """Photos of the global search that are averaged in."""
    alpha: Annotated[float, Ge(0)] = 0.0
    """Exponent of their similarity as weight; 0 is the plain mean."""
    fuse_votes: Annotated[float, Ge(0)] = 1.0
    """Weight of the local votes' ranks against the new search's, by reciprocal rank; 0 leaves them out."""


def expand(
    described_queries: Step, ranked: Step, verified: Step, augmented: Step, settings: ExpandSettings
) -> Step:
    """Declare the expansion; a ranking, with the expanded query as column `descriptor`.

    Confident matches stand at the head, the rest is in the new search's order (with `fuse_votes`, fused with
    the order of step 2). Column `confident` says how many stand at the head.
    """
    return Step(
        name="expand",
        folder="expanded",
        make=expand_shard,
        settings=settings,
        inputs={
            "described": Each(described_queries),
            "ranked": Each(ranked),
            "verified": Each(verified),
            "gallery": Whole(augmented),
        },
        shards=ranked.shards,
        rows=ranked.rows,
        bytes_per_row=ranked.bytes_per_row + 512,
    )


def expand_shard(
    shard: int,
    settings: ExpandSettings,
    *,
    described: Dataset,
    ranked: Dataset,
    verified: Dataset,
    gallery: Dataset,
) -> pa.Table:
    """Expand the queries of one shard and search again."""
    before = read_ranking(ranked, shard)
    local = verified.read(shard, ["photos", "inliers", "confident"])
    listed, inliers, confident = (column(local, c) for c in ("photos", "inliers", "confident"))
    head = np.where(np.arange(listed.shape[1]) < confident[:, None], listed, -1)
    ids, weights = expansion.matches_with_verified(
        before.photos, weights_of(before.scores, settings.alpha), head, top=settings.top
    )
    queries = to_float(column(described.read(shard, ["descriptor"]), "descriptor"))
    descriptors = stack(gallery, "descriptor")
    expanded = expansion.expand(queries, ids, weights, descriptors)
    depth = before.photos.shape[1]
    _, found = top_k(expanded, [(0, descriptors)], depth, threads=threads())
    photos, scores = np.full_like(before.photos, -1), np.zeros_like(before.scores)
    for q in range(len(photos)):
        order = found[q]
        if settings.fuse_votes:
            order = fuse([found[q], listed[q]], [1.0, settings.fuse_votes])
        sure = slice(0, confident[q])
        order = expansion.order_with_verified(order, listed[q, sure], inliers[q, sure], depth)
        photos[q, : len(order)] = order
        # Places, not similarities, carry the order: head, search and fusion have no common scale.
        scores[q, : len(order)] = 1 - np.arange(len(order)) / depth
    ranking = Ranking(before.queries, photos, scores)
    return ranking.table(descriptor=expanded.astype(np.float16), confident=confident)
