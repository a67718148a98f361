"""Overlays that recur all over a gallery, found from a sample of it, for the search and the verification."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.overlays import CHANCE_ROWS, Overlays, find_overlays
from lmr.runtime.settings import Part, Seed, Settings
from lmr.runtime.steps import Cost, Source, Step, Whole
from lmr.steps.both import Both
from lmr.steps.features.local import Extracted
from lmr.steps.photos.generations import learned_from
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import array_table, column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays

__all__ = ["OverlaySettings", "find_overlays_shard", "look_for_overlays", "overlay_features"]

SHARDS_READ = 32
"""Shards of the gallery that the sample is drawn from, spread over all of it."""


@dataclass(frozen=True, kw_only=True)
class OverlaySettings(Settings):
    """Settings of `find_overlays`: captions, date stamps, watermarks and logos that recur in a gallery."""

    find: bool = False
    """Whether they are looked for; their features then neither vote nor match."""
    sample_photos: Annotated[int, Ge(6), Le(10_000)] = 400
    """Gallery photos that they are looked for in."""
    sample_features: Annotated[int, Ge(1), Le(65_535)] = 500
    """The strongest features of each of these photos that are looked at."""
    least_share: Annotated[float, Gt(0), Le(1)] = 0.02
    """Share of these photos that an overlay is on at least, and never fewer than six photos."""
    seed: Seed = 0
    """Of the sample."""


def look_for_overlays(
    local: Extracted, images: Both[Source], settings: OverlaySettings, *, frame_side_px: int
) -> Step | None:
    """Declare the step that finds overlays; None where they are not looked for.

    The dataset `overlays` holds named arrays, those of `lmr.retrieval.verification.overlays.Overlays`.

    Parameters
    ----------
    local
        Local features of the gallery.
    images
        The photos.
    settings
        The settings.
    frame_side_px
        Long side of the frame in which places are compared, as verification has it.
    """
    if not settings.find:
        return None
    learned, photos = learned_from(local.source), learned_from(images.gallery)
    sample = min(settings.sample_photos, photos.rows) * min(settings.sample_features, local.per_photo)
    per_photo = 24.0 + 4.0 * local.dimension
    return Step(
        name="find_overlays",
        folder="overlays",
        make=find_overlays_shard,
        settings=settings.only(
            "sample_photos", "sample_features", "least_share", "seed", kind="FoundOverlays"
        ).also(frame_side_px=frame_side_px),
        inputs={"local": Whole(learned), "images": Whole(photos)},
        shards=1,
        cost=Cost(
            rows=1,
            bytes_per_row=0.05 * sample * per_photo,
            # A shard as fetched and as stored; the sample as stored, joined and as floats, its places; the
            # features of one cell compared with each other and with those that show what chance gives.
            task_bytes=rows_per_shard(learned) * (2.0 * local.dimension * local.itemsize + 60.0)
            + sample * (3.0 * per_photo + 80.0)
            + CHANCE_ROWS * (4.0 * local.dimension + 8.0 * 2_000)
            + 8.0 * min(settings.sample_photos, photos.rows) ** 2,
            work=sample,
            unit="feature",
        ),
    )


def find_overlays_shard(shard: int, settings: Part, *, local: Dataset, images: Dataset) -> pa.Table:
    """Find the overlays of a sample of the gallery."""
    rng = np.random.default_rng(settings.seed)
    drawn = np.unique(np.linspace(0, local.shards - 1, min(SHARDS_READ, local.shards)).astype(int))
    xy, descriptors, owners, frames = [], [], [], []
    taken = 0
    for number, part in enumerate(drawn.tolist(), start=1):
        sides = images.read(part, ["photo", "width", "height"])
        features = local.read(part, ["photo", "xy", "descriptor"])
        photos, owner = column(sides, "photo"), column(features, "photo")
        share = min(len(photos), settings.sample_photos * number // len(drawn) - taken)
        zoom, frame = _zoomed(
            np.stack([column(sides, "width"), column(sides, "height")], axis=1), settings.frame_side_px
        )
        for row in np.sort(rng.choice(len(photos), share, replace=False)).tolist():
            first, end = np.searchsorted(owner, [photos[row], photos[row] + 1])
            kept = slice(first, min(end, first + settings.sample_features))
            xy.append(column(features, "xy")[kept] * zoom[row])
            descriptors.append(to_float(column(features, "descriptor")[kept]))
            owners.append(np.full(len(xy[-1]), taken))
            frames.append(frame[row])
            taken += 1
    usable = np.concatenate(descriptors)
    good = usable.any(axis=1) & np.isfinite(usable).all(axis=1)
    found = find_overlays(
        np.concatenate(xy)[good],
        usable[good],
        np.concatenate(owners)[good],
        np.array(frames),
        side_px=settings.frame_side_px,
        least_share=settings.least_share,
        seed=settings.seed,
    )
    return array_table(
        {
            "corner": found.corner,
            "place": found.place,
            "descriptor": found.descriptor,
            "photos": found.photos,
            "frame_side_px": np.array([settings.frame_side_px]),
        }
    )


def overlay_features(
    overlays: Dataset | None,
    xy: NDArray[np.floating[Any]],
    descriptors: NDArray[np.generic],
    counts: NDArray[np.integer[Any]],
    sides: NDArray[np.integer[Any]],
) -> NDArray[np.bool_]:
    """Tell which features belong to overlays.

    Parameters
    ----------
    overlays
        What `find_overlays` has found; None: nothing was looked for, and no feature does.
    xy
        (n, 2) places, pixels of the photos.
    descriptors
        (n, d) as stored.
    counts
        (photos,) features of each photo, in the order of the features.
    sides
        (photos, 2) width and height, pixels.

    Returns
    -------
    (n,) bool.
    """
    nothing = np.zeros(len(xy), np.bool_)
    if overlays is None:
        return nothing
    known, side_px = _known(overlays)
    if len(known.photos) == 0:
        return nothing
    zoom, frames = _zoomed(sides, side_px)
    places = xy * np.repeat(zoom, counts)[:, None]
    return known.mark(places, to_float(descriptors), np.repeat(frames, counts, axis=0), side_px=side_px)


def _zoomed(
    sides: NDArray[np.integer[Any]], side_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor that brings each photo into its frame, and the frame's width and height."""
    zoom = np.minimum(1, side_px / np.maximum(sides.max(axis=1, initial=0), 1))
    return zoom, sides * zoom[:, None]


@lru_cache(maxsize=4)
def _known(overlays: Dataset) -> tuple[Overlays, float]:
    arrays = named_arrays(overlays)
    known = Overlays(arrays["corner"], arrays["place"], arrays["descriptor"], arrays["photos"])
    return known, float(arrays["frame_side_px"][0])
