"""The graph of the gallery's regions, on which step 5 lets ranks spread."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.diffusion.affinity import affinity_rows
from lmr.retrieval.diffusion.mixture import reduce_regions
from lmr.runtime.settings import Settings
from lmr.runtime.steps import PROCESS_BYTES, Each, Source, Step, Whole
from lmr.steps.global_search.search import KnnSettings, index_if_large, search_gallery
from lmr.steps.sizes import dimension_of, opening_bytes, rows_per_shard
from lmr.storage.arrow import Ragged, column, ragged, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack, stack_ragged

__all__ = [
    "EdgeSettings",
    "GraphSettings",
    "RegionGraph",
    "region_graph",
    "edges_shard",
    "link_shard",
    "mutual_edges",
    "reduce_shard",
]

GRID_REGIONS = 20  # cells of the R-MAC grid of a 4:3 photo at three scales, for the plan


@dataclass(frozen=True, kw_only=True)
class GraphSettings(KnnSettings):
    """Settings of the graph of regions."""

    neighbours: Annotated[int, Ge(1)] = 50
    """k: an edge joins two regions that are among each other's k nearest."""
    gamma: Annotated[float, Ge(0)] = 3.0
    """Exponent of the similarity as weight of an edge."""
    regions: Annotated[int, Ge(0)] = 0
    """Nodes that a mixture model makes of a photo's regions (Iscen et al. use 5); 0: every region is one."""


@dataclass(frozen=True, kw_only=True)
class EdgeSettings(Settings):
    """What the edges of a graph depend on."""

    neighbours: int
    gamma: float


@dataclass(frozen=True, kw_only=True)
class ReduceSettings(Settings):
    """What reduced regions depend on."""

    regions: int


@dataclass(frozen=True, kw_only=True)
class RegionGraph:
    """The steps that make the graph.

    Attributes
    ----------
    nodes
        Column `regions`: the nodes' descriptors, a list per photo.
    edges
        Columns `columns` and `values`: the edges of each node, a row per node.
    """

    nodes: Source
    edges: Step


def region_graph(described: Source, settings: GraphSettings) -> RegionGraph:
    """Declare the steps that join the gallery's regions to a graph."""
    nodes = _reduced(described, settings) if settings.regions else described
    per_photo = settings.regions or GRID_REGIONS
    count, each = described.rows * per_photo, rows_per_shard(described) * per_photo
    dimension = dimension_of(described)
    index = index_if_large(nodes, settings, column="regions", rows=count)
    links = Step(
        name="link_regions",
        folder="links",
        make=link_shard,
        settings=settings,
        inputs={
            "described": Each(nodes),
            "gallery": Whole(nodes),
            **index,
        },
        shards=described.shards,
        rows=count,
        bytes_per_row=8.0 * settings.neighbours,
        peak_bytes=PROCESS_BYTES + opening_bytes(index) + each * (12 * dimension + 40 * settings.neighbours),
    )
    kept = EdgeSettings(neighbours=settings.neighbours, gamma=settings.gamma)
    return RegionGraph(nodes=nodes, edges=mutual_edges("graph", links, kept, each))


def mutual_edges(name: str, links: Step, settings: EdgeSettings, nodes_per_shard: int) -> Step:
    """Declare the step that keeps what is mutual of the links (columns `ids` and `sims`) between nodes."""
    return Step(
        name=name,
        folder=name,
        make=edges_shard,
        settings=settings,
        inputs={"links": Whole(links)},
        shards=links.shards,
        rows=links.rows,
        bytes_per_row=4.0 * settings.neighbours,
        peak_bytes=PROCESS_BYTES + nodes_per_shard * 40.0 * settings.neighbours,
    )


def _reduced(described: Source, settings: GraphSettings) -> Step:
    return Step(
        name="reduce_regions",
        folder="reduced",
        make=reduce_shard,
        settings=ReduceSettings(regions=settings.regions),
        inputs={"described": Each(described)},
        shards=described.shards,
        rows=described.rows,
        bytes_per_row=4.0 + 2.0 * dimension_of(described) * settings.regions,
        peak_bytes=PROCESS_BYTES + rows_per_shard(described) * GRID_REGIONS * 8.0 * dimension_of(described),
    )


def reduce_shard(shard: int, settings: ReduceSettings, *, described: Dataset) -> pa.Table:
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
) -> pa.Table:
    """Find the nearest regions of each region of one shard: columns `ids`, `sims`, a row per region."""
    mine = described.read(shard, ["photo", "regions"])
    everything = stack_ragged(gallery, "regions")
    first = int(everything.offsets[int(column(mine, "photo")[0])])
    sims, ids = search_gallery(
        to_float(ragged(mine, "regions").values),
        everything.values,
        index,
        settings.neighbours,
        exclude_self_start=first,
    )
    return table({"ids": ids, "sims": sims})


def edges_shard(shard: int, settings: EdgeSettings, *, links: Dataset) -> pa.Table:
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
