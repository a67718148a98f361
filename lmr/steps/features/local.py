"""Extract local features: photos in, one row per feature out."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le, Len
from pydantic import AfterValidator

from lmr.errors import SettingsError
from lmr.features.extractors import (
    LocalRequest,
    OwnCode,
    Precision,
    is_own,
    known_local,
    local_extractor,
    local_kind,
)
from lmr.features.interfaces import LocalExtractor
from lmr.features.local.quantise import to_int8
from lmr.features.pipeline import extract_photos
from lmr.runtime.settings import ADDED_LATER, Settings
from lmr.runtime.steps import Cost, Each, Source, Step, of_role, per_part
from lmr.steps.features.chosen import ChosenExtractor
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.ingest import read_usable
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset

__all__ = ["Extracted", "LocalSettings", "extract_local", "extract_local_shard", "open_local"]

EXTRACTION_BYTES = 1.0e9
"""What a network holds besides photos and features: its weights and layers."""

SIFT_PIXEL_BYTES = 240.0
"""SIFT's scale space for a pixel: eleven float32 images of twice the width and height, and smaller ones."""

SIFT_BYTES = 1.0e8
"""What SIFT's extraction holds besides: photos that are decoded ahead, key points that are not chosen."""


@dataclass(frozen=True)
class Extracted:
    """The local features of some photos.

    Attributes
    ----------
    source
        Columns as of `extract_local`.
    photos
        How many photos they are of.
    per_photo
        Most features of a photo.
    dimension
        Numbers in a descriptor.
    itemsize
        Bytes of each number as it is stored.
    searched_on
        Where exact searches among them run, see `Inputs.search_device`.
    """

    source: Source
    photos: int
    per_photo: int
    dimension: int
    itemsize: int
    searched_on: str = "cpu"

    @property
    def per_shard(self) -> int:
        """Most features of a shard."""
        return rows_per_shard(self.source)


@dataclass(frozen=True, kw_only=True)
class LocalSettings(Settings):
    """Settings of `extract_local`."""

    features: Annotated[str, Len(1, 1_000), AfterValidator(known_local)] = "rootsift"
    """Which extractor: a name in the table of extractors, or `my_module.py:Extractor`."""
    max_features: Annotated[int, Ge(1), Le(65_535)] = 1000
    """Features kept per photo, the strongest first (the paper's number for DELF)."""
    max_gallery_features: Annotated[int, Ge(0), Le(65_535)] = field(default=0, metadata=ADDED_LATER)
    """Fewer for photos of the gallery, which take less room and time so; 0: as many as for queries."""
    max_side_px: Annotated[int, Ge(16), Le(65_535)] = 800
    """Photos are shrunk to this long side before extraction; coordinates stay those of the photo."""
    storage: Literal["float16", "int8"] = "float16"
    """How networks' descriptors are stored (RootSIFT's are uint8 either way); int8 takes half the bytes."""
    precision: Precision = "auto"
    """Of DELF's convolutions: float16 on GPUs and float32 on CPUs ("auto"), or one of these everywhere."""


def extract_local(images: Source, settings: LocalSettings, inputs: Inputs) -> Extracted:
    """Declare the step that extracts local features from a dataset `images`.

    Each row is a feature: `photo` (row of its photo), `xy` (pixels in the upright photo), `scale` (pixels),
    `orientation` (radians), `score`, `descriptor` (uint8, float16 or int8). Rows of a photo stand together.

    Raises
    ------
    SettingsError
        If the features come from a network and there are no weights for it.
    LmrError
        If they come from one's own code, and it is no such extractor.
    """
    settings, chosen, dimension, stored = _chosen(settings, inputs)
    if settings.max_gallery_features:
        fewer = settings.max_gallery_features if images.role == "gallery" else settings.max_features
        settings = replace(settings, max_features=fewer, max_gallery_features=0)
    itemsize = 2 if stored == np.float16 and _halves(settings) else 1
    row_bytes = 24.0 + dimension * itemsize

    def extracted(images: Step) -> Step:
        photos = rows_per_shard(images)
        return Step(
            name=of_role("extract_local", images),
            folder=f"local/{images.role}",
            role=images.role,
            make=extract_local_shard,
            settings=settings,
            inputs={"images": Each(images)},
            shards=images.shards,
            cost=Cost(
                rows=images.rows * settings.max_features,
                bytes_per_row=row_bytes,
                # The shard's files as fetched, chosen and taken out; or these, with features as found and
                # joined, or joined and as written.
                task_bytes=_extraction_bytes(settings)
                + photos
                * max(
                    3.0 * images.bytes_per_row,
                    images.bytes_per_row + 3.0 * settings.max_features * row_bytes,
                ),
                work=images.rows,
                unit="photo",
            ),
            **chosen.of_step(),
        )

    source = per_part(extracted, images)
    of_each = settings.max_features
    return Extracted(source, images.rows, of_each, dimension, itemsize, searched_on=inputs.search_device)


def open_local(
    settings: LocalSettings, weights: Weights | None, device: str, code: OwnCode | None = None
) -> LocalExtractor:
    """Return the extractor of these settings, ready on this machine."""
    request = LocalRequest(
        max_features=settings.max_features,
        max_side_px=settings.max_side_px,
        weights=weights.here() if weights else None,
        device=device,
        precision=settings.precision,
    )
    return local_extractor(code or settings.features, request)


def extract_local_shard(
    shard: int,
    settings: LocalSettings,
    *,
    images: Dataset,
    weights: Weights | None,
    device: str,
    code: OwnCode | None = None,
) -> pa.Table:
    """Extract the local features of the photos of one shard."""
    extractor = open_local(settings, weights, device, code)
    rows = read_usable(images, shard)
    photos = rows.photos.tolist()
    found = extract_photos(extractor, rows.images, rows.sizes)
    counts = [len(f.score) for f in found]
    empty = np.empty((0, extractor.dimension), extractor.storage)
    descriptors = np.concatenate([empty, *(f.descriptor for f in found)])
    if descriptors.dtype == np.float16 and not _halves(settings):
        descriptors = to_int8(descriptors)
    return table(
        {
            "photo": np.repeat(np.asarray(photos, np.int32), counts),
            "xy": np.concatenate([np.empty((0, 2), np.float32), *(f.xy for f in found)]),
            "scale": np.concatenate([np.empty(0, np.float32), *(f.scale for f in found)]),
            "orientation": np.concatenate([np.empty(0, np.float32), *(f.orientation for f in found)]),
            "score": np.concatenate([np.empty(0, np.float32), *(f.score for f in found)]),
            "descriptor": descriptors,
        }
    )


def _chosen(
    settings: LocalSettings, inputs: Inputs
) -> tuple[LocalSettings, ChosenExtractor, int, np.dtype[Any]]:
    """Return the settings by which shards are made, the extractor, its dimension and its type of numbers.

    One's own code is opened and tried here, so that what it lacks is told before anything runs.
    """
    weights = inputs.local_weights
    if is_own(settings.features):
        code = OwnCode.read(settings.features)
        settings = replace(settings, features=code.name)  # wherever the file lies
        chosen = ChosenExtractor(name=code.name, weights=weights, code=code, device=inputs.device)
        extractor = open_local(settings, weights, "cpu", code)
        return settings, chosen, extractor.dimension, extractor.storage
    kind = local_kind(settings.features)
    if kind.needs_weights and weights is None:
        raise SettingsError(
            f"{kind.name} needs the weights of its network",
            got="no --local-weights",
            fix="give --local-weights FILE, or use --local rootsift",
        )
    chosen = ChosenExtractor(
        name=kind.name,
        weights=weights if kind.needs_weights else None,
        device=inputs.device if kind.on_gpus else "cpu",
        modules=kind.modules,
    )
    return settings, chosen, kind.dimension, np.dtype(kind.stored)


def _extraction_bytes(settings: LocalSettings) -> float:
    """Return what an extractor holds besides photos and features."""
    if settings.features == "rootsift":
        return SIFT_BYTES + SIFT_PIXEL_BYTES * settings.max_side_px**2
    return EXTRACTION_BYTES


def _halves(settings: LocalSettings) -> bool:
    return settings.storage == "float16"
