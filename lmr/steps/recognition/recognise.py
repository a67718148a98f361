"""Recognise: the landmark of each query and a confidence, after each ingredient."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.naming import INGREDIENTS, Distractors, Found, NamingRecipe, name_after_each
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Given, Step, Whole
from lmr.steps.ranking import Ranked, read_ranking
from lmr.steps.recognition.labels import Labels, landmarks_of
from lmr.storage.arrow import column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack

__all__ = ["Recognised", "RecogniseSettings", "recognise", "recognise_shard"]


@dataclass(frozen=True, kw_only=True)
class RecogniseSettings(NamingRecipe, Settings):
    """Settings of `recognise`; a weight of 0 leaves its ingredient out."""

    @property
    def recipe(self) -> NamingRecipe:
        """How evidence is weighed."""
        return NamingRecipe(**{f.name: getattr(self, f.name) for f in fields(NamingRecipe)})


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a workflow of recognition ends in.

    Attributes
    ----------
    named
        Columns as of `recognise`.
    labels
        The landmarks of the gallery's photos.
    truth
        Those of the queries; None without a solution.
    scores
        What each query gives to GAP after each ingredient; None without a solution.
    label_pairs
        Verified pairs of labelled gallery photos, to find wrong labels; None where they are not checked.
    """

    named: Step
    labels: Labels
    truth: Given | None = None
    scores: Step | None = None
    label_pairs: Step | None = None

    @property
    def steps(self) -> list[Step]:
        """The steps to run."""
        return [step for step in (self.named, self.scores, self.label_pairs) if step is not None]

    @property
    def sources(self) -> dict[str, Step | Given]:
        """What is read of a finished run, by name."""
        found: dict[str, Step | Given | None] = {
            "named": self.named,
            "labels": self.labels.rows,
            "truth": self.truth,
            "scores": self.scores,
            "label_pairs": self.label_pairs,
        }
        return {name: source for name, source in found.items() if source is not None}


def recognise(
    ranked: Ranked,
    verified: Ranked,
    backgrounds: tuple[Step, Step],
    frequency: Step,
    labels: Labels,
    settings: RecogniseSettings,
) -> Step:
    """Declare the step that names the landmark of each query; a row per query.

    Columns: `query`, `landmark` (a number per ingredient, in their order, -1 for none), `confidence` (the
    same, -inf for none), `support` (pairs that speak for the last name), `photo` (the gallery row that speaks
    most for it, -1 for none).

    Parameters
    ----------
    ranked
        What the global search found, and similarities.
    verified
        What the local search found, votes, and column `inliers`.
    backgrounds, frequency
        From `background` (of gallery and queries) and from `frequency`.
    labels
        The landmarks of the gallery.
    settings
        The settings.
    """
    gallery, queries = backgrounds
    stages = len(INGREDIENTS)
    pairs = min(settings.neighbours, ranked.depth) + verified.depth
    return Step(
        name="recognise",
        folder="recognised",
        make=recognise_shard,
        settings=settings,
        inputs={
            "ranked": Each(ranked.step),
            "verified": Each(verified.step),
            "background_queries": Each(queries),
            "background_gallery": Whole(gallery),
            "frequency": Whole(frequency),
            "labels": labels.rows,
        },
        shards=ranked.step.shards,
        role="queries",
        cost=Cost(
            rows=ranked.queries,
            bytes_per_row=12.0 + 12.0 * stages,
            # The lists as read; their pairs as evidence, by query and landmark, sorted; the gallery's labels.
            task_bytes=ranked.per_shard * (24.0 * (ranked.depth + verified.depth) + 200.0 * pairs)
            + 28.0 * gallery.rows
            + 16.0 * labels.count
            + 24.0 * stages * ranked.per_shard,
            work=ranked.queries,
            unit="vector",
            mapped_bytes=12.0 * gallery.rows,
        ),
    )


def recognise_shard(
    shard: int,
    settings: RecogniseSettings,
    *,
    ranked: Dataset,
    verified: Dataset,
    background_queries: Dataset,
    background_gallery: Dataset,
    frequency: Dataset,
    labels: Dataset,
) -> pa.Table:
    """Name the landmarks of the queries of one shard."""
    near, local = read_ranking(ranked, shard), read_ranking(verified, shard)
    found = Found(
        neighbours=near.photos,
        similarities=near.scores,
        candidates=local.photos,
        votes=local.scores,
        inliers=column(verified.read(shard, ["inliers"]), "inliers"),
    )
    distractors = Distractors(
        queries=column(background_queries.read(shard, ["background"]), "background"),
        photos=np.asarray(stack(background_gallery, "background")),
        frequency=column(frequency.read(0), "share"),
    )
    named, photos = name_after_each(found, landmarks_of(labels), distractors, settings.recipe)
    last = list(named.values())[-1]

    def stacked(field: str, kind: type[Any]) -> NDArray[Any]:
        return np.stack([getattr(one, field) for one in named.values()], axis=1).astype(kind)

    return table(
        {
            "query": near.queries,
            "landmark": stacked("landmarks", np.int32),
            "confidence": stacked("confidence", np.float64),
            "support": last.support.astype(np.int32),
            "photo": photos.astype(np.int32),
        }
    )
