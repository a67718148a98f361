"""Name landmarks by the calibrated probability of their photos, where a run has a calibration."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.naming import INGREDIENTS
from lmr.retrieval.probable_names import Combine, by_probability
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step
from lmr.steps.both import Both
from lmr.steps.features.columns import Described
from lmr.steps.inputs import Inputs
from lmr.steps.probability import probability
from lmr.steps.ranking import Ranked
from lmr.steps.recognition.labels import Labels, landmarks_of
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset

__all__ = ["ProbableSettings", "name_by_probability", "probable_shard"]


@dataclass(frozen=True, kw_only=True)
class ProbableSettings(Settings):
    """Settings of `recognise_probable`; they count where a run has a calibration."""

    combine: Combine = "best"
    """How the photos of a landmark become one probability: `best`, that of the surest photo; `noisy_or`, as
    if they spoke independently; `mean` of those that were found."""
    least_support: Annotated[float, Ge(0), Le(1)] = 0.5
    """Photos of the landmark that are at least so probable are counted as its support."""


def name_by_probability(
    named: Step,
    ranked: Ranked,
    verified: Ranked,
    described: Both[Described],
    labels: Labels,
    inputs: Inputs,
    settings: ProbableSettings,
) -> Step:
    """Declare the step that adds one more name per query; without a calibration, return `named` as it is.

    Columns are those of `recognise`, with one more ingredient: the landmark whose photos are the most
    probable, and that probability as its confidence. `support` counts its photos that are probable, `photo`
    is the most probable one.

    Parameters
    ----------
    named
        From `recognise`.
    ranked, verified, described
        What probabilities are made of; see `lmr.steps.probability.probability`.
    labels
        The landmarks of the gallery.
    inputs
        What the run starts from; its calibration.
    settings
        The settings.
    """
    if inputs.calibration is None:
        return named
    likely = probability(ranked, verified, described, inputs.calibration.model)
    width, stages = ranked.depth + verified.depth, 1 + len(INGREDIENTS)
    return Step(
        name="recognise_probable",
        folder="recognised/probable",
        make=probable_shard,
        settings=settings,
        inputs={"named": Each(named), "likely": Each(likely), "labels": labels.rows},
        shards=named.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=12.0 + 12.0 * stages,
            # The pairs as read, by query and landmark, sorted; names before and after; the gallery's labels.
            task_bytes=ranked.per_shard * (200.0 * width + 48.0 * stages)
            + 28.0 * labels.rows.rows.num_rows
            + 16.0 * labels.count,
            work=ranked.queries,
            unit="vector",
        ),
    )


def probable_shard(
    shard: int, settings: ProbableSettings, *, named: Dataset, likely: Dataset, labels: Dataset
) -> pa.Table:
    """Name the landmarks of the queries of one shard."""
    before, pairs = named.read(shard), likely.read(shard)
    found = by_probability(
        column(pairs, "photos"),
        column(pairs, "probability").astype(np.float64),
        landmarks_of(labels),
        how=settings.combine,
        least_support=settings.least_support,
    )
    landmark = np.hstack([column(before, "landmark"), found.landmarks[:, None].astype(np.int32)])
    confidence = np.hstack([column(before, "confidence"), found.confidence[:, None]])
    return table(
        {
            "query": column(before, "query"),
            "landmark": landmark,
            "confidence": confidence,
            "support": found.support.astype(np.int32),
            "photo": found.photos.astype(np.int32),
        }
    )
