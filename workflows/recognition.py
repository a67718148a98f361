r"""Landmark recognition: name the landmark of each query, with a confidence, from a labelled gallery.

| | step | what it does |
|---|---|---|
| 1 | local search | gallery photos with features like the query's, as in `retrieval` |
| 2 | spatial verification | RANSAC on those, as in `retrieval` |
| 3 | global search with DBA | neighbours of the global descriptor, as in `retrieval` |
| 4 | distractors | how much photos look like those without a landmark; which landmarks attract them |
| 5 | recognition | what all photos of a landmark say is added up, and lowered by what 4 tells |
| 6 | probability | with a calibration, photos' probabilities name the landmark, and are the confidence |

    lmr run recognition --gallery photos/ --labels labels.csv --queries queries/ --out run/
"""

from dataclasses import dataclass, field

from lmr.retrieval.naming import INGREDIENTS, PROBABILITY
from lmr.steps.features.described import extract_global
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.global_search.augmentation import AugmentSettings, augment
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.local_search.asmk import AsmkSettings
from lmr.steps.local_search.index import IndexSettings
from lmr.steps.local_search.votes import SearchSettings, search
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.web import WebSettings
from lmr.steps.recognition.check import CheckSettings, check_labels
from lmr.steps.recognition.distractors import BackgroundSettings, FrequencySettings, background, frequency
from lmr.steps.recognition.probable import ProbableSettings, name_by_probability
from lmr.steps.recognition.recognise import Recognised, RecogniseSettings, recognise
from lmr.steps.recognition.scores import score_recognition
from lmr.steps.verification.rerank import rerank
from lmr.steps.verification.verify import Verified, VerifySettings, verify
from lmr.steps.workflow import Inputs, Workflow

RECOGNISES = True
"""The gallery is labelled, and a solution names landmarks."""


@dataclass(frozen=True, kw_only=True)
class RecognitionSettings:
    """Settings of every step; where they are those of `retrieval`, shards are shared."""

    ingest: IngestSettings = field(default_factory=IngestSettings)
    web: WebSettings = field(default_factory=WebSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    asmk: AsmkSettings = field(default_factory=AsmkSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    describe: DescribeSettings = field(default_factory=DescribeSettings)
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    rank: RankSettings = field(default_factory=RankSettings)
    background: BackgroundSettings = field(default_factory=BackgroundSettings)
    frequency: FrequencySettings = field(default_factory=FrequencySettings)
    recognise: RecogniseSettings = field(default_factory=RecogniseSettings)
    probable: ProbableSettings = field(default_factory=ProbableSettings)
    check: CheckSettings = field(default_factory=CheckSettings)


PRESETS = {
    # Chosen on development photos (docs/results/recognition.md), how many photos of a landmark speak by
    # cross-validation over landmarks. The first is what everybody gets; where its weights are not installed
    # it is "vlad".
    "lite0": RecognitionSettings(
        describe=DescribeSettings(descriptor="lite0"),
        recognise=RecogniseSettings(neighbours=1, candidates=1),
    ),
    "vlad": RecognitionSettings(),
    "gem": RecognitionSettings(describe=DescribeSettings(descriptor="gem")),
}

LABELS = {"search": "1 local search", "verify": "2 spatial verification", "rank": "3 global search"}


def build(inputs: Inputs, settings: RecognitionSettings) -> Workflow:
    """Declare the workflow; nothing runs before all of it is declared and checked."""
    inputs = inputs.in_shards_of(settings.ingest.photos_per_shard, settings.ingest.shard_bytes)
    labels = inputs.needed_labels()
    images = inputs.photos.map(lambda photos: ingest(photos, settings.ingest, settings.web))
    local = images.map(lambda side: extract_local(side, settings.local, inputs))
    described = extract_global(images, local, settings.describe, inputs)

    # 1 local search, 2 spatial verification
    candidates = search(images.queries, local, settings.search, settings.index, settings.asmk)
    pairs = verify(candidates, local, images, settings.verify)
    verified = rerank(candidates, pairs, settings.verify)

    # 3 global search with database-side augmentation
    neighbours = find_neighbours(described.gallery, settings.neighbours)
    augmented = searchable(augment(described.gallery, neighbours, settings.augment), settings.rank)
    ranked = rank(described.queries, augmented, settings.rank)

    # 4 distractors
    backgrounds = described.map(lambda side: background(side, described.gallery, labels, settings.background))
    attracted = frequency(neighbours, labels, settings.frequency)

    # 5 recognition, and a look at the labels themselves
    named = recognise(
        ranked, verified, (backgrounds.gallery, backgrounds.queries), attracted, labels, settings.recognise
    )
    named = name_by_probability(named, ranked, verified, described, labels, inputs, settings.probable)
    truth = inputs.truth
    scores = score_recognition(named, labels, truth, inputs.photos.queries) if truth else None
    checked = check_labels(neighbours, local.gallery, images.gallery, labels, settings.check, settings.verify)

    return Workflow(
        inputs=inputs,
        images=images,
        local=local,
        described=described,
        verified=Verified(pairs, verified),
        rankings={"search": candidates, "verify": verified, "rank": ranked},
        labels={**LABELS, **INGREDIENTS, **PROBABILITY},
        recognised=Recognised(named=named, labels=labels, truth=truth, scores=scores, label_pairs=checked),
    )
