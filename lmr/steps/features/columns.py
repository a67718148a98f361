"""The columns that every global descriptor is stored as."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.steps.features.settings import DescribeSettings
from lmr.storage.arrow import Ragged, table

__all__ = ["bytes_per_photo", "described_table", "present"]


def bytes_per_photo(settings: DescribeSettings) -> float:
    """Return about how many bytes a described photo takes on storage."""
    # The R-MAC grid has about 20 cells at three scales of a 4:3 photo.
    return 4.0 + 2.0 * settings.dimension * (1 + 20)


def present(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop zero rows: regions without features, photos without descriptor."""
    return vectors[np.any(vectors != 0, axis=1)]


def described_table(
    photos: NDArray[np.int32], vectors: NDArray[np.float32], regions: list[NDArray[np.float32]]
) -> pa.Table:
    """Return the table of photos, their descriptors, and the descriptors of their regions."""
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in regions])]).astype(np.int64)
    lists = Ragged(np.concatenate(regions).astype(np.float16), offsets)
    return table({"photo": photos, "descriptor": vectors.astype(np.float16), "regions": lists})
