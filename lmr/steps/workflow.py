"""What a workflow is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from lmr.runtime.steps import Given, Source, Step
from lmr.steps.features.weights import Weights
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.unusable import check_photos
from lmr.steps.results.scores import score_rankings
from lmr.steps.results.submission import name_submission

__all__ = ["Inputs", "Weights", "Workflow"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run starts from.

    Attributes
    ----------
    gallery, queries
        The photos.
    solution
        Which photos are right for which query, if known.
    weights, local_weights
        Of the global descriptor's and of the local features' network, where they are networks.
    device
        Where networks run: "cpu", "cuda".
    """

    gallery: Photos
    queries: Photos
    solution: Given | None = None
    weights: Weights | None = None
    local_weights: Weights | None = None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """The steps that a run ends in.

    Attributes
    ----------
    inputs
        What it starts from.
    images
        The ingested gallery and queries.
    local
        Their local features.
    pairs
        The verified pairs.
    rankings
        A ranking after each step, in order; the last one is submitted.
    photos_per_shard
        As ingested.
    """

    inputs: Inputs
    images: tuple[Source, Source]
    local: tuple[Source, Source]
    pairs: Step
    rankings: Mapping[str, Step]
    photos_per_shard: int

    @cached_property
    def submission(self) -> Step:
        """The step that names the photos of the last ranking."""
        last = list(self.rankings.values())[-1]
        return name_submission(last, self.inputs.gallery, self.inputs.queries, self.photos_per_shard)

    @cached_property
    def unusable(self) -> Step:
        """The step that lists photos that cannot be used."""
        return check_photos(*self.images)

    @cached_property
    def scores(self) -> Step | None:
        """The step that scores every ranking; None without a solution."""
        if self.inputs.solution is None:
            return None
        photos = self.inputs.gallery, self.inputs.queries
        return score_rankings(self.rankings, self.inputs.solution, *photos, self.photos_per_shard)

    @property
    def targets(self) -> list[Step]:
        """The steps to run; all others are run because these need them."""
        ends = [self.unusable, *self.rankings.values(), self.submission]
        return ends if self.scores is None else [*ends, self.scores]
