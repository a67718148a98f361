"""Step 2b, local guidance: confident matches move to the head, the others keep the votes' order.

Sorting a whole list by inlier counts makes it worse, since small counts are noise.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.expansion.expand import order_with_verified
from lmr.runtime.steps import Each, Step, Whole
from lmr.steps.ranking import Ranking, read_ranking
from lmr.steps.verification.verify import VerifySettings
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["rerank", "rerank_shard"]


def rerank(candidates: Step, verified: Step, settings: VerifySettings) -> Step:
    """Declare the step that reorders candidates by what verification found.

    The ranking's scores are the votes; confident matches stand at the head whatever theirs. It has two more
    columns: `inliers` (per ranked photo, 0 where RANSAC found no model) and `confident` (how many photos at
    the head have more than `settings.min_inliers`).
    """
    return Step(
        name="rerank",
        folder="verified",
        make=rerank_shard,
        settings=settings,
        inputs={"candidates": Each(candidates), "verified": Whole(verified)},
        shards=candidates.shards,
        rows=candidates.rows,
        bytes_per_row=candidates.bytes_per_row * 1.5,
    )


def rerank_shard(shard: int, settings: VerifySettings, *, candidates: Dataset, verified: Dataset) -> pa.Table:
    """Reorder the candidates of the queries of one shard."""
    ranking = read_ranking(candidates, shard)
    inliers = _inliers_of(ranking, verified)
    photos, scores = np.full_like(ranking.photos, -1), np.zeros_like(ranking.scores)
    counts, confident = np.zeros_like(ranking.photos), np.zeros(len(photos), np.int32)
    for q, (listed, votes, found) in enumerate(zip(ranking.photos, ranking.scores, inliers, strict=True)):
        sure = found > settings.min_inliers
        order = order_with_verified(listed, listed[sure], found[sure], len(listed))
        places = np.argsort(listed, kind="stable")
        places = places[np.searchsorted(listed, order, sorter=places)]
        confident[q] = sure.sum()
        photos[q, : len(order)] = order
        counts[q, : len(order)] = found[places]
        scores[q, : len(order)] = votes[places]
    return Ranking(ranking.queries, photos, scores).table(inliers=counts, confident=confident)


def _inliers_of(ranking: Ranking, verified: Dataset) -> NDArray[np.int32]:
    """Look up the inlier counts of ranked pairs among all verified pairs, which lie by gallery shard.

    Ten million pairs are 120 MB, mapped; picking a shard's queries out of them is one pass.
    """
    first, last = int(ranking.queries[0]), int(ranking.queries[-1])
    query = np.asarray(stack(verified, "query"))
    mine = np.flatnonzero((query >= first) & (query <= last))
    inliers = np.zeros_like(ranking.photos)
    if not len(mine):
        return inliers
    pair = _key(query[mine] - first, stack(verified, "photo")[mine])
    order = np.argsort(pair)
    wanted = _key(np.arange(len(ranking.photos))[:, None], ranking.photos)
    places = np.searchsorted(pair, wanted, sorter=order).clip(max=len(pair) - 1)
    found = (pair[order[places]] == wanted) & (ranking.photos >= 0)
    inliers[found] = stack(verified, "inliers")[mine[order[places[found]]]]
    return inliers


def _key(query: NDArray[np.integer[Any]], photo: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    return (query.astype(np.int64) << 32) | photo.astype(np.int64)
