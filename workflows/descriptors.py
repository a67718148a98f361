r"""Steps 3 to 5 on descriptors that come in as files: whatever network they are from.

| | step | what it does |
|---|---|---|
| 3 | global search with DBA | the gallery's descriptors are averaged with their neighbours, then searched |
| 4 | query expansion | query + top of 3, searched again |
| 5 | diffusion | photos form a graph (regions, where a photo has several vectors); ranks spread along it |

    lmr run descriptors --gallery-descriptors g.npy --gallery-ids g.txt \
        --query-descriptors q.npy --query-ids q.txt --out run/
"""

from dataclasses import dataclass, field

from lmr.steps.diffusion.offline_columns import ColumnSettings, solve_columns
from lmr.steps.diffusion.online import DiffuseSettings, diffuse
from lmr.steps.diffusion.region_graph import GraphSettings, region_graph
from lmr.steps.expansion import ExpandSettings, expand
from lmr.steps.features.own import OwnSettings, own_descriptors
from lmr.steps.global_search.augmentation import AugmentSettings, augment
from lmr.steps.global_search.knn_graph import NeighbourSettings, find_neighbours
from lmr.steps.global_search.rank import RankSettings, rank
from lmr.steps.global_search.search import searchable
from lmr.steps.workflow import Inputs, Workflow


@dataclass(frozen=True, kw_only=True)
class DescriptorSettings:
    """Settings of every step; the defaults are those of the workflow `retrieval`."""

    own: OwnSettings = field(default_factory=OwnSettings)
    neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    rank: RankSettings = field(default_factory=RankSettings)
    expand: ExpandSettings = field(default_factory=ExpandSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    diffuse: DiffuseSettings = field(default_factory=DiffuseSettings)


PRESETS = {
    "default": DescriptorSettings(),
    # The values of the papers, for strong descriptors of landmarks with many photos.
    "paper": DescriptorSettings(
        augment=AugmentSettings(neighbours=10, alpha=3.0),
        expand=ExpandSettings(top=5, alpha=0.0),
        graph=GraphSettings(neighbours=200, gamma=3.0),
        diffuse=DiffuseSettings(start="regions", starts=200, alpha=0.99, weight=None),
    ),
}

LABELS = {"rank": "3 global search", "expand": "4 query expansion", "diffuse": "5 diffusion"}


def build(inputs: Inputs, settings: DescriptorSettings) -> Workflow:
    """Declare the workflow; nothing runs before all of it is declared and checked."""
    inputs = inputs.in_shards_of(settings.own.photos_per_shard)
    described = own_descriptors(inputs, settings.own)

    # 3 global search with database-side augmentation
    neighbours = find_neighbours(described.gallery, settings.neighbours)
    augmented = searchable(augment(described.gallery, neighbours, settings.augment), settings.rank)
    ranked = rank(described.queries, augmented, settings.rank)

    # 4 query expansion; nothing is verified
    expanded = expand(described.queries, ranked, None, augmented, settings.expand)

    # 5 diffusion
    graph = region_graph(described.gallery, settings.graph)
    columns = solve_columns(described, neighbours, settings.columns)
    final = diffuse(described, graph, columns, expanded, augmented, settings.diffuse)

    return Workflow(
        inputs=inputs,
        described=described,
        rankings={"rank": ranked, "expand": expanded, "diffuse": final},
        labels=LABELS,
    )
