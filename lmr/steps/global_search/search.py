"""How steps find nearest neighbours: exactly below a size, by an index above it, whose recall is measured.

The index is a step of one shard. It is trained, filled and asked to look into as many lists as the recall
target needs on a sample of the gallery; what it reaches there is printed and stands in the report. What it
finds is scored again exactly, so that ties are broken by row and similarities are those of the exact search.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import faiss
import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from lmr.retrieval.global_search import approximate
from lmr.retrieval.global_search.exact import Descriptors, top_k
from lmr.retrieval.local_search.inverted_file import open_index
from lmr.runtime.settings import Settings
from lmr.runtime.steps import PROCESS_BYTES, Source, Step, Whole
from lmr.runtime.threads import threads
from lmr.steps.sizes import dimension_of, opening_bytes, rows_per_shard
from lmr.storage.arrow import array_table, arrays_of, with_note
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack, stack_ragged, unpack

__all__ = [
    "KnnSettings",
    "dimension_of",
    "index_if_large",
    "index_descriptors_shard",
    "search_gallery",
    "opening_bytes",
    "rows_per_shard",
    "vectors",
]

MEASURED_NEIGHBOURS = 50  # that recall is measured for: a graph's usual k; one index serves all searches

Column = Literal["descriptor", "regions"]


@dataclass(frozen=True, kw_only=True)
class KnnSettings(Settings):
    """Which search a step uses; part of the settings of every step that searches descriptors."""

    exact_below: Annotated[int, Ge(1)] = 100_000
    """Descriptors below which the search is exact."""
    recall: Annotated[float, Gt(0), Le(1)] = 0.95
    """Above: share of the true neighbours that the index must find for a sample of the gallery."""
    index_bytes: Annotated[int, Ge(1)] = 4_000_000_000
    """Above: what the index may take; where 4 bits per dimension do not fit, dimensions share them."""
    seed: int = 0
    """Of the samples that the index is trained and measured on."""


@dataclass(frozen=True, kw_only=True)
class _IndexSettings(KnnSettings):
    """What the index depends on."""

    column: Column


def index_if_large(
    gallery: Source, settings: KnnSettings, *, column: Column = "descriptor", rows: int = 0
) -> dict[str, Whole]:
    """Declare the index over a gallery of at least `settings.exact_below` descriptors.

    Parameters
    ----------
    gallery
        Has the column `column`.
    settings
        Which search.
    column
        "descriptor" (one per photo) or "regions".
    rows
        Descriptors to expect, where they are more than photos.

    Returns
    -------
    The input `index` to add to a step; empty where the search is exact.
    """
    rows = rows or gallery.rows
    if rows < settings.exact_below:
        return {}
    own = {name: getattr(settings, name) for name in KnnSettings.__dataclass_fields__}
    size = 8.0 + 0.5 * dimension_of(gallery)
    index = Step(
        name=f"index_{gallery.parts[0].folder.split('/')[0]}" if column == "descriptor" else "index_regions",
        folder="knn_index",
        make=index_descriptors_shard,
        revision=2,  # codes of 4 bits
        settings=_IndexSettings(**own, column=column),
        inputs={"gallery": Whole(gallery)},
        shards=1,
        rows=rows,
        bytes_per_row=size,
        # The index, its bytes, the table of them, the file before and after compression.
        peak_bytes=PROCESS_BYTES + 5 * min(rows * size, settings.index_bytes),
    )
    return {"index": Whole(index)}


def index_descriptors_shard(shard: int, settings: _IndexSettings, *, gallery: Dataset) -> pa.Table:
    """Train, fill and measure the index of a gallery: named arrays `index` and `probes`."""
    rows = vectors(gallery, settings.column)
    name = approximate.choose_index(len(rows), rows.shape[1], settings.index_bytes)
    index = approximate.build_ann_index(rows, name, seed=settings.seed, threads=threads())
    probes, reached = approximate.choose_probes(
        index, rows, MEASURED_NEIGHBOURS, recall=settings.recall, seed=settings.seed, threads=threads()
    )
    data = faiss.serialize_index(index)
    del index
    return with_note(
        array_table({"index": data, "probes": np.array([probes])}),
        f"{name}, {probes} lists per query: recall@{MEASURED_NEIGHBOURS} {reached:.3f} of the exact search "
        f"on {min(approximate.SAMPLE, len(rows))} samples (target {settings.recall})",
    )


def search_gallery(
    queries: NDArray[np.float32],
    gallery: Descriptors,
    index: Dataset | None,
    neighbours: int,
    *,
    exclude_self_start: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search as was declared: with the index where there is one, exactly where not; see `top_k`."""
    if index is None:
        blocks = [(0, gallery)]
        return top_k(queries, blocks, neighbours, exclude_self_start=exclude_self_start, threads=threads())
    opened = unpack(index, "index", partial(_write, index), _open)
    return approximate.search_ann_index(
        opened, queries, neighbours, gallery, exclude_self_start=exclude_self_start, threads=threads()
    )


def vectors(gallery: Dataset, column: Column) -> Descriptors:
    """Return all descriptors of a gallery, mapped from this machine's disk."""
    rows: Descriptors = (
        stack(gallery, column) if column == "descriptor" else stack_ragged(gallery, column).values
    )
    return rows


def _write(index: Dataset, folder: Path) -> None:
    arrays = arrays_of(index.read(0))
    (folder / "index.faiss").write_bytes(arrays["index"].data)
    (folder / "probes").write_text(str(int(arrays["probes"][0])))


def _open(folder: Path) -> Any:
    index = open_index(folder / "index.faiss")
    approximate.look_into(index, int((folder / "probes").read_text()))
    return index
