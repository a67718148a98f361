"""Landmark retrieval: the NII team's entry to the Google Landmark Retrieval Challenge 2018, in five steps.

| | step | what it does |
|---|---|---|
| 1 | local search | gallery photos with features like the query's, by votes or ASMK; 100 candidates stay |
| 2 | spatial verification | RANSAC on those; many inliers make a confident match (local guidance) |
| 3 | global search with DBA | global descriptors, the gallery's averaged with their neighbours |
| 4 | query expansion | query + top of 3 + confident matches of 2, searched again (global expansion) |
| 5 | regional diffusion | regions of every photo form a graph; ranks spread along it |
"""

from dataclasses import dataclass, field

from lmr.steps.diffusion.offline_columns import ColumnSettings, solve_columns
from lmr.steps.diffusion.online import DiffuseSettings, diffuse
from lmr.steps.diffusion.region_graph import GraphSettings, region_graph
from lmr.steps.expansion import ExpandSettings, expand
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
from lmr.steps.photos.duplicates import DuplicateSettings, find_copies, group_copies, keep_one
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.web import WebSettings
from lmr.steps.refinement import RefineSettings, gallery_links, refine
from lmr.steps.verification.overlays import OverlaySettings, look_for_overlays
from lmr.steps.verification.rerank import rerank
from lmr.steps.verification.verify import Verified, VerifySettings, verify
from lmr.steps.workflow import Inputs, Workflow


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings:
    """Settings of every step; the defaults are calibrated on development photos for RootSIFT and VLAD."""

    ingest: IngestSettings = field(default_factory=IngestSettings)
    web: WebSettings = field(default_factory=WebSettings)
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    asmk: AsmkSettings = field(default_factory=AsmkSettings)
    overlays: OverlaySettings = field(default_factory=OverlaySettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    describe: DescribeSettings = field(default_factory=DescribeSettings)
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    rank: RankSettings = field(default_factory=RankSettings)
    expand: ExpandSettings = field(default_factory=ExpandSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    diffuse: DiffuseSettings = field(default_factory=DiffuseSettings)
    refine: RefineSettings = field(default_factory=RefineSettings)


PRESETS = {
    # Calibrated on development photos (docs/results/quality.md); the option --global chooses between them.
    # The first is what everybody gets; where its weights are not installed it is "vlad".
    "lite0": RetrievalSettings(
        describe=DescribeSettings(descriptor="lite0", power=0.1),
        expand=ExpandSettings(vote_weight=0.3),
        graph=GraphSettings(neighbours=20),
        diffuse=DiffuseSettings(start="regions", starts=20, weight=0.15),
    ),
    "vlad": RetrievalSettings(),
    "triangulation": RetrievalSettings(describe=DescribeSettings(descriptor="triangulation", words=32)),
    "gem": RetrievalSettings(
        describe=DescribeSettings(descriptor="gem"),
        expand=ExpandSettings(vote_weight=0.3),
        graph=GraphSettings(neighbours=20),
        diffuse=DiffuseSettings(start="regions", starts=20, weight=0.15),
    ),
    # The values of the papers, for DELF and DIR on landmarks with many photos.
    "paper": RetrievalSettings(
        verify=VerifySettings(min_inliers=40),
        augment=AugmentSettings(neighbours=10, alpha=3.0),
        expand=ExpandSettings(top=5, alpha=0.0, vote_weight=0.0),
        graph=GraphSettings(neighbours=200, gamma=3.0),
        diffuse=DiffuseSettings(start="regions", starts=200, alpha=0.99, pooling="gmp", weight=None),
    ),
}


LABELS = {
    "search": "1 local search",
    "verify": "2 spatial verification",
    "rank": "3 global search",
    "expand": "4 query expansion",
    "diffuse": "5 regional diffusion",
    "refine": "re-ranking by each other",
    "group": "copies together",
}


def build(inputs: Inputs, settings: RetrievalSettings) -> Workflow:
    """Declare the workflow; nothing runs before all of it is declared and checked."""
    inputs = inputs.in_shards_of(settings.ingest.photos_per_shard, settings.ingest.shard_bytes)
    images = inputs.photos.map(lambda photos: ingest(photos, settings.ingest, settings.web))
    copies = find_copies(images, settings.duplicates)
    images = keep_one(images, copies, settings.duplicates)
    local = images.map(lambda side: extract_local(side, settings.local, inputs))
    described = extract_global(images, local, settings.describe, inputs)

    # 1 local search
    overlays = look_for_overlays(
        local.gallery, images, settings.overlays, frame_side_px=settings.verify.frame_side_px
    )
    candidates = search(images.queries, local, settings.search, settings.index, settings.asmk, overlays)

    # 2 spatial verification
    pairs = verify(candidates, local, images, settings.verify, overlays)
    verified = rerank(candidates, pairs, settings.verify)

    # 3 global search with database-side augmentation
    neighbours = find_neighbours(described.gallery, settings.neighbours)
    augmented = searchable(augment(described.gallery, neighbours, settings.augment), settings.rank)
    ranked = rank(described.queries, augmented, settings.rank)

    # 4 query expansion
    expanded = expand(described.queries, ranked, verified, augmented, settings.expand)

    # 5 regional diffusion, or along the graph of photos, solved ahead of time (settings.diffuse.method)
    graph = region_graph(described.gallery, settings.graph)
    columns = solve_columns(described, neighbours, settings.columns)
    final = diffuse(described, graph, columns, expanded, augmented, settings.diffuse)

    # the first photos ranked anew by each other, where it is asked for (settings.refine.method)
    links = gallery_links(
        neighbours, local.gallery, images.gallery, settings.refine, settings.verify, overlays
    )
    refined = refine(described, final, expanded, pairs, links, settings.refine)

    more = {} if refined is final else {"refine": refined}
    if copies is not None and settings.duplicates.action == "group":
        more["group"] = group_copies(refined, copies, len(inputs.photos.gallery))

    return Workflow(
        inputs=inputs,
        images=images,
        local=local,
        described=described,
        verified=Verified(pairs, verified),
        copies=copies,
        rankings={
            "search": candidates,
            "verify": verified,
            "rank": ranked,
            "expand": expanded,
            "diffuse": final,
            **more,
        },
        labels=LABELS,
    )
