"""The probability of each answer: that the photo shows the query's landmark, by a calibration.

A run with a calibration has one step more. It looks at all photos of the last list and at all that were
verified, since recognition adds both up.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.probability import PairModel, signals_of
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Given, Step, Whole
from lmr.steps.both import Both
from lmr.steps.features.columns import Described
from lmr.steps.ranking import Ranked, ranks_in, read_ranking
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["PairSignals", "ProbabilitySettings", "pair_signals", "probability", "probability_shard"]

_PAIRS_AT_ONCE = 16_384
_TINY = 1e-6  # votes that chance gives at least


@dataclass(frozen=True, kw_only=True)
class ProbabilitySettings(Settings):
    """Settings of `probability`: the calibration's model."""

    model: PairModel
    """How signals become a probability."""


@dataclass(frozen=True, eq=False)
class PairSignals:
    """What was measured of the pairs of the queries of a shard.

    Attributes
    ----------
    queries
        (q,) int32 rows of the queries.
    photos
        (q, n) int32 gallery rows: the last list, then what was verified besides; -1 where there is none.
    signals
        (q, n, 3) float64, as of `signals_of`.
    """

    queries: NDArray[np.int32]
    photos: NDArray[np.int32]
    signals: NDArray[np.float64]


def probability(
    ranked: Ranked, verified: Ranked | None, described: Both[Described] | None, model: PairModel
) -> Step:
    """Declare the step: columns `query`, `photos` (the last list, then what was verified), `probability`.

    Parameters
    ----------
    ranked
        The list that is answered with.
    verified
        Candidates of the local search with votes and column `inliers`; None where nothing is verified.
    described
        Global descriptors; None where there are none.
    model
        The calibration's.
    """
    inputs: dict[str, Each | Whole | Given] = {"ranked": Each(ranked.step)}
    width, dimension, mapped = ranked.depth, 0, 0.0
    if verified is not None:
        inputs["verified"] = Each(verified.step)
        width += verified.depth
    if described is not None:
        inputs |= {
            "described": Each(described.queries.source),
            "gallery": Whole(described.gallery.source),
        }
        dimension = described.gallery.dimension
        mapped = 2.0 * described.gallery.rows * dimension
    per_shard = ranked.per_shard
    return Step(
        name="probability",
        folder="probability",
        make=probability_shard,
        settings=ProbabilitySettings(model=model),
        inputs=inputs,
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=4.0 + 8.0 * width,
            # Lists as read and as joined, three signals of each pair, and some pairs' descriptors.
            task_bytes=per_shard * width * 120.0 + 12.0 * dimension * (_PAIRS_AT_ONCE + per_shard),
            work=ranked.queries * width,
            unit="pair",
            mapped_bytes=mapped,
        ),
    )


def probability_shard(
    shard: int,
    settings: ProbabilitySettings,
    *,
    ranked: Dataset,
    verified: Dataset | None = None,
    described: Dataset | None = None,
    gallery: Dataset | None = None,
) -> pa.Table:
    """Return the probability of every pair of the queries of one shard; 0 where there is no photo."""
    pairs = pair_signals(shard, ranked, verified, described, gallery)
    said = np.where(pairs.photos >= 0, settings.model.probability(pairs.signals), 0.0)
    return table({"query": pairs.queries, "photos": pairs.photos, "probability": said.astype(np.float32)})


def pair_signals(
    shard: int,
    ranked: Dataset,
    verified: Dataset | None,
    described: Dataset | None,
    gallery: Dataset | None,
) -> PairSignals:
    """Read what was measured of the pairs of one shard; what a workflow does not measure is 0."""
    last = read_ranking(ranked, shard)
    photos, shape = last.photos, last.photos.shape
    inliers, votes = np.zeros(shape), np.zeros(shape)
    if verified is not None:
        local = read_ranking(verified, shard)
        more = verified.read(shard, ["inliers", "background"])
        chance = np.maximum(column(more, "background").astype(np.float64), _TINY)
        photos = np.hstack([photos, local.photos]).astype(np.int32)
        # A photo of the last list that was verified too stands there only.
        photos[:, shape[1] :][ranks_in(last.photos, local.photos) > 0] = -1
        rank = ranks_in(local.photos, photos)
        place = np.maximum(rank - 1, 0)
        inliers = np.where(rank > 0, np.take_along_axis(column(more, "inliers"), place, axis=1), 0)
        counts = np.take_along_axis(local.scores, place, axis=1) / chance[:, None]
        votes = np.where(rank > 0, counts, 0.0)
    similarity = np.zeros(photos.shape, np.float32)
    if described is not None and gallery is not None:
        similarity = _similarities(shard, last.queries, photos, described, gallery)
    return PairSignals(last.queries, photos, signals_of(inliers, votes, similarity))


def _similarities(
    shard: int,
    queries: NDArray[np.int32],
    photos: NDArray[np.int32],
    described: Dataset,
    gallery: Dataset,
) -> NDArray[np.float32]:
    """Return the cosine of the descriptors of each pair."""
    rows = described.read(shard, ["photo", "descriptor"])
    mine = to_float(column(rows, "descriptor"))[np.searchsorted(column(rows, "photo"), queries)]
    vectors = stack(gallery, "descriptor")
    found = np.zeros(photos.shape, np.float32)
    at_once = max(1, _PAIRS_AT_ONCE // max(photos.shape[1], 1))
    for start in range(0, len(photos), at_once):
        some = slice(start, start + at_once)
        theirs = to_float(vectors[np.maximum(photos[some], 0).ravel()]).reshape(*photos[some].shape, -1)
        found[some] = np.einsum("qd,qkd->qk", mine[some], theirs)
    return found
