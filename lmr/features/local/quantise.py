"""The 8-bit form of local descriptors whose numbers have signs (DELF, XFeat, ALIKED)."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["to_int8"]

LARGEST = 127


def to_int8(descriptors: NDArray[np.floating]) -> NDArray[np.int8]:
    """Return descriptors (n, d) in 8 bits per number: each row is scaled to a largest number of 127.

    A row's length is lost and needs no keeping: what searching and matching compare are unit rows, which
    `lmr.retrieval.descriptors.to_float` makes of these as of any other form. Against one scale for all rows
    this uses all 8 bits for each. A row that is not finite becomes zero, as it does there.
    """
    rows = descriptors.astype(np.float32)
    rows[~np.isfinite(rows).all(axis=1)] = 0
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    return np.rint(rows * (LARGEST / np.where(largest > 0, largest, 1))).astype(np.int8)
