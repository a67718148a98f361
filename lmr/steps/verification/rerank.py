"""Step 2b, local guidance: confident matches move to the head, the others keep the votes' order.

Sorting a whole list by inlier counts makes it worse, since small counts are noise.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.expansion.expand import order_with_verified
from lmr.runtime.settings import Part
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.steps.ranking import Ranked, Ranking, pair_keys, read_ranking
from lmr.steps.verification.verify import VerifySettings
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["inliers_of", "rerank", "rerank_shard"]

# Of the settings these have named the folder from the first version on; a recipe's others name that of the
# pairs.
HASHED = (
    *("min_inliers", "model", "max_residual_px", "frame_side_px", "max_distance", "max_ratio", "mutual"),
    *("weak_geometry", "max_trials", "seed"),
)


def rerank(candidates: Ranked, pairs: Step, settings: VerifySettings) -> Ranked:
    """Declare the step that reorders candidates by what verification found.

    The ranking's scores are the votes; confident matches stand at the head whatever theirs. It has three
    more columns: `inliers` (per ranked photo, 0 where RANSAC found no model), `confident` (how many photos at
    the head have more than `settings.min_inliers`) and the `background` of the candidates' scores.
    """
    row_bytes = 12.0 + 12.0 * candidates.depth
    step = Step(
        name="rerank",
        folder="verified",
        make=rerank_shard,
        revision=2,  # hands on what chance gives
        settings=settings.only(*HASHED),
        inputs={"candidates": Each(candidates.step), "verified": Whole(pairs)},
        shards=candidates.step.shards,
        role="queries",
        cost=Cost(
            rows=candidates.queries,
            bytes_per_row=row_bytes,
            # Which of all pairs are of the shard's queries; its lists as read, as made and as written.
            task_bytes=4.0 * pairs.rows + candidates.per_shard * (8.0 * row_bytes + 60.0 * candidates.depth),
            work=candidates.queries * candidates.depth,
            unit="pair",
            mapped_bytes=12.0 * pairs.rows,
        ),
    )
    return Ranked(step, candidates.depth)


def rerank_shard(shard: int, settings: Part, *, candidates: Dataset, verified: Dataset) -> pa.Table:
    """Reorder the candidates of the queries of one shard."""
    ranking = read_ranking(candidates, shard)
    inliers = inliers_of(ranking, verified)
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
    chance = column(candidates.read(shard, ["background"]), "background")
    ranked = Ranking(ranking.queries, photos, scores)
    return ranked.table(inliers=counts, confident=confident, background=chance)


def inliers_of(ranking: Ranking, verified: Dataset) -> NDArray[np.int32]:
    """Look up the inliers of ranked pairs, (q, k) int32, among all verified pairs; 0 where one is missing.

    The pairs lie by gallery shard. Ten million are 120 MB, mapped; picking a shard's queries out of them is
    one pass.
    """
    first, last = int(ranking.queries[0]), int(ranking.queries[-1])
    query = np.asarray(stack(verified, "query"))
    mine = np.flatnonzero((query >= first) & (query <= last))
    inliers = np.zeros_like(ranking.photos)
    if not len(mine):
        return inliers
    pair = pair_keys(query[mine] - first, stack(verified, "photo")[mine])
    order = np.argsort(pair)
    wanted = pair_keys(np.arange(len(ranking.photos))[:, None], ranking.photos)
    places = np.searchsorted(pair, wanted, sorter=order).clip(max=len(pair) - 1)
    found = (pair[order[places]] == wanted) & (ranking.photos >= 0)
    inliers[found] = stack(verified, "inliers")[mine[order[places[found]]]]
    return inliers
