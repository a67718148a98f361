"""Step 5, regional diffusion: ranks spread along the graph of the gallery's regions."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Lt
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.retrieval import diffuse as diffusion
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.fuse import add_evidence
from lmr.retrieval.graph import affinity_rows
from lmr.retrieval.neighbours import top_k
from lmr.runtime.cache import stack, stack_ragged
from lmr.runtime.limits import threads
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Source, Step, Whole
from lmr.runtime.tables import Ragged, column, ragged, table
from lmr.steps.ranking import Ranking, read_ranking, with_head

__all__ = [
    "DiffuseSettings",
    "GraphSettings",
    "build_graph",
    "diffuse",
    "diffuse_shard",
    "edges_shard",
    "link_shard",
]


@dataclass(frozen=True, kw_only=True)
class GraphSettings(Settings):
    """Settings of the graph of regions."""

    neighbours: Annotated[int, Ge(1)] = 50
    """k: an edge joins two regions that are among each other's k nearest."""
    gamma: Annotated[float, Ge(0)] = 3.0
    """Exponent of the similarity as weight of an edge."""


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(Settings):
    """Settings of `diffuse`."""

    start: Literal["expanded", "regions"] = "expanded"
    """Where ranks spread from: the first photos of step 4, or, as in the paper, what is nearest to the
    query's own regions."""
    starts: Annotated[int, Ge(1)] = 10
    """How many photos, or nearest regions of each region."""
    gamma: Annotated[float, Ge(0)] = 3.0
    """Exponent of the score as weight of a start; the graph's own as a rule."""
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.9
    """How far ranks spread; the paper's is 0.99."""
    truncation: Annotated[int, Ge(1)] = 1000
    """Photos nearest to the expanded query on whose regions its system is solved."""
    iterations: Annotated[int, Ge(1)] = 20
    """Most iterations of conjugate gradient."""
    pooling: Literal["sum", "gmp"] = "sum"
    """How a photo's regions give its score: their sum, or generalised max pooling."""
    weight: Annotated[float, Ge(0)] | None = 0.2
    """Weight of the logarithm of the diffused score against step 4's; none: the diffused score alone."""


def build_graph(described: Source, settings: GraphSettings) -> Step:
    """Declare the steps that join the gallery's regions to a graph.

    Each row is a photo: `columns` and `values`, the edges of its regions, one list after the other, and
    `ends`, where each region's list ends within the photo's.
    """
    links = Step(
        name="link_regions",
        folder="links",
        make=link_shard,
        settings=settings,
        inputs={"described": Each(described), "gallery": Whole(described)},
        shards=described.shards,
        rows=described.rows * 20,
        bytes_per_row=8.0 * settings.neighbours,
    )
    return Step(
        name="graph",
        folder="graph",
        make=edges_shard,
        settings=settings,
        inputs={"links": Whole(links)},
        shards=described.shards,
        rows=described.rows * 20,
        bytes_per_row=4.0 * settings.neighbours,
    )


def link_shard(shard: int, settings: GraphSettings, *, described: Dataset, gallery: Dataset) -> pa.Table:
    """Find the nearest regions of each region of one shard: columns `ids`, `sims`, a row per region."""
    mine = described.read(shard, ["photo", "regions"])
    everything = stack_ragged(gallery, "regions")
    first = int(everything.offsets[int(column(mine, "photo")[0])])
    sims, ids = top_k(
        to_float(ragged(mine, "regions").values),
        [(0, everything.values)],
        settings.neighbours,
        exclude_self_start=first,
        threads=threads(),
    )
    return table({"ids": ids, "sims": sims})


def edges_shard(shard: int, settings: GraphSettings, *, links: Dataset) -> pa.Table:
    """Keep the mutual links of one shard's regions: columns `columns`, `values`, a list per region."""
    ids, sims = stack(links, "ids"), stack(links, "sims")
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


def diffuse(
    described: tuple[Source, Source], graph: Step, expanded: Step, augmented: Step, settings: DiffuseSettings
) -> Step:
    """Declare the diffusion; the final ranking. Photos that it does not reach keep the order of step 4."""
    return Step(
        name="diffuse",
        folder="final",
        make=diffuse_shard,
        settings=settings,
        inputs={
            "described": Each(described[1]),
            "expanded": Each(expanded),
            "gallery": Whole(described[0]),
            "augmented": Whole(augmented),
            "graph": Whole(graph),
        },
        shards=expanded.shards,
        rows=expanded.rows,
        bytes_per_row=expanded.bytes_per_row,
    )


def diffuse_shard(
    shard: int,
    settings: DiffuseSettings,
    *,
    described: Dataset,
    expanded: Dataset,
    gallery: Dataset,
    augmented: Dataset,
    graph: Dataset,
) -> pa.Table:
    """Diffuse from the queries of one shard."""
    before = read_ranking(expanded, shard)
    more = expanded.read(shard, ["descriptor", "confident"])
    regions = stack_ragged(gallery, "regions")
    photo_of_node = np.repeat(np.arange(len(regions), dtype=np.int32), np.diff(regions.offsets))
    if settings.start == "expanded":
        starts, values = _starts_from_photos(before, regions.offsets, settings)
    else:
        mine = ragged(described.read(shard, ["regions"]), "regions")
        starts, values = _starts_from_regions(mine, regions.values, settings)
    cuts = _nodes_of_nearest(
        to_float(column(more, "descriptor")), augmented, regions.offsets, settings.truncation
    )
    scores = diffusion.diffuse_cut(
        _affinity(graph),
        cuts,
        starts,
        values,
        renormalise=True,
        alpha=settings.alpha,
        iterations=settings.iterations,
        threads=threads(),
    )
    weights = np.ones(len(photo_of_node)) if settings.pooling == "sum" else _pooling(regions, photo_of_node)
    photos, totals = np.full_like(before.photos, -1), np.zeros_like(before.scores)
    depth = photos.shape[1]
    for q, (listed, confident) in enumerate(zip(before.photos, column(more, "confident"), strict=True)):
        cut = cuts[q][cuts[q] >= 0]
        found, places = np.unique(photo_of_node[cut], return_inverse=True)
        mass = np.bincount(places, scores[q, : len(cut)] * weights[cut], len(found)).astype(np.float64)
        if settings.weight is None:
            order = diffusion.after_diffusion(found, mass, listed, depth)
            ranked = 1 - np.arange(len(order), dtype=np.float32) / depth
        else:
            order, ranked = add_evidence(
                listed, before.scores[q], found, mass, weight=settings.weight, depth=depth
            )
        head = listed[:confident]
        photos[q], totals[q] = with_head(
            order, ranked, head, np.arange(len(head), dtype=np.int32)[::-1], depth
        )
    return Ranking(before.queries, photos, totals).table()


def _starts_from_photos(
    before: Ranking, offsets: NDArray[np.integer[Any]], settings: DiffuseSettings
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Start from the whole-photo regions (the first of each photo) of the first photos of step 4."""
    photos = before.photos[:, : settings.starts]
    there = (photos >= 0) & (offsets[photos] < offsets[photos + 1])
    nodes = np.where(there, offsets[photos], -1).astype(np.int32)
    values = np.where(there, np.maximum(before.scores[:, : settings.starts], 0) ** settings.gamma, 0)
    return nodes, values.astype(np.float32)


def _starts_from_regions(
    mine: Ragged, regions: NDArray[np.float16], settings: DiffuseSettings
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Start from the regions nearest to the query's own, as Iscen et al. do."""
    sims, ids = top_k(to_float(mine.values), [(0, regions)], settings.starts, threads=threads())
    query_of_region = np.repeat(np.arange(len(mine)), np.diff(mine.offsets))
    starts, values = diffusion.restart(
        ids, sims, query_of_region, len(mine), gamma=settings.gamma, nodes=settings.starts
    )
    return starts, values.astype(np.float32)


def _nodes_of_nearest(
    queries: NDArray[np.float32], augmented: Dataset, offsets: NDArray[np.integer[Any]], photos: int
) -> NDArray[np.int32]:
    """Return the nodes of each query's nearest photos, nearest first, padded with -1."""
    descriptors = stack(augmented, "descriptor")
    _, nearest = top_k(queries, [(0, descriptors)], min(photos, len(descriptors)), threads=threads())
    lists = [
        np.concatenate(
            [np.empty(0, np.int64), *(np.arange(offsets[p], offsets[p + 1]) for p in row if p >= 0)]
        )
        for row in nearest
    ]
    cuts = np.full((len(lists), max((len(row) for row in lists), default=0)), -1, np.int32)
    for cut, nodes in zip(cuts, lists, strict=True):
        cut[: len(nodes)] = nodes
    return cuts


def _affinity(graph: Dataset) -> csr_array:
    columns, values = stack_ragged(graph, "columns"), stack_ragged(graph, "values")
    nodes = len(columns)
    return csr_array((values.values[:, 0], columns.values[:, 0], columns.offsets), shape=(nodes, nodes))


def _pooling(regions: Ragged, photo_of_node: NDArray[np.int32]) -> NDArray[np.float64]:
    return diffusion.generalised_max_weights(to_float(regions.values), photo_of_node)
