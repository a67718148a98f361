"""Step 5 with columns solved ahead of time: a query costs a sparse product (Yang et al., AAAI 2019)."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.retrieval.diffusion.offline import compare_columns, search_columns
from lmr.retrieval.global_search.exact import spans
from lmr.runtime.settings import Part
from lmr.runtime.steps import Cost, Each, Step, Whole
from lmr.steps.diffusion.offline_columns import OfflineColumns
from lmr.steps.features.columns import Described
from lmr.steps.ranking import Ranked, Ranking, Reached, merge, ranking_bytes, read_ranking
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack, stack_ragged

__all__ = ["diffuse_offline", "diffuse_offline_shard", "first_photos"]

QUERIES_AT_ONCE = 128  # whose columns are gathered at a time


def diffuse_offline(gallery: Described, columns: OfflineColumns, expanded: Ranked, settings: Part) -> Ranked:
    """Declare the online part; the final ranking. What diffusion does not reach keeps the order of step 4.

    Parameters
    ----------
    gallery
        The gallery's descriptors: their number tells gallery photos from queries among the nodes.
    columns
        What was solved ahead of time.
    expanded
        The ranking of step 4.
    settings
        `starts`, `gamma` and `weight` of `DiffuseSettings`.
    """
    gathered = columns.longest if columns.queries_are_nodes else settings.starts * QUERIES_AT_ONCE
    row_bytes = ranking_bytes(expanded.depth)
    step = Step(
        name="diffuse",
        folder="final",
        make=diffuse_offline_shard,
        revision=2,  # until 1 the weakest photo of the list stood for chance
        settings=settings,
        inputs={"expanded": Each(expanded.step), "columns": Whole(columns.step)},
        shards=expanded.step.shards,
        role="queries",
        cost=Cost(
            rows=expanded.queries,
            bytes_per_row=row_bytes,
            # Gathered columns, what they add up to, the rankings, and 24 bytes per node.
            task_bytes=gathered * columns.longest * 24.0
            + expanded.per_shard * (16.0 * columns.longest + 4 * expanded.step.bytes_per_row)
            + columns.step.rows * 24.0,
            work=expanded.queries,
            unit="vector",
            mapped_bytes=columns.step.rows * columns.step.bytes_per_row,
        ),
        implied={"gallery_rows": gallery.rows, "queries_are_nodes": columns.queries_are_nodes},
    )
    return Ranked(step, expanded.depth)


def diffuse_offline_shard(
    shard: int,
    settings: Part,
    *,
    expanded: Dataset,
    columns: Dataset,
    gallery_rows: int,
    queries_are_nodes: bool,
) -> pa.Table:
    """Diffuse from the queries of one shard."""
    before = read_ranking(expanded, shard)
    stored = _Columns(columns)
    if queries_are_nodes:
        reached = [_compared(stored, gallery_rows + int(q), gallery_rows) for q in before.queries]
    else:
        reached = []
        for lo, hi in spans(len(before.photos), QUERIES_AT_ONCE):
            block = Ranking(before.queries[lo:hi], before.photos[lo:hi], before.scores[lo:hi])
            reached += _mixed(stored, *first_photos(block, settings.starts, settings.gamma))
    return merge(expanded, shard, reached, settings.weight, gallery_rows=gallery_rows)


def first_photos(before: Ranking, count: int, gamma: float) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the first photos of each list, and their scores to the power gamma as weights; -1 for none."""
    photos = before.photos[:, :count]
    values = np.where(photos >= 0, np.maximum(before.scores[:, :count], 0) ** gamma, 0)
    return photos, values.astype(np.float32)


class _Columns:
    """The columns of all nodes, mapped; rows are looked up by node."""

    def __init__(self, columns: Dataset) -> None:
        self.ids, self.values = stack_ragged(columns, "ids"), stack_ragged(columns, "values")
        self.places = np.argsort(stack(columns, "node")).astype(np.int32)

    def of(self, nodes: NDArray[np.integer[Any]]) -> csr_array:
        """Return the columns of some nodes as the rows of a CSR."""
        places = self.places[nodes]
        starts = self.ids.offsets[places]
        lengths = self.ids.offsets[places + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        taken = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        shape = (len(nodes), len(self.places))
        return csr_array((self.values.values[taken, 0], self.ids.values[taken, 0], offsets), shape=shape)


def _mixed(columns: _Columns, starts: NDArray[np.int32], values: NDArray[np.float32]) -> list[Reached]:
    """Mix the columns of the photos from which each query starts: queries outside the graph."""
    nodes, places = np.unique(starts[starts >= 0], return_inverse=True)
    local = np.full_like(starts, -1)
    local[starts >= 0] = places
    scores = search_columns(local, values, columns.of(nodes))
    ends = scores.indptr[1:-1]
    rows = zip(np.split(scores.indices, ends), np.split(scores.data, ends), strict=True)
    return [(photos, mass.astype(np.float64)) for photos, mass in rows]


def _compared(columns: _Columns, node: int, gallery_rows: int) -> Reached:
    """Compare a query's column with those of the gallery photos that it reaches: queries as nodes."""
    own = columns.of(np.array([node]))
    photos = own.indices[own.indices < gallery_rows]
    scores = compare_columns(own, columns.of(photos)).toarray()[0]
    return photos, scores.astype(np.float64)
