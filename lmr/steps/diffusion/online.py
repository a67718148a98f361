"""Step 5, regional diffusion: ranks spread along the graph of the gallery's regions.

Or along the graph of its photos, solved ahead of time (`lmr.steps.diffusion.offline_query`), or not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.diffusion import online as diffusion
from lmr.retrieval.diffusion.affinity import graph_of_edges
from lmr.retrieval.global_search.exact import spans
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.runtime.threads import threads
from lmr.steps.both import Both
from lmr.steps.diffusion.offline_columns import OfflineColumns
from lmr.steps.diffusion.offline_query import diffuse_offline, first_photos
from lmr.steps.diffusion.region_graph import RegionGraph
from lmr.steps.features.columns import Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.global_search.search import Searchable, search_gallery
from lmr.steps.ranking import Ranked, Ranking, Reached, merge, ranking_bytes, read_ranking
from lmr.storage.arrow import Ragged, column, ragged
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import map_rows, stack, stack_ragged, unpack, write_rows

__all__ = ["DiffuseSettings", "diffuse", "diffuse_shard"]

QUERIES_AT_ONCE = 512  # whose cuts are held at a time
STARTED_AT_ONCE = 48  # whose regions are searched with together
POOLED_AT_ONCE = 512  # photos whose systems of generalised max pooling are solved together


@dataclass(frozen=True, kw_only=True)
class DiffuseSettings(Settings):
    """Settings of `diffuse`."""

    method: Literal["regional", "offline", "none"] = "regional"
    """On the graph of regions, per query (Iscen et al.); by columns solved ahead of time on the graph of
    photos (Yang et al.; the group `columns`); or not at all: then the ranking of step 4 is final."""
    start: Literal["expanded", "regions"] = "expanded"
    """Where ranks spread from: the first photos of step 4, or, as in the paper, what is nearest to the
    query's own regions (offline, nodes are photos: always the first photos of step 4)."""
    starts: Annotated[int, Ge(1), Le(100_000)] = 10
    """How many photos, or nearest regions of each region."""
    gamma: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of the score as weight of a start; the graph's own as a rule."""
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.9
    """How far ranks spread; the paper's is 0.99."""
    truncation: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    """Photos nearest to the expanded query on whose regions its system is solved."""
    iterations: Annotated[int, Ge(1), Le(10_000)] = 20
    """Most iterations of conjugate gradient."""
    pooling: Literal["sum", "gmp"] = "sum"
    """How a photo's regions give its score: their sum, or generalised max pooling."""
    weight: Annotated[float, Ge(0), Le(1_000)] | None = 0.2
    """Weight of the logarithm of the diffused score against step 4's; none: the diffused score alone."""


def diffuse(
    described: Both[Described],
    graph: RegionGraph,
    columns: OfflineColumns,
    expanded: Ranked,
    augmented: Searchable,
    settings: DiffuseSettings,
) -> Ranked:
    """Declare the diffusion; the final ranking. Photos that it does not reach keep the order of step 4.

    Parameters
    ----------
    described
        Descriptors and regions.
    graph
        The graph of the gallery's regions.
    columns
        What is solved ahead of time for `method` "offline".
    expanded
        The ranking of step 4.
    augmented
        What the global search searched: a query's system is solved on the regions of the photos nearest to
        it.
    settings
        The settings.
    """
    if settings.method == "none":
        return expanded
    if settings.method == "offline":
        own = settings.only("starts", "gamma", "weight", kind="OnlineSettings")
        return diffuse_offline(described.gallery, columns, expanded, own)
    each, dimension = expanded.per_shard, described.queries.dimension
    found = augmented.cost(min(each, QUERIES_AT_ONCE), settings.truncation)
    # Of a block of queries: the nodes of each cut as lists and as a table, their scores, and those of the
    # same sorted for lanes.
    photos = min(settings.truncation, described.gallery.rows)
    cuts = min(each, QUERIES_AT_ONCE) * photos * graph.per_photo * 20.0
    pooling = 0.0
    if settings.pooling == "gmp":
        # Generalised max pooling solves a system per photo, of some photos at a time: their regions as they
        # are stored, as floats and in float64, and the systems.
        at_once = min(POOLED_AT_ONCE, described.gallery.rows) * graph.per_photo
        pooling = at_once * (24.0 * dimension + 24.0 * graph.per_photo)
    # Nodes near to the queries' own regions are looked for as the graph's own links are.
    starts = graph.searched.index if settings.start == "regions" else None
    asking = min(each, STARTED_AT_ONCE) * described.queries.regions
    started = graph.searched.cost(asking, settings.starts).task_bytes if settings.start == "regions" else 0.0
    step = Step(
        name="diffuse",
        folder="final",
        make=diffuse_shard,
        revision=2,  # until 1 the weakest photo of the list stood for chance
        settings=settings,
        inputs={
            "described": Each(described.queries.source),
            "expanded": Each(expanded.step),
            **augmented.inputs("augmented"),
            "gallery": Whole(graph.nodes.source),
            "graph": Whole(graph.edges),
            **({} if starts is None else {"nodes_index": Whole(starts)}),
        },
        **augmented.where(),
        shards=expanded.step.shards,
        role="queries",
        cost=Cost(
            rows=expanded.queries,
            bytes_per_row=ranking_bytes(expanded.depth),
            task_bytes=max(cuts + found.task_bytes, started)
            + pooling
            # Of each node where its edges begin, for the matrix and for the solver, its photo and its place
            # in a cut.
            + graph.edges.rows * 32.0
            + each * (4.0 * described.queries.regions * dimension + 4 * expanded.step.bytes_per_row),
            work=expanded.queries,
            unit="vector",
            mapped_bytes=found.mapped_bytes
            + (0.0 if starts is None else starts.rows * starts.bytes_per_row)
            + graph.edges.rows * (graph.edges.bytes_per_row + 2.0 * dimension)
            + (8.0 * graph.edges.rows if settings.pooling == "gmp" else 0.0),
        ),
    )
    return Ranked(step, expanded.depth)


def diffuse_shard(
    shard: int,
    settings: DiffuseSettings,
    *,
    described: Dataset,
    expanded: Dataset,
    gallery: Dataset,
    augmented: Dataset,
    graph: Dataset,
    index: Dataset | None = None,
    nodes_index: Dataset | None = None,
    device: str = "cpu",
) -> pa.Table:
    """Diffuse from the queries of one shard on the graph of regions."""
    before = read_ranking(expanded, shard)
    descriptors = to_float(column(expanded.read(shard, ["descriptor"]), "descriptor"))
    mine = ragged(described.read(shard, ["regions"]), "regions")
    regions = stack_ragged(gallery, "regions")
    affinity = _affinity(graph)
    photo_of_node = np.repeat(np.arange(len(regions), dtype=np.int32), np.diff(regions.offsets))
    weights = None if settings.pooling == "sum" else _pooling(gallery, regions)
    exact = ExactSearch(device)
    reached: list[Reached] = []
    for lo, hi in spans(len(before.photos), QUERIES_AT_ONCE):
        block = Ranking(before.queries[lo:hi], before.photos[lo:hi], before.scores[lo:hi])
        if settings.start == "expanded":
            starts, values = _starts_from_photos(block, regions.offsets, settings)
        else:
            own = mine.offsets[lo : hi + 1]
            part = Ragged(mine.values[own[0] : own[-1]], own - own[0])
            starts, values = _starts_from_regions(part, regions.values, nodes_index, settings, exact)
        near = _nearest(descriptors[lo:hi], augmented, index, settings.truncation, exact)
        cuts = _nodes_of(near, regions.offsets)
        scores = diffusion.diffuse_cut(
            affinity,
            cuts,
            starts,
            values,
            renormalise=True,
            alpha=settings.alpha,
            iterations=settings.iterations,
            threads=threads(),
        )
        for cut, found in zip(cuts, scores, strict=True):
            nodes = cut[cut >= 0]
            photos, places = np.unique(photo_of_node[nodes], return_inverse=True)
            shares = found[: len(nodes)] if weights is None else found[: len(nodes)] * weights[nodes]
            mass = np.bincount(places, shares, len(photos))
            reached.append((photos, mass.astype(np.float64)))
    return exact.told(merge(expanded, shard, reached, settings.weight, gallery_rows=len(regions)))


def _starts_from_photos(
    before: Ranking, offsets: NDArray[np.integer[Any]], settings: DiffuseSettings
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Start from the whole-photo regions (the first of each photo) of the first photos of step 4."""
    photos, values = first_photos(before, settings.starts, settings.gamma)
    there = (photos >= 0) & (offsets[photos] < offsets[photos + 1])
    return np.where(there, offsets[photos], -1).astype(np.int32), np.where(there, values, 0).astype(
        np.float32
    )


def _starts_from_regions(
    mine: Ragged,
    regions: NDArray[np.float16],
    index: Dataset | None,
    settings: DiffuseSettings,
    exact: ExactSearch,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Start from the regions nearest to the query's own, as Iscen et al. do."""
    parts = [
        search_gallery(to_float(mine.values[lo:hi]), regions, index, settings.starts, exact)
        for lo, hi in (mine.offsets[[*span]] for span in spans(len(mine), STARTED_AT_ONCE))
    ]
    sims, ids = (np.concatenate(found) for found in zip(*parts, strict=True))
    query_of_region = np.repeat(np.arange(len(mine)), np.diff(mine.offsets))
    starts, values = diffusion.restart(
        ids, sims, query_of_region, len(mine), gamma=settings.gamma, nodes=settings.starts
    )
    return starts, values.astype(np.float32)


def _nearest(
    queries: NDArray[np.float32], augmented: Dataset, index: Dataset | None, photos: int, exact: ExactSearch
) -> NDArray[np.int32]:
    descriptors = stack(augmented, "descriptor")
    return search_gallery(queries, descriptors, index, min(photos, len(descriptors)), exact)[1]


def _nodes_of(near: NDArray[np.int32], offsets: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Return the nodes of each query's nearest photos, nearest first, padded with -1."""
    lists = [
        np.concatenate(
            [np.empty(0, np.int64), *(np.arange(offsets[p], offsets[p + 1]) for p in row if p >= 0)]
        )
        for row in near
    ]
    cuts = np.full((len(lists), max((len(row) for row in lists), default=0)), -1, np.int32)
    for cut, nodes in zip(cuts, lists, strict=True):
        cut[: len(nodes)] = nodes
    return cuts


def _affinity(graph: Dataset) -> csr_array:
    columns, values = stack_ragged(graph, "columns"), stack_ragged(graph, "values")
    return graph_of_edges(values.values[:, 0], columns.values[:, 0], columns.offsets)


def _pooling(gallery: Dataset, regions: Ragged) -> NDArray[np.float64]:
    """Return the weight of each region in generalised max pooling, mapped: solved once per machine."""
    return unpack(gallery, "pooling", partial(_write_pooling, regions), _map_pooling)


def _write_pooling(regions: Ragged, folder: Path) -> None:
    write_rows(folder / "weights", pooling_weights(regions))


def _map_pooling(folder: Path) -> NDArray[np.float64]:
    return map_rows(folder / "weights")


def pooling_weights(regions: Ragged) -> Iterator[NDArray[np.float64]]:
    """Yield the weights of a gallery's regions, some hundred photos at a time."""
    for lo, hi in spans(len(regions), POOLED_AT_ONCE):
        nodes = slice(int(regions.offsets[lo]), int(regions.offsets[hi]))
        owners = np.repeat(np.arange(hi - lo), np.diff(regions.offsets[lo : hi + 1]))
        yield diffusion.generalised_max_weights(to_float(regions.values[nodes]), owners)
