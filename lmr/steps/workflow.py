"""What a workflow is made of, whatever its steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lmr.runtime.steps import Source, Step
from lmr.steps.both import Both
from lmr.steps.features.columns import Described
from lmr.steps.features.local import Extracted
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.duplicates import Copies
from lmr.steps.photos.unusable import check_photos
from lmr.steps.probability import probability
from lmr.steps.ranking import Ranked
from lmr.steps.recognition.recognise import Recognised
from lmr.steps.results.protocols import score_protocols
from lmr.steps.results.scores import score_rankings
from lmr.steps.results.submission import name_submission
from lmr.steps.verification.verify import Verified

__all__ = ["Inputs", "Weights", "Workflow"]


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """The steps that a run ends in.

    A workflow needs photos, by id at least, and one ranking. The rest is optional: what is not there is left
    out of the report and of the results.

    Attributes
    ----------
    inputs
        What it starts from.
    rankings
        A ranking after each stage, in order; the last one is submitted.
    images
        The ingested photos, for pictures and for the list of those that cannot be used.
    labels
        What people read in place of a ranking's name.
    local
        Local features, for pictures of matches.
    verified
        Pairs that were verified, and the candidates in the order that follows from them.
    described
        Global descriptors.
    copies
        Which photos are copies of others, where they are looked for.
    recognised
        Names of the queries' landmarks, of a workflow of recognition: they are submitted then.
    """

    inputs: Inputs
    rankings: Mapping[str, Ranked]
    images: Both[Source] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    local: Both[Extracted] | None = None
    verified: Verified | None = None
    described: Both[Described] | None = None
    copies: Copies | None = None
    recognised: Recognised | None = None

    @cached_property
    def submission(self) -> Step:
        """The step that names the photos of the last ranking."""
        last = list(self.rankings.values())[-1]
        return name_submission(last, self.inputs.photos)

    @cached_property
    def probable(self) -> Step | None:
        """The step that gives each answer a probability; None without a calibration."""
        return self.probable_of(list(self.rankings.values())[-1])

    def probable_of(self, ranked: Ranked) -> Step | None:
        """Return the step that gives the answers of a stage a probability; None without a calibration."""
        if self.inputs.calibration is None:
            return None
        verified = self.verified.ranking if self.verified else None
        return probability(ranked, verified, self.described, self.inputs.calibration.model)

    @property
    def signals(self) -> tuple[str, ...]:
        """What is measured of an answer, as calibrations name it."""
        verified = ("inliers", "votes") if self.verified else ()
        return (*verified, *(("similarity",) if self.described else ()))

    @cached_property
    def unusable(self) -> Step | None:
        """The step that lists photos that cannot be used; None where no photo is looked at."""
        return None if self.images is None else check_photos(self.images)

    @cached_property
    def scores(self) -> Step | None:
        """The step that scores every ranking; None without a solution."""
        if self.inputs.solution is None:
            return None
        return score_rankings(self.rankings, self.inputs.solution, self.inputs.photos)

    @cached_property
    def protocol_scores(self) -> Step | None:
        """The step that scores every ranking by protocols; None where none was asked for."""
        inputs = self.inputs
        if inputs.ground_truth is None or not inputs.protocols:
            return None
        return score_protocols(self.rankings, inputs.ground_truth, inputs.protocols, inputs.photos)

    @property
    def targets(self) -> list[Step]:
        """The steps to run; all others are run because these need them."""
        rankings = [ranked.step for ranked in self.rankings.values()]
        # The pairs are no mere means to a ranking: tables and calibration read them.
        pairs = self.verified.pairs if self.verified else None
        copies = self.copies.queries if self.copies else None
        names = self.recognised.steps if self.recognised else []
        sure = [pairs, copies, self.probable]
        scores = [self.scores, self.protocol_scores]
        ends = [self.unusable, *rankings, self.submission, *sure, *scores, *names]
        return [step for step in ends if step is not None]
