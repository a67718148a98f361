"""How steps find nearest neighbours: exactly below a size, by an index above it, whose recall is measured.

The index is a step of one shard, or of several where one would be too large for a task. It is trained, filled
and asked to look into as many lists as the recall target needs on a sample of the gallery; what it reaches
there is printed and stands in the report. What it finds is scored again exactly, so that ties are broken by
row and similarities are those of the exact search.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from lmr.retrieval.global_search import approximate, lists
from lmr.retrieval.global_search.exact import GALLERY_TILE, QUERY_TILE, Descriptors
from lmr.retrieval.local_search.inverted_file import open_index
from lmr.runtime.placement import GPU
from lmr.runtime.settings import Part, Seed, Settings
from lmr.runtime.steps import Cost, Step, Whole, closure
from lmr.runtime.threads import threads
from lmr.steps.features.columns import Described
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.local_search.index import write_index
from lmr.storage.arrow import array_table, with_note
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import spilled, stack, stack_ragged, unpack, write_arrays

__all__ = [
    "KnnSettings",
    "SearchCost",
    "indexed_notes",
    "Searchable",
    "index_descriptors_shard",
    "search_gallery",
    "searchable",
    "vectors",
]

LISTS_REVISION = 4  # of an index that compares descriptors themselves
PART_BYTES = 250_000_000  # of an index; above, the gallery's rows are cut into several
MEASURED_NEIGHBOURS = 50  # that recall is measured for: a graph's usual k; one index serves all searches

_FOLDER = "knn_index"
_LISTS = {"centroids", "starts", "rows"}

Column = Literal["descriptor", "regions"]


@dataclass(frozen=True, kw_only=True)
class KnnSettings(Settings):
    """Which search a step uses; part of the settings of every step that searches descriptors."""

    exact_below: Annotated[int, Ge(1), Le(1_000_000_000)] = 100_000
    """Descriptors below which the search is exact."""
    recall: Annotated[float, Gt(0), Le(1)] = 0.95
    """Above: share of the true neighbours that the index must find for a sample of the gallery."""
    index_bytes: Annotated[int, Ge(1), Le(1_000_000_000_000_000)] = 4_000_000_000
    """Above: memory for what is searched; where descriptors do not fit, an index of shorter codes is."""
    seed: Seed = 0
    """Of the samples that the index is trained and measured on."""


@dataclass(frozen=True)
class Searchable:
    """Descriptors that can be searched: exactly, or through an index where there is one.

    Attributes
    ----------
    vectors
        The photos; column `descriptor` or `regions` is searched.
    count
        How many descriptors there are: photos, or regions.
    index
        The step that holds the index, a shard for each part of the gallery; None where the search is exact.
    """

    vectors: Described
    count: int
    index: Step | None

    def inputs(self, name: str = "gallery") -> dict[str, Whole]:
        """Return what a step reads that searches them: the descriptors by this name, and the index if any."""
        found = {name: Whole(self.vectors.source)}
        return found if self.index is None else {**found, "index": Whole(self.index)}

    def where(self) -> dict[str, Any]:
        """Return the arguments of a step that searches them: the device, and the worker it would rather have.

        A GPU searches exactly. Through an index, CPUs do.
        """
        device = self.vectors.searched_on
        if device == "cpu" or self.index is not None:
            return {}
        return {"prefers": GPU, "placement": {"device": device}}

    def cost(self, queries: int, depth: int) -> "SearchCost":
        """Return what searching them costs a task.

        Parameters
        ----------
        queries
            Descriptors that a task searches with.
        depth
            Neighbours that it keeps of each.
        """
        dimension = self.vectors.dimension
        # Queries as stored and as floats; lists as found, sorted, in the table, in the shard and as sent.
        held = queries * (12.0 * dimension + 60.0 * depth)
        if self.index is None:
            # A block of products, and one of the gallery's descriptors as floats.
            return SearchCost(
                task_bytes=held + 4.0 * GALLERY_TILE * (min(queries, QUERY_TILE) + dimension),
                mapped_bytes=2.0 * self.count * dimension,
            )
        index_bytes = self.index.rows * self.index.bytes_per_row
        parts = self.index.shards
        if self.index.revision == LISTS_REVISION:
            # Queries that are looked up together, each with its candidates and the lists that it visits;
            # what is found in all parts; products with centroids; and a tile of queries and rows.
            together = min(queries, lists.QUERIES_AT_ONCE)
            room = max(lists.ROOM * (depth + 1), lists.LEAST_ROOM)
            centroids = approximate.choose_lists(self.index.rows // parts)
            visits = min(together * centroids, float(lists.VISITS_AT_ONCE))
            return SearchCost(
                task_bytes=held
                + together * (6.0 * dimension + 4.0 * room)
                + 4.0 * queries * room * parts
                + 10.0 * visits
                + 5.0 * min(queries, lists.COARSE_TILE) * centroids
                + 2.0 * (lists.QUERY_TILE + lists.ROW_TILE) * dimension,
                mapped_bytes=2.0 * self.count * dimension + index_bytes,
            )
        # The first task of a machine unpacks the index, part by part. Distances of codes are looked up in
        # tables that each query of a block has of its own, 16 numbers to a dimension; more is fetched by
        # codes than is kept, from every part.
        at_once = min(queries, approximate.QUERIES_AT_ONCE)
        coded = at_once * (80.0 * dimension + 16.0 * approximate.FETCHED * depth)
        listed = 8.0 * queries * approximate.FETCHED * depth * parts
        return SearchCost(
            task_bytes=held + coded + listed + 3.0 * index_bytes / parts,
            mapped_bytes=2.0 * self.count * dimension + index_bytes,
        )


@dataclass(frozen=True)
class SearchCost:
    """Memory that a search takes.

    Attributes
    ----------
    task_bytes
        Of the task's own.
    mapped_bytes
        Of files that all processes of a machine map.
    """

    task_bytes: float
    mapped_bytes: float


def searchable(
    vectors: Described, settings: KnnSettings, *, column: Column = "descriptor", count: int | None = None
) -> Searchable:
    """Declare the index over a gallery of at least `settings.exact_below` descriptors; none below.

    Parameters
    ----------
    vectors
        Have the column `column`.
    settings
        Which search.
    column
        "descriptor" (one per photo) or "regions".
    count
        Descriptors to expect, where they are more than photos.
    """
    count = vectors.rows if count is None else count
    if count < settings.exact_below:
        return Searchable(vectors, count, None)
    own = Part("_IndexSettings", {f.name: getattr(settings, f.name) for f in fields(KnnSettings)})
    code_bytes = min(count * 0.5 * vectors.dimension, float(settings.index_bytes))
    parts = max(1, math.ceil((8.0 * count + code_bytes) / PART_BYTES))
    part = -(-count // parts)
    count_of_lists = approximate.choose_lists(part)
    plain = approximate.compares_descriptors(part, vectors.dimension, settings.index_bytes // parts)
    sample = min(part, approximate.TRAIN_PER_LIST * count_of_lists)
    block = min(part, approximate.ADD_AT_ONCE)
    per_list = count_of_lists / max(part, 1)
    if plain:
        # A row's number. Of each list its centre and where it begins.
        row_bytes = 4.0 + (4.0 * vectors.dimension + 8.0) * per_list
        work_bytes = 16.0 * part  # the list of each row, and the order of all rows
    else:
        # A row's number and code. Of each list its centre and links to others, and half a block of empty
        # codes.
        row_bytes = 8.0 + 0.5 * vectors.dimension + (12.0 * vectors.dimension + 300.0) * per_list
        work_bytes = 0.0
    made_of = vectors.source.parts[0].folder.split("/")[0]
    index = Step(
        name=f"index_{made_of}" if column == "descriptor" else "index_regions",
        folder=_FOLDER,
        make=index_descriptors_shard,
        # 2: codes of 4 bits; 3: these in parts; 4: lists of the descriptors themselves.
        revision=LISTS_REVISION if plain else 2 if parts == 1 else 3,
        settings=own.also(column=column),
        inputs={"gallery": Whole(vectors.source)},
        implied={"parts": parts},
        shards=parts,
        role="gallery",
        cost=Cost(
            rows=count,
            bytes_per_row=row_bytes,
            # The index as it grows, or the shard as it is sent: what is in between lies in a file. The
            # sample, as floats, those of use and what is left of each for its code; or a block that is
            # added, alike.
            task_bytes=3.0 * part * row_bytes
            + work_bytes
            + max(12.0 * sample, 4.0 * sample + 16.0 * block) * vectors.dimension,
            work=count,
            unit="vector",
            mapped_bytes=2.0 * count * vectors.dimension,
        ),
    )
    return Searchable(vectors, count, index)


def indexed_notes(targets: Iterable[Step]) -> list[str]:
    """Say of the searches of a workflow that go through an index that no GPU takes part in them."""
    names = [step.name for step in closure(targets) if step.folder == _FOLDER]
    if not names:
        return []
    return [
        f"CPUs search through an index ({', '.join(names)}); exact_below of neighbours, rank and graph, set "
        "above the number of descriptors, lets GPUs search all of them exactly"
    ]


def index_descriptors_shard(shard: int, settings: Part, *, gallery: Dataset, parts: int = 1) -> pa.Table:
    """Train, fill and measure the index of a part of a gallery, as named arrays.

    Of lists: `centroids`, `starts`, `rows`, `longest`. Of codes: `index`. Of both: `probes`, `first`.
    """
    everything = vectors(gallery, settings.column)
    first, end = (len(everything) * i // parts for i in (shard, shard + 1))
    rows = everything[first:end]
    name = approximate.choose_index(len(rows), rows.shape[1], settings.index_bytes // parts)
    index = approximate.build_ann_index(rows, name, seed=settings.seed, threads=threads())
    probes, reached = approximate.choose_probes(
        index, rows, MEASURED_NEIGHBOURS, recall=settings.recall, seed=settings.seed, threads=threads()
    )
    about: dict[str, Any] = {"probes": np.array([probes]), "first": np.array([first])}
    if isinstance(index, lists.Lists):
        arrays = {name: getattr(index, name) for name in _LISTS} | {"longest": np.array([index.longest])}
    else:
        held = [index]
        del index  # it ends when it is written
        arrays = {"index": spilled(lambda file: write_index(held.pop(), file))}
    which = f"part {shard + 1} of {parts}: " if parts > 1 else ""
    return with_note(
        array_table({**arrays, **about}),
        f"{which}{name}, {probes} lists per query: recall@{MEASURED_NEIGHBOURS} {reached:.3f} of the exact "
        f"search on {min(approximate.SAMPLE, len(rows))} samples (target {settings.recall})",
    )


def search_gallery(
    queries: NDArray[np.float32],
    gallery: Descriptors,
    index: Dataset | None,
    neighbours: int,
    exact: ExactSearch,
    *,
    exclude_self_start: int | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Search as was declared: with the index where there is one, exactly where not; see `top_k`."""
    if index is None:
        return exact(queries, gallery, neighbours, exclude_self_start=exclude_self_start)
    parts = (unpack(index, f"index-{i:05d}", partial(_write, index, i), _open) for i in range(index.shards))
    return approximate.search_ann_indexes(
        parts, queries, neighbours, gallery, exclude_self_start=exclude_self_start, threads=threads()
    )


def vectors(gallery: Dataset, column: Column) -> Descriptors:
    """Return all descriptors of a gallery, mapped from this machine's disk."""
    rows: Descriptors = (
        stack(gallery, column) if column == "descriptor" else stack_ragged(gallery, column).values
    )
    return rows


def _write(index: Dataset, part: int, folder: Path) -> None:
    write_arrays(index.read_groups(part), folder, bare=("index",))
    if (folder / "index").exists():
        (folder / "index").rename(folder / "index.faiss")
    about = {"first": 0}  # shards that were made before there were parts have no first row
    for file in folder.glob("*.npy"):
        if file.stem not in _LISTS:
            about[file.stem] = np.load(file)[0].item()
            file.unlink()
    (folder / "about.json").write_text(json.dumps(about))


def _open(folder: Path) -> tuple[int, Any]:
    about = json.loads((folder / "about.json").read_bytes())
    if (folder / "rows.npy").exists():
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _LISTS}
        return about["first"], lists.Lists(**arrays, longest=about["longest"], probes=about["probes"])
    index = open_index(folder / "index.faiss")
    approximate.look_into(index, about["probes"])
    return about["first"], index
