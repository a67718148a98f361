"""Step 2a, spatial verification: RANSAC on the candidates, grouped by gallery shard.

Ten million pairs name each gallery photo ten times. So a task takes one gallery shard, reads its features
once and verifies every pair that falls into it. The pairs themselves are 40 MB, and the queries' features
are unpacked once per machine: both are mapped by all its workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.verify import Features, Recipe, Verification, verify_pairs
from lmr.runtime.settings import Part, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, Whole
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.ranking import Ranked
from lmr.steps.sizes import FEATURES_AT_ONCE, blocks, rows_per_shard, runs_of
from lmr.steps.verification.earlier import OF, photos_of_pairs, take_over
from lmr.steps.verification.overlays import overlay_features
from lmr.storage.arrow import Ragged, column, table, with_facts
from lmr.storage.datasets import Dataset
from lmr.storage.earlier import Earlier
from lmr.storage.mapped import stack

__all__ = ["Verified", "VerifySettings", "verify", "verify_listed", "verify_shard"]

REVISION = 2  # inliers that are evidence; copies do not pass the ratio test by rounding
PAIR_BYTES = 56.0 + 4.0 * 60  # a pair with as many inliers as a good one has


@dataclass(frozen=True, kw_only=True)
class VerifySettings(Recipe, Settings):
    """Settings of `verify` and `rerank`: how a pair is verified, and from when on it is a confident match."""

    min_inliers: Annotated[int, Ge(0), Le(65_535)] = 10
    """A pair with more inliers is a confident match. The paper's 40 is for DELF."""
    frame_side_px: Annotated[int, Ge(16), Le(65_535)] = 800
    """Long side to which coordinates are scaled before residuals are measured; smaller photos stay."""

    evidence: bool = True
    """Whether inliers count only where they are evidence: not in a caption, a date stamp, a logo or a frame
    that both photos bear, in one spot or line, or under a transform that no camera makes."""

    @property
    def recipe(self) -> Recipe:
        """How a pair is matched and verified."""
        return Recipe(**{f.name: getattr(self, f.name) for f in fields(Recipe)})


@dataclass(frozen=True)
class Verified:
    """Candidates that were verified.

    Attributes
    ----------
    pairs
        A row per pair, columns as of `verify`.
    ranking
        The candidates, confident matches first.
    """

    pairs: Step
    ranking: Ranked


def verify(
    candidates: Ranked,
    local: Both[Extracted],
    images: Both[Source],
    settings: VerifySettings,
    overlays: Step | None = None,
) -> Step:
    """Declare the verification of all candidates; a row per pair, a shard per gallery shard.

    Columns: `query`, `photo` (gallery row), `inliers`, `tentative`, `transform` (nine float32, gallery photo
    to query photo, in the scaled frame), `matches` (the inliers: a list of uint16 pairs, query and gallery
    feature).

    Parameters
    ----------
    candidates
        Gallery photos per query.
    local, images
        Local features and photos.
    settings
        The settings; `min_inliers` is read later, by `rerank`.
    overlays
        Features that are left out, of `look_for_overlays`; None leaves none out.
    """
    shards = local.gallery.source.shards
    pairs = candidates.queries * candidates.depth
    in_shard = min(-(-pairs // shards), candidates.queries * rows_per_shard(images.gallery))
    queries = min(in_shard, candidates.queries)
    at_once = min(queries * local.queries.per_photo, FEATURES_AT_ONCE + local.queries.per_photo)
    # Bytes stay as they are stored; what takes more is made floats. Of a block some may have to be left out.
    itemsize = local.gallery.itemsize
    feature_bytes = local.gallery.dimension * (2.0 if itemsize == 1 else itemsize + 8.0) + 60.0
    return Step(
        name="verify",
        folder="pairs",
        make=verify_shard,
        revision=REVISION,
        takes_over=True,
        # Another `min_inliers` verifies nothing again.
        settings=settings.only("frame_side_px", "evidence", kind="PairSettings").also(recipe=settings.recipe),
        inputs={
            "candidates": Whole(candidates.step),
            "local_gallery": Each(local.gallery.source),
            "local_queries": Whole(local.queries.source),
            "images_gallery": Each(images.gallery),
            "images_queries": Whole(images.queries),
            **({} if overlays is None else {"overlays": Whole(overlays)}),
        },
        shards=shards,
        role="gallery",
        cost=Cost(
            rows=pairs,
            bytes_per_row=PAIR_BYTES,
            # The features of the shard's photos and of a block of the queries that meet them; which of all
            # candidates fall into the shard; the pairs as found or taken over, joined and written.
            task_bytes=(at_once + local.gallery.per_shard) * feature_bytes
            + 3.0 * pairs
            + 5.0 * in_shard * PAIR_BYTES,
            work=pairs,
            unit="pair",
            mapped_bytes=local.queries.source.rows * local.queries.source.bytes_per_row + 4.0 * pairs,
        ),
    )


def verify_shard(
    shard: int,
    settings: Part,
    *,
    candidates: Dataset,
    local_gallery: Dataset,
    local_queries: Dataset,
    images_gallery: Dataset,
    images_queries: Dataset,
    overlays: Dataset | None = None,
    earlier: Earlier | None = None,
) -> pa.Table:
    """Verify all pairs whose gallery photo lies in one shard, but for those that were verified before."""
    images = images_gallery.read(shard, ["photo", "width", "height"])
    first, count = int(column(images, "photo")[0]), len(images)
    photos = stack(candidates, "photos")
    query, rank = np.nonzero((photos >= first) & (photos < first + count))
    photo = photos[query, rank]
    of = photos_of_pairs(
        shard,
        settings,
        REVISION,
        {"images": images_gallery, "local": local_gallery},
        {"images": images_queries, "local": local_queries},
        overlays,
    )
    known, taken = take_over(earlier, shard, of, query, photo)
    new = np.setdiff1d(np.arange(len(query)), known)
    if taken is None or len(new):
        rows = local_gallery.read(shard, ["photo", *_names(settings)])
        queries = local_queries, images_queries
        made = _verified(query[new], photo[new], images, rows, *queries, settings, overlays)
        if taken is None:
            return with_facts(made, {OF: of})
        taken = pa.concat_tables([taken, made])
    in_order = taken.take(np.argsort(np.concatenate([known, new]))).combine_chunks()
    return with_facts(in_order, {OF: of, "taken_over": len(known)})


def _verified(
    query: NDArray[np.int64],
    photo: NDArray[np.int32],
    images: pa.Table,
    rows: pa.Table,
    local_queries: Dataset,
    images_queries: Dataset,
    settings: Part,
    overlays: Dataset | None,
) -> pa.Table:
    """Verify pairs with photos of one gallery shard, given its photos and their features."""
    first, count = int(column(images, "photo")[0]), len(images)
    names, query_of_pair = np.unique(query, return_inverse=True)
    sides = np.stack([column(images, "width"), column(images, "height")], axis=1)
    offsets = np.searchsorted(column(rows, "photo"), np.arange(first, first + count + 1)).astype(np.int64)
    columns = {name: column(rows, name) for name in _names(settings)}
    gallery = _features(columns, offsets, sides, settings, overlays)
    # A pair's result does not depend on the others, so queries come in blocks: at a million photos a shard
    # meets ten thousand of them, whose features would take gigabytes.
    owners = stack(local_queries, "photo")
    starts, stops = runs_of(owners, names)
    counts = stops - starts
    found = []
    for lo, hi in blocks(counts.tolist(), FEATURES_AT_ONCE):
        part = slice(*np.searchsorted(query_of_pair, [lo, hi]))
        pairs = np.stack([query_of_pair[part] - lo, photo[part] - first], axis=1)
        queries = _gathered(names[lo:hi], local_queries, images_queries, settings, overlays)
        found.append(verify_pairs(queries, gallery, pairs, settings.recipe))
    return _pair_table(query, photo, found)


def verify_listed(
    settings: Part,
    *,
    candidates: Dataset,
    local_gallery: Dataset,
    local_queries: Dataset,
    images_gallery: Dataset,
    images_queries: Dataset,
    overlays: Dataset | None = None,
) -> pa.Table:
    """Verify all pairs of a few queries at once, wherever their photos lie; rows as of `verify_shard`.

    No shard of the gallery is read whole: its features are unpacked once on this machine, and those of the
    candidates are gathered from there. A pair's result is the same either way.
    """
    photos = stack(candidates, "photos")
    query, rank = np.nonzero(photos >= 0)
    photo = photos[query, rank]
    names, query_of_pair = np.unique(query, return_inverse=True)
    listed, photo_of_pair = np.unique(photo, return_inverse=True)
    found = verify_pairs(
        _gathered(names, local_queries, images_queries, settings, overlays),
        _gathered(listed, local_gallery, images_gallery, settings, overlays),
        np.stack([query_of_pair, photo_of_pair], axis=1),
        settings.recipe,
    )
    return _pair_table(query, photo, [found])


def _pair_table(query: NDArray[Any], photo: NDArray[Any], found: Sequence[Verification]) -> pa.Table:
    inliers = np.concatenate([block.inliers for block in found])
    return table(
        {
            "query": query.astype(np.int32),
            "photo": photo.astype(np.int32),
            "inliers": inliers,
            "tentative": np.concatenate([block.tentative for block in found]),
            "transform": np.concatenate([block.transform for block in found]).reshape(-1, 9),
            "matches": Ragged(
                np.concatenate([block.matches for block in found]).astype(np.uint16),
                np.concatenate([[0], np.cumsum(inliers)]).astype(np.int64),
            ),
        }
    )


def _gathered(
    photos: NDArray[np.integer[Any]],
    local: Dataset,
    images: Dataset,
    settings: Part,
    overlays: Dataset | None,
) -> Features:
    """Gather the features of some photos from the unpacked dataset."""
    owners = stack(local, "photo")
    starts, stops = runs_of(owners, photos)
    offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
    columns = {name: _joined(stack(local, name), starts, stops) for name in _names(settings)}
    sides = np.stack([stack(images, name)[photos] for name in ("width", "height")], axis=1)
    return _features(columns, offsets, sides, settings, overlays)


def _names(settings: Part) -> tuple[str, ...]:
    """Return the columns of local features that these settings look at."""
    more = ("scale", "orientation") if settings.recipe.weak_geometry else ()
    return ("xy", "descriptor", *more)


def _joined(
    rows: NDArray[Any], starts: NDArray[np.integer[Any]], stops: NDArray[np.integer[Any]]
) -> NDArray[Any]:
    """Return runs of rows one after another; whole runs are copied several times as fast as rows."""
    spans = zip(starts.tolist(), stops.tolist(), strict=True)
    return np.concatenate([rows[:0], *(rows[start:stop] for start, stop in spans)])


def _features(
    columns: dict[str, NDArray[Any]],
    offsets: NDArray[np.int64],
    sides: NDArray[np.int32],
    settings: Part,
    overlays: Dataset | None,
) -> Features:
    """Scale coordinates to the frame in which residuals are measured."""
    zoom = np.minimum(1, settings.frame_side_px / np.maximum(sides.max(axis=1), 1)).astype(np.float32)
    counts = np.diff(offsets)
    per_feature = np.repeat(zoom, counts)
    stored = columns["descriptor"]
    # Bytes are compared as they are; what takes more is made floats here, once for all pairs.
    descriptors = stored if stored.dtype.itemsize == 1 else to_float(stored)
    overlaid = overlay_features(overlays, columns["xy"], stored, counts, sides)
    if overlaid.any():  # features without a descriptor are passed over
        descriptors = np.where(overlaid[:, None], descriptors.dtype.type(0), descriptors)
    weak = {}
    if "scale" in columns:
        weak["scale"] = (columns["scale"] * per_feature).astype(np.float32)
        weak["orientation"] = columns["orientation"].astype(np.float32)
    return Features(
        xy=(columns["xy"] * per_feature[:, None]).astype(np.float32),
        descriptors=descriptors,
        offsets=offsets,
        frame=(sides * zoom[:, None]).astype(np.float32) if settings.evidence else None,
        **weak,
    )
