"""The graph of the gallery's regions, on which step 5 lets ranks spread."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.diffusion.affinity import affinity_rows
from lmr.retrieval.diffusion.mixture import reduce_regions
from lmr.runtime.settings import Part
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.steps.features.columns import GRID_REGIONS, Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.global_search.search import KnnSettings, Searchable, search_gallery, searchable
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import Ragged, column, ragged, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack, stack_ragged

__all__ = [
    "GraphSettings",
    "RegionGraph",
    "region_graph",
    "edges_shard",
    "link_shard",
    "mutual_edges",
    "reduce_shard",
]


@dataclass(frozen=True, kw_only=True)
class GraphSettings(KnnSettings):
    """Settings of the graph of regions."""

    neighbours: Annotated[int, Ge(1), Le(10_000)] = 50
    """k: an edge joins two regions that are among each other's k nearest."""
    gamma: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of the similarity as weight of an edge."""
    regions: Annotated[int, Ge(0), Le(1_000)] = 0
    """Nodes that a mixture model makes of a photo's regions (Iscen et al. use 5); 0: every region is one."""


@dataclass(frozen=True, kw_only=True)
class RegionGraph:
    """The steps that make the graph.

    Attributes
    ----------
    nodes
        Column `regions`: the nodes' descriptors, a list per photo.
    per_photo
        Nodes of a photo.
    edges
        Columns `columns` and `values`: the edges of each node, a row per node.
    searched
        The nodes, as they are searched.
    """

    nodes: Described
    per_photo: int
    edges: Step
    searched: Searchable


def region_graph(described: Described, settings: GraphSettings) -> RegionGraph:
    """Declare the steps that join the gallery's regions to a graph."""
    nodes = _reduced(described, settings) if settings.regions else described
    per_photo = settings.regions or described.regions
    count, each = described.rows * per_photo, described.per_shard * per_photo
    # From the first version on the cells alone decide which search it is.
    cells = described.rows * (settings.regions or min(described.regions, GRID_REGIONS))
    gallery = searchable(nodes, settings, column="regions", count=cells)
    found = gallery.cost(each, settings.neighbours)
    links = Step(
        name="link_regions",
        folder="links",
        make=link_shard,
        settings=settings,
        inputs={"described": Each(nodes.source), **gallery.inputs()},
        **gallery.where(),
        shards=described.shards,
        role="gallery",
        cost=Cost(
            rows=count,
            bytes_per_row=8.0 * settings.neighbours,
            task_bytes=found.task_bytes,
            work=count,
            unit="vector",
            mapped_bytes=found.mapped_bytes,
        ),
    )
    edges = mutual_edges("graph", links, settings.neighbours, settings.gamma)
    return RegionGraph(nodes=nodes, per_photo=per_photo, edges=edges, searched=gallery)


def mutual_edges(name: str, links: Step, neighbours: int, gamma: float) -> Step:
    """Declare the step that keeps what is mutual of the links (columns `ids` and `sims`) between nodes.

    Parameters
    ----------
    name
        Of the step and of its folder.
    links
        The nearest nodes of each node.
    neighbours
        How many of them count.
    gamma
        Exponent of the similarity as weight of an edge.
    """
    return Step(
        name=name,
        folder=name,
        make=edges_shard,
        settings=Part("EdgeSettings", {"neighbours": neighbours, "gamma": gamma}),
        inputs={"links": Whole(links)},
        shards=links.shards,
        role=links.role,
        cost=Cost(
            rows=links.rows,
            bytes_per_row=8.0 + 8.0 * neighbours,
            task_bytes=rows_per_shard(links) * 60.0 * neighbours,
            work=links.rows,
            unit="node",
            mapped_bytes=links.rows * links.bytes_per_row,
        ),
    )


def _reduced(described: Described, settings: GraphSettings) -> Described:
    step = Step(
        name="reduce_regions",
        folder="reduced",
        make=reduce_shard,
        settings=settings.only("regions", kind="ReduceSettings"),
        inputs={"described": Each(described.source)},
        shards=described.shards,
        role="gallery",
        cost=Cost(
            rows=described.rows,
            bytes_per_row=8.0 + 2.0 * described.dimension * settings.regions,
            # Regions as stored, as floats and in float64, what a mixture makes of them, and what is written.
            task_bytes=described.per_shard * described.regions * 20.0 * described.dimension,
            work=described.rows,
            unit="photo",
        ),
    )
    return Described(step, described.dimension, searched_on=described.searched_on)


def reduce_shard(shard: int, settings: Part, *, described: Dataset) -> pa.Table:
    """Reduce the regions of one shard's photos: columns `photo` and `regions`."""
    rows = described.read(shard, ["photo", "regions"])
    regions = ragged(rows, "regions")
    values, offsets = reduce_regions(to_float(regions.values), regions.offsets, settings.regions)
    return table({"photo": column(rows, "photo"), "regions": Ragged(values.astype(np.float16), offsets)})


def link_shard(
    shard: int,
    settings: GraphSettings,
    *,
    described: Dataset,
    gallery: Dataset,
    index: Dataset | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Find the nearest regions of each region of one shard: columns `ids`, `sims`, a row per region."""
    mine = described.read(shard, ["photo", "regions"])
    everything = stack_ragged(gallery, "regions")
    first = int(everything.offsets[int(column(mine, "photo")[0])])
    exact = ExactSearch(device)
    sims, ids = search_gallery(
        to_float(ragged(mine, "regions").values),
        everything.values,
        index,
        settings.neighbours,
        exact,
        exclude_self_start=first,
    )
    return exact.told(table({"ids": ids, "sims": sims}))


def edges_shard(shard: int, settings: Part, *, links: Dataset) -> pa.Table:
    """Keep the mutual links of one shard's nodes: columns `columns`, `values`, a list per node."""
    k = settings.neighbours
    ids, sims = stack(links, "ids")[:, :k], stack(links, "sims")[:, :k]
    counts = [links.facts(i)["rows"] for i in range(shard + 1)]
    start, stop = sum(counts[:-1]), sum(counts)
    edges = affinity_rows(ids, sims, start, stop, gamma=settings.gamma)
    offsets = edges.indptr.astype(np.int64)
    return table(
        {
            "columns": Ragged(edges.indices.astype(np.int32)[:, None], offsets),
            "values": Ragged(edges.data.astype(np.float32)[:, None], offsets),
        }
    )
