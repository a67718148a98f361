"""Diffusion ahead of time: the graph of the gallery's photos, and a column of the solution for each one.

Yang et al. (AAAI 2019). The graph is made of the neighbour lists that augmentation uses too. Columns are
truncated. They are solved by shards of photos that stand close to one another in the graph, so a shard's
nodes share their work; they are stored in that order.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import SettingsError
from lmr.retrieval.diffusion.affinity import graph_of_edges, transition_rows
from lmr.retrieval.diffusion.offline import columns_matrix, neighbourhoods, neighbourly_order, offline_columns
from lmr.retrieval.global_search.exact import spans
from lmr.runtime.settings import Settings
from lmr.runtime.steps import Cost, Step, Whole
from lmr.runtime.threads import threads
from lmr.steps.both import Both
from lmr.steps.diffusion.region_graph import mutual_edges
from lmr.steps.features.columns import Described
from lmr.steps.global_search.knn_graph import KnnGraph, find_neighbours
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import Ragged, column, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import map_rows, stack, stack_ragged, unpack, write_rows

__all__ = ["ColumnSettings", "OfflineColumns", "columns_shard", "nodes_shard", "solve_columns"]

ROWS_AT_ONCE = 65_536  # of the graph, while it is normalised


@dataclass(frozen=True, kw_only=True)
class ColumnSettings(Settings):
    """Settings of the columns that are solved ahead of time (used by `diffuse.method = "offline"`)."""

    neighbours: Annotated[int, Ge(1), Le(10_000)] = 50
    """k: an edge joins two photos that are among each other's k nearest."""
    gamma: Annotated[float, Ge(0), Le(100)] = 3.0
    """Exponent of the similarity as weight of an edge."""
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.9
    """How far ranks spread; the paper's is 0.99."""
    truncation: Annotated[int, Ge(1), Le(1_000_000)] = 1000
    """Photos on which each column is solved: the nearest, where the neighbour lists are that long, as in the
    paper; else those around it in the graph, which takes no further search."""
    iterations: Annotated[int, Ge(1), Le(10_000)] = 20
    """Most iterations of conjugate gradient."""
    queries_are_nodes: bool = False
    """False: queries stand outside the graph, and mix the columns of the photos that they have found. True:
    gallery and queries make one graph (searched for that), and columns are compared."""


@dataclass(frozen=True)
class OfflineColumns:
    """Diffusion from every photo of the gallery, solved ahead of time.

    Attributes
    ----------
    step
        A row per node: `node`, and its column as the lists `ids` (nodes) and `values`.
    longest
        Most entries of a column.
    queries_are_nodes
        Whether the queries are nodes too, after the photos of the gallery.
    """

    step: Step
    longest: int
    queries_are_nodes: bool


def solve_columns(described: Both[Described], graph: KnnGraph, settings: ColumnSettings) -> OfflineColumns:
    """Declare the steps that solve a column per photo of the gallery (and per query, if they are nodes).

    Raises
    ------
    SettingsError
        If the graph asks for more neighbours than were searched.
    """
    if settings.neighbours > graph.neighbours:
        raise SettingsError(
            "the photos' graph asks for more neighbours than are searched",
            got=f"columns.neighbours = {settings.neighbours}, neighbours.neighbours = {graph.neighbours}",
            fix="raise neighbours.neighbours, or lower columns.neighbours",
        )
    if settings.queries_are_nodes:
        graph = find_neighbours(_join(described), graph.searched)
    lists = graph.step
    step = Step(
        name="columns",
        folder="columns",
        make=columns_shard,
        settings=settings,
        inputs={
            "edges": Whole(mutual_edges("photo_graph", lists, settings.neighbours, settings.gamma)),
            "neighbours": Whole(lists),
        },
        shards=lists.shards,
        role="gallery",
        cost=Cost(
            rows=lists.rows,
            bytes_per_row=12.0 + 8.0 * settings.truncation,
            # Lists, cuts and scores, then the columns as arrays and as a file; 16 bytes per node of the
            # graph.
            task_bytes=rows_per_shard(lists) * settings.truncation * 36.0 + lists.rows * 16.0,
            work=lists.rows,
            unit="node",
            mapped_bytes=lists.rows * (lists.bytes_per_row + 8.0 * settings.neighbours),
        ),
    )
    return OfflineColumns(step, settings.truncation, settings.queries_are_nodes)


def columns_shard(shard: int, settings: ColumnSettings, *, edges: Dataset, neighbours: Dataset) -> pa.Table:
    """Solve the columns of one shard of nodes that stand close to one another."""
    graph, order = unpack(edges, "transition", partial(_write, edges, neighbours), partial(_open, edges))
    lo, hi = spans(len(order), -(-len(order) // neighbours.shards))[shard]
    nodes = order[lo:hi]
    lists = stack(neighbours, "ids")
    if lists.shape[1] >= settings.truncation:
        near = lists[nodes, : settings.truncation]
    else:
        near = neighbourhoods(graph, nodes, settings.truncation)
    cuts, scores = offline_columns(
        graph, nodes, near, alpha=settings.alpha, iterations=settings.iterations, threads=threads()
    )
    columns = columns_matrix(cuts, scores, len(order))
    offsets = columns.indptr.astype(np.int64)
    return table(
        {
            "node": nodes.astype(np.int32),
            "ids": Ragged(columns.indices.astype(np.int32)[:, None], offsets),
            "values": Ragged(columns.data.astype(np.float32)[:, None], offsets),
        }
    )


def _write(edges: Dataset, neighbours: Dataset, folder: Path) -> None:
    """Normalise the graph and order its nodes, once per machine."""
    affinity = _graph(edges, stack_ragged(edges, "values").values[:, 0])
    degrees = affinity.sum(axis=1, dtype=np.float64)
    parts = spans(affinity.shape[0], ROWS_AT_ONCE)
    write_rows(folder / "data", (transition_rows(affinity[lo:hi], lo, degrees).data for lo, hi in parts))
    write_rows(folder / "order", [neighbourly_order(stack(neighbours, "ids"))])


def _open(edges: Dataset, folder: Path) -> tuple[csr_array, NDArray[np.int32]]:
    return _graph(edges, map_rows(folder / "data")), map_rows(folder / "order")


def _graph(edges: Dataset, data: NDArray[np.float32]) -> csr_array:
    columns = stack_ragged(edges, "columns")
    return graph_of_edges(data, columns.values[:, 0], columns.offsets)


def _join(described: Both[Described]) -> Described:
    """Declare gallery and queries as one gallery: the rows of the queries follow those of the gallery."""
    gallery, queries = described.gallery, described.queries
    step = Step(
        name="join_nodes",
        folder="nodes",
        make=nodes_shard,
        settings=Settings(),
        inputs={"gallery": Whole(gallery.source), "queries": Whole(queries.source)},
        shards=gallery.shards + queries.shards,
        cost=Cost(
            rows=gallery.rows + queries.rows,
            bytes_per_row=8.0 + 2.0 * gallery.dimension,
            task_bytes=max(gallery.per_shard, queries.per_shard) * 10.0 * gallery.dimension,
            work=gallery.rows + queries.rows,
            unit="vector",
        ),
        implied={"gallery_rows": gallery.rows},
    )
    return Described(step, gallery.dimension)


def nodes_shard(
    shard: int, settings: Settings, *, gallery: Dataset, queries: Dataset, gallery_rows: int
) -> pa.Table:
    """Copy one shard of the gallery or of the queries: columns `photo`, `descriptor`."""
    late = shard >= gallery.shards
    source, part = (queries, shard - gallery.shards) if late else (gallery, shard)
    rows = source.read(part, ["photo", "descriptor"])
    photos = column(rows, "photo") + np.int32(gallery_rows if late else 0)
    return table({"photo": photos, "descriptor": column(rows, "descriptor")})
