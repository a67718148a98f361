"""A workflow of one ranking without global descriptors: photos, local features, votes. It has no labels."""

from dataclasses import dataclass, field

from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.local_search.asmk import AsmkSettings
from lmr.steps.local_search.index import IndexSettings
from lmr.steps.local_search.votes import SearchSettings, search
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.workflow import Inputs, Workflow


@dataclass(frozen=True, kw_only=True)
class VotesSettings:
    ingest: IngestSettings = field(default_factory=lambda: IngestSettings(photos_per_shard=20))
    # Not called `local`: nothing may ask for a group that only the retrieval workflow has.
    features: LocalSettings = field(default_factory=LocalSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    votes: SearchSettings = field(default_factory=SearchSettings)


PRESETS = {"default": VotesSettings()}


def build(inputs: Inputs, settings: VotesSettings) -> Workflow:
    inputs = inputs.in_shards_of(settings.ingest.photos_per_shard)
    images = inputs.photos.map(lambda photos: ingest(photos, settings.ingest))
    local = images.map(lambda side: extract_local(side, settings.features, inputs))
    found = search(images.queries, local, settings.votes, settings.index, AsmkSettings())
    return Workflow(inputs=inputs, images=images, local=local, rankings={"votes": found})
