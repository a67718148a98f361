"""Check labels: labelled gallery photos against their nearest neighbours, verified as queries are."""

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Source, Step
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.global_search.knn_graph import KnnGraph
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes
from lmr.steps.recognition.labels import Labels, landmarks_of
from lmr.steps.sizes import rows_per_shard
from lmr.steps.verification.verify import VerifySettings, verify
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset

__all__ = ["CheckSettings", "check_labels", "label_candidates_shard"]


@dataclass(frozen=True, kw_only=True)
class CheckSettings(Settings):
    """Settings of `check`: how the gallery's own labels are checked."""

    neighbours: Annotated[int, Ge(0), Le(100)] = 3
    """Neighbours of each labelled photo that it is verified against; 0 checks no label."""


def check_labels(
    neighbours: KnnGraph,
    local: Extracted,
    images: Source,
    labels: Labels,
    settings: CheckSettings,
    verification: VerifySettings,
) -> Step | None:
    """Declare the verification of labelled gallery photos against their neighbours; None where it is off.

    Columns as of `verify`, with the labelled photo as query.
    """
    depth = min(settings.neighbours, neighbours.neighbours)
    if depth == 0:
        return None
    per_shard = rows_per_shard(neighbours.step)
    candidates = Step(
        name="label_candidates",
        folder="label_candidates",
        make=label_candidates_shard,
        settings=settings,
        inputs={"neighbours": Each(neighbours.step), "labels": labels.rows},
        shards=neighbours.step.shards,
        role="gallery",
        cost=Cost(
            rows=neighbours.step.rows,
            bytes_per_row=ranking_bytes(depth),
            task_bytes=per_shard * (24.0 * neighbours.neighbours + 4.0 * ranking_bytes(depth))
            + 12.0 * neighbours.step.rows,
            work=neighbours.step.rows,
            unit="vector",
        ),
    )
    pairs = verify(Ranked(candidates, depth), Both(local, local), Both(images, images), verification)
    return replace(pairs, name="verify_labels", folder="label_pairs")


def label_candidates_shard(
    shard: int, settings: CheckSettings, *, neighbours: Dataset, labels: Dataset
) -> pa.Table:
    """List the neighbours of the labelled photos of one shard that are labelled too."""
    rows = neighbours.read(shard, ["photo", "ids", "sims"])
    photos, of_photo = column(rows, "photo"), landmarks_of(labels)
    ids = column(rows, "ids")[:, : settings.neighbours].astype(np.int32)
    sims = column(rows, "sims")[:, : settings.neighbours].astype(np.float32)
    kept = (of_photo[photos] >= 0)[:, None] & (ids >= 0) & (of_photo[ids] >= 0)
    # A photo whose neighbours show no landmark has an empty list: nobody accuses it.
    return Ranking(photos, np.where(kept, ids, np.int32(-1)), np.where(kept, sims, np.float32(0))).table()
