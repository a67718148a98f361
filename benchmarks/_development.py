"""The development photos as a workflow's inputs, scores query by query, and what differences are worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _shared import shared
from numpy.typing import NDArray

from lmr.cluster.client import Where
from lmr.runtime.settings import layer
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Workflow
from workflows import retrieval

__all__ = ["VARIANTS", "Variant", "development_inputs", "mean_error", "scored"]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A choice of features with the settings that belong to it.

    Attributes
    ----------
    preset
        The name of the workflow's preset.
    changes
        Values by step and setting that differ from it.
    weights, local_weights
        Files of the shared folder, for the networks of global and local features; empty: none.
    """

    preset: str
    changes: Mapping[str, Mapping[str, Any]]
    weights: str = ""
    local_weights: str = ""

    def settings(self, *more: Mapping[str, Mapping[str, Any]]) -> retrieval.RetrievalSettings:
        """Return the settings with further changes."""
        return layer(retrieval.PRESETS[self.preset], self.changes, *more)


XFEAT = {"local": {"features": "xfeat"}, "verify": {"min_inliers": 20}}
MOBILENET = "weights/mobilenet_v2_imagenet.pth"
VARIANTS = {
    # Those with the same local features follow each other: they share all shards of steps 1 and 2.
    "lite0": Variant(preset="lite0", changes={}),
    "vlad": Variant(preset="vlad", changes={"describe": {"descriptor": "vlad"}}),
    "lite0+300": Variant(preset="lite0", changes={"local": {"max_gallery_features": 300}}),
    "mobilenet": Variant(preset="gem", changes={}, weights=MOBILENET),
    "lite0+xfeat": Variant(preset="lite0", changes=XFEAT, local_weights="weights/xfeat/xfeat_folded.npz"),
}


def development_inputs(variant: Variant) -> Inputs:
    """Return the development photos, their solution and the variant's weights, where they lie."""
    photos = shared("data/landmarks")
    listed = Both(
        list_photos("gallery", str(photos / "gallery")), list_photos("queries", str(photos / "query"))
    )
    truth = read_solution(str(photos / "retrieval_solution.csv"))
    return Inputs(
        photos=listed,
        solution=solution_for(truth, listed),
        weights=_weights(variant.weights),
        local_weights=_weights(variant.local_weights),
    )


def _weights(relative: str) -> Weights | None:
    return Weights.of(str(shared(relative))) if relative else None


def scored(flow: Workflow, root: str | Path, workers: int = 0) -> dict[str, NDArray[np.float64]]:
    """Run what is missing of a workflow and return AP@100 of every query with a right photo, by stage."""
    assert flow.scores is not None
    run(flow.targets, str(root), Where(workers=workers))
    rows = flow.scores.dataset(str(root)).read(0)
    columns = {name: rows.column(name).to_numpy() for name in flow.rankings}
    return {name: values[~np.isnan(values)] for name, values in columns.items()}


def mean_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean over queries and its standard error, as of independent queries."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
