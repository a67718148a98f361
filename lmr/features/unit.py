"""Rows of unit length, as descriptors are compared."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["unit_rows"]


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows (n, d) of unit length, float32; a row of zeros stays zero."""
    rows = rows.astype(np.float32, copy=False)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    norms[norms == 0] = 1
    unit: NDArray[np.float32] = np.divide(rows, norms, dtype=np.float32)
    return unit
