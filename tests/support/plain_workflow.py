"""A workflow of one ranking: photos, global descriptors, a search. Nothing is verified, nothing diffused."""

from dataclasses import dataclass, field

from lmr.steps.features.described import extract_global
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.workflow import Inputs, Workflow


@dataclass(frozen=True, kw_only=True)
class PlainSettings:
    ingest: IngestSettings = field(default_factory=lambda: IngestSettings(photos_per_shard=20))
    local: LocalSettings = field(default_factory=LocalSettings)
    describe: DescribeSettings = field(default_factory=lambda: DescribeSettings(dimension=16, words=8))
    rank: RankSettings = field(default_factory=RankSettings)


PRESETS = {"default": PlainSettings()}


def build(inputs: Inputs, settings: PlainSettings) -> Workflow:
    inputs = inputs.in_shards_of(settings.ingest.photos_per_shard)
    images = inputs.photos.map(lambda photos: ingest(photos, settings.ingest))
    local = images.map(lambda side: extract_local(side, settings.local, inputs))
    described = extract_global(images, local, settings.describe, inputs)
    ranked = rank(described.queries, searchable(described.gallery, settings.rank), settings.rank)
    return Workflow(
        inputs=inputs,
        images=images,
        described=described,
        rankings={"found": ranked},
        labels={"found": "the one search"},
    )
