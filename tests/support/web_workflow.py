"""The workflow of `plain_workflow`, of photos that may lie at web addresses."""

from dataclasses import dataclass, field

from lmr.steps.features.described import extract_global
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.web import WebSettings
from lmr.steps.workflow import Inputs, Workflow


@dataclass(frozen=True, kw_only=True)
class WebWorkflowSettings:
    ingest: IngestSettings = field(default_factory=lambda: IngestSettings(photos_per_shard=4))
    web: WebSettings = field(default_factory=lambda: WebSettings(private=True, tries=1))
    local: LocalSettings = field(default_factory=lambda: LocalSettings(max_features=100))
    describe: DescribeSettings = field(default_factory=lambda: DescribeSettings(dimension=16, words=8))
    rank: RankSettings = field(default_factory=RankSettings)


PRESETS = {"default": WebWorkflowSettings()}


def build(inputs: Inputs, settings: WebWorkflowSettings) -> Workflow:
    inputs = inputs.in_shards_of(settings.ingest.photos_per_shard)
    images = inputs.photos.map(lambda photos: ingest(photos, settings.ingest, settings.web))
    local = images.map(lambda side: extract_local(side, settings.local, inputs))
    described = extract_global(images, local, settings.describe, inputs)
    ranked = rank(described.queries, searchable(described.gallery, settings.rank), settings.rank)
    return Workflow(
        inputs=inputs,
        images=images,
        local=local,
        described=described,
        rankings={"found": ranked},
        labels={"found": "the one search"},
    )
