"""Step 1, local search: gallery photos with features like the query's; the best candidates stay.

By votes each feature looks up its nearest gallery features and votes for their photos; by ASMK
(`lmr.steps.local_search.asmk`) photos are compared per visual word. The nearest are looked up in the index,
or, where it is asked for, among all features of the gallery: a GPU does that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.global_search.exact import spans
from lmr.retrieval.global_search.nearest import SPARE
from lmr.retrieval.local_search.background import Background, gallery_background
from lmr.retrieval.local_search.exhaustive import search_exhaustively
from lmr.retrieval.local_search.inverted_file import (
    nearest_lists,
    search_sub_index,
)
from lmr.retrieval.local_search.votes import chance_votes, inverse_frequency, vote
from lmr.runtime.placement import GPU
from lmr.runtime.settings import ADDED_LATER, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, Whole
from lmr.runtime.threads import threads
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.global_search.device import ExactSearch
from lmr.steps.local_search.asmk import AsmkSettings, index_asmk, search_by_asmk
from lmr.steps.local_search.index import IndexSettings, LocalIndex, index_local
from lmr.steps.local_search.merged import (
    entries_of_lists,
    merged_at_once,
    open_bytes,
    open_sub_indexes,
    unpacking_bytes,
)
from lmr.steps.ranking import Ranked, Ranking, ranking_bytes
from lmr.steps.sizes import FEATURES_AT_ONCE, blocks, rows_per_shard
from lmr.steps.verification.overlays import overlay_features
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import stack, unpack

__all__ = ["SearchSettings", "search", "search_by_votes", "search_votes_shard"]

COMPARED_AT_ONCE = 1 << 17
"""Gallery features that are compared with a block of queries at a time, where no index is asked."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Settings):
    """Settings of `search`; those of `method` "asmk" are in `AsmkSettings`."""

    method: Literal["votes", "asmk"] = "votes"
    """How gallery photos are compared with a query."""
    candidates: Annotated[int, Ge(1), Le(100_000)] = 100
    """Gallery photos kept per query."""
    neighbours: Annotated[int, Ge(2), Le(10_000)] = 20
    """Nearest gallery features that each query feature votes with."""
    burst: Annotated[float, Ge(0), Le(1)] = 0.5
    """n equal votes for one photo by features of one inverted list count as n ** (1 - burst) of them (Jégou
    et al. 2009); 0 counts all in full, 1 the largest alone."""
    idf: bool = False
    """Whether votes count less that come from an inverted list with many gallery features."""
    probes: Annotated[int, Ge(1), Le(1_000_000)] = 16
    """Inverted lists visited per query feature."""
    exact_below: Annotated[int, Ge(0), Le(1_000_000_000_000)] = field(default=0, metadata=ADDED_LATER)
    """Gallery features, counted as photos times the most of each, below which each query feature is compared
    with all of them, fast on a GPU (`--search-device cuda`) and slow on CPUs; 0: the index is asked."""


def search(
    images: Source,
    local: Both[Extracted],
    settings: SearchSettings,
    index: IndexSettings,
    asmk: AsmkSettings,
    overlays: Step | None = None,
) -> Ranked:
    """Declare the index of the gallery and its search with the queries.

    Parameters
    ----------
    images
        The query photos.
    local
        Local features of gallery and queries.
    settings, index, asmk
        Settings of the search, of its index, and of ASMK where `settings.method` asks for it.
    overlays
        Features that do not vote, of `look_for_overlays`; None, and ASMK, leave none out.
    """
    if settings.method == "asmk":
        inverted = index_asmk(local.gallery, asmk, index)
        return search_by_asmk(images, local.queries, inverted, asmk, settings.candidates)
    indexed = index_local(local.gallery, index)
    return search_by_votes(images, local, indexed, settings, overlays)


def search_by_votes(
    images: Source,
    local: Both[Extracted],
    index: LocalIndex,
    settings: SearchSettings,
    overlays: Step | None = None,
) -> Ranked:
    """Declare the step that searches the gallery by votes; they are the ranking's scores.

    Column `background` says how many votes a photo gets by chance.
    """
    asking, gallery = local.queries, local.gallery
    features = rows_per_shard(images) * asking.per_photo
    held = min(features, FEATURES_AT_ONCE + asking.per_photo)
    merged = merged_at_once(index)
    exactly = gallery.source.rows < settings.exact_below
    row_bytes = gallery.dimension * gallery.itemsize
    step = Step(
        name="search",
        folder="candidates",
        make=search_votes_shard,
        revision=2,  # a background that does not depend on the landmark's size; bursts by their norm
        settings=settings,
        inputs={
            "images": Each(images),
            "local": Each(asking.source),
            "index": Whole(index.parts),
            **({} if overlays is None else {"overlays": Whole(overlays)}),
            **({"gallery": Whole(gallery.source)} if exactly else {}),
        },
        implied={"gallery_rows": gallery.photos},
        placement={"merged": merged, **({"device": gallery.searched_on} if exactly else {})},
        prefers=GPU if exactly and gallery.searched_on != "cpu" else {},
        shards=images.shards,
        role="queries",
        cost=Cost(
            rows=images.rows,
            bytes_per_row=ranking_bytes(settings.candidates) + 4.0,
            # The first task of a machine unpacks sub-indexes, before it holds anything else. Then descriptors
            # as fetched and as stored; of a block of queries as floats, the neighbours found so far, those of
            # the next sub-indexes, their merge, and what voting sorts; the lists that are open.
            task_bytes=max(
                unpacking_bytes(index, merged),
                features * (2.0 * asking.dimension * asking.itemsize + 16.0)
                + held * (8.0 * asking.dimension + 60.0 * settings.neighbours)
                + open_bytes(index, merged)
                # A block of the gallery's features as stored and as floats, and what is found in it.
                + exactly * (COMPARED_AT_ONCE * (row_bytes + 16.0 * asking.dimension))
                + exactly * held * 60.0 * (settings.neighbours + SPARE),
            )
            + 4.0 * rows_per_shard(images) * ranking_bytes(settings.candidates),
            work=images.rows * asking.per_photo,
            unit="feature",
            # Each has the quantiser.
            mapped_bytes=index.parts.rows * index.entry_bytes
            + -(-index.parts.shards // max(merged, 1)) * index.trained.bytes_per_row
            + exactly * gallery.source.rows * (row_bytes + 4.0),
        ),
    )
    return Ranked(step, settings.candidates)


def search_votes_shard(
    shard: int,
    settings: SearchSettings,
    *,
    images: Dataset,
    local: Dataset,
    index: Dataset,
    gallery_rows: int,
    overlays: Dataset | None = None,
    gallery: Dataset | None = None,
    merged: int = 0,
    device: str = "cpu",
) -> pa.Table:
    """Search with the queries of one shard: through the index, or among all of the gallery's features."""
    for _ in open_sub_indexes(index, merged):
        pass  # unpacked, where this machine has not yet, while nothing else is held
    idf = inverse_frequency(entries_of_lists(index, merged)) if settings.idf else None
    queries = column(images.read(shard, ["photo"]), "photo")
    query_of_feature, stored = _voters(shard, images, local, overlays)
    bounds = np.searchsorted(query_of_feature, np.arange(len(queries) + 1))
    first, known = next(open_sub_indexes(index, merged)), _background(index, settings, merged)
    exact = None if gallery is None else ExactSearch(device)
    ranked, votes, chance = [], [], []
    # A query's votes do not depend on other queries, so that queries come in blocks.
    for lo, hi in blocks(np.diff(bounds).tolist(), FEATURES_AT_ONCE):
        part = slice(bounds[lo], bounds[hi])
        descriptors = to_float(stored[part])
        if gallery is None or exact is None:
            distances, photos = search_sub_index(
                open_sub_indexes(index, merged),
                descriptors,
                k=settings.neighbours,
                probes=settings.probes,
                threads=threads(),
            )
        else:
            k = settings.neighbours
            distances, photos = search_exhaustively(_all_of(gallery), descriptors, k=k, nearest=exact)
        shared: dict[str, Any] = {
            "n_queries": hi - lo,
            "words": nearest_lists(first, descriptors, threads=threads()),
            "idf": idf,
            "background": known.lengths(first, descriptors, threads=threads()),
        }
        votes_of = (query_of_feature[part] - lo, distances, photos)
        found = vote(*votes_of, candidates=settings.candidates, burst=settings.burst, **shared)
        ranked.append(found[0])
        votes.append(found[1])
        chance.append(chance_votes(*votes_of, n_photos=gallery_rows, usual=known.vote, **shared))
    rows = Ranking(queries, np.concatenate(ranked), np.concatenate(votes)).table(
        background=np.concatenate(chance)
    )
    return rows if exact is None else exact.told(rows)


def _all_of(gallery: Dataset) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Yield the gallery's features in blocks, mapped from this machine's disk: unit rows, and photos."""
    stored, photos = stack(gallery, "descriptor"), stack(gallery, "photo")
    for lo, hi in spans(len(stored), COMPARED_AT_ONCE):
        yield to_float(stored[lo:hi]), photos[lo:hi]


def _voters(
    shard: int, images: Dataset, local: Dataset, overlays: Dataset | None
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Read the features of the queries of a shard that vote: the number of the query, and the descriptor."""
    photos = images.read(shard, ["photo", "width", "height"] if overlays else ["photo"])
    features = local.read(shard, ["photo", "descriptor", *(["xy"] if overlays else [])])
    owner = (column(features, "photo") - column(photos, "photo")[0]).astype(np.int64)
    stored = column(features, "descriptor")
    if overlays is None:
        return owner, stored
    sides = np.stack([column(photos, "width"), column(photos, "height")], axis=1)
    counts = np.bincount(owner, minlength=len(sides))
    votes = ~overlay_features(overlays, column(features, "xy"), stored, counts, sides)
    return owner[votes], stored[votes]


def _background(index: Dataset, settings: SearchSettings, merged: int) -> Background:
    """Learn the background once per machine; it takes as long as searching with one query."""
    key = f"background-{settings.neighbours}-{settings.probes}"
    return unpack(index, key, partial(_write_background, index, settings, merged), _read_background)


def _write_background(index: Dataset, settings: SearchSettings, merged: int, folder: Path) -> None:
    found = gallery_background(
        partial(open_sub_indexes, index, merged),
        k=settings.neighbours,
        probes=settings.probes,
        threads=threads(),
    )
    np.save(folder / "background.npy", np.array([found.ratio, found.vote]))


def _read_background(folder: Path) -> Background:
    ratio, one_vote = np.load(folder / "background.npy").tolist()
    return Background(ratio, one_vote)
