"""Extract local features: photos in, one row per feature out."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le

from lmr.features.decode import decode_photo
from lmr.features.extractors import LocalKind, local_extractor
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Step
from lmr.runtime.tables import table

__all__ = ["LocalSettings", "extract_local", "extract_local_shard"]


@dataclass(frozen=True, kw_only=True)
class LocalSettings(Settings):
    """Settings of `extract_local`."""

    features: LocalKind = "rootsift"
    """Which extractor."""
    max_features: Annotated[int, Ge(1), Le(65_535)] = 1000
    """Features kept per photo, the strongest first (the paper's number for DELF)."""
    max_side_px: Annotated[int, Ge(16)] = 800
    """Photos are shrunk to this long side before extraction; coordinates stay those of the photo."""


def extract_local(images: Step, settings: LocalSettings) -> Step:
    """Declare the step that extracts local features from a dataset `images`.

    Each row is a feature: `photo` (row of its photo), `xy` (pixels in the upright photo), `scale` (pixels),
    `orientation` (radians), `score`, `descriptor` (uint8 or float16). Rows of a photo stand together.
    """
    name = images.folder.rsplit("/", 1)[-1]
    extractor = local_extractor(settings.features, settings.max_features, settings.max_side_px)
    return Step(
        name="extract_local" if name == "gallery" else f"extract_local_{name}",
        folder=f"local/{name}",
        make=extract_local_shard,
        settings=settings,
        inputs={"images": Each(images)},
        shards=images.shards,
        rows=images.rows * settings.max_features,
        bytes_per_row=24.0 + extractor.dimension * extractor.storage.itemsize,
        resources={"GPU": 1} if extractor.needs_gpu else {"CPU": 1},
    )


def extract_local_shard(shard: int, settings: LocalSettings, *, images: Dataset) -> pa.Table:
    """Extract the local features of the photos of one shard."""
    extractor = local_extractor(settings.features, settings.max_features, settings.max_side_px)
    rows = images.read(shard, ["photo", "image", "reason"])
    photos, found = [], []
    for photo, image, reason in zip(*(rows.column(c).to_pylist() for c in rows.column_names), strict=True):
        if not reason:
            photos.append(photo)
            found.extend(extractor([decode_photo(image)]))
    counts = [len(f.score) for f in found]
    empty = np.empty((0, extractor.dimension), extractor.storage)
    return table(
        {
            "photo": np.repeat(np.asarray(photos, np.int32), counts),
            "xy": np.concatenate([np.empty((0, 2), np.float32), *(f.xy for f in found)]),
            "scale": np.concatenate([np.empty(0, np.float32), *(f.scale for f in found)]),
            "orientation": np.concatenate([np.empty(0, np.float32), *(f.orientation for f in found)]),
            "score": np.concatenate([np.empty(0, np.float32), *(f.score for f in found)]),
            "descriptor": np.concatenate([empty, *(f.descriptor for f in found)]),
        }
    )
