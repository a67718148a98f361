"""Local descriptors as stored, and the unit rows that searching and matching compare."""

import math

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["check_descriptors", "to_float"]

_AT_ONCE = 1024  # rows of one photo: they stay in the processor's cache from one step to the next
# Every float16 as float32: looking a number up takes a third of the time of converting it.
_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def to_float(descriptor: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return stored descriptors as unit rows.

    The scale of the stored numbers does not matter, so that one function reads them all: RootSIFT as
    round(512 x) in uint8, networks' descriptors as they are in float16, or in int8 with a scale per row.

    Parameters
    ----------
    descriptor
        (n, d) uint8, int8, float16 or float32.

    Returns
    -------
    (n, d) float32, a new array with rows of unit length. A row of zeros stays zero, and a row that holds NaN
    or infinity, or is longer than float32 can say, becomes zero: it is similar to nothing.

    Raises
    ------
    LmrError
        If the array is not (n, d) of one of these types.
    """
    if descriptor.ndim != 2 or descriptor.dtype not in (np.uint8, np.int8, np.float16, np.float32):
        raise LmrError(
            "these are not descriptors",
            got=f"an array {descriptor.shape} of {descriptor.dtype}",
            fix="give an (n, d) array of uint8, int8, float16 or float32",
        )
    unit = np.empty(descriptor.shape, np.float32)
    for start in range(0, len(unit), _AT_ONCE):
        stored, rows = descriptor[start : start + _AT_ONCE], unit[start : start + _AT_ONCE]
        if stored.dtype == np.float16:
            np.take(_HALVES, stored.view(np.uint16), out=rows, mode="wrap")
        else:
            rows[:] = stored
        # float64: squares of large or tiny float32 neither overflow nor vanish.
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        usable = (norms > 0) & (norms <= np.finfo(np.float32).max)  # False for NaN
        rows[~usable] = 0.0
        rows /= np.where(usable, norms, 1.0).astype(np.float32)[:, None]
    return unit


def check_descriptors(
    descriptors: NDArray[np.float32], *, dimension: int | None = None, unit: bool = False
) -> None:
    """Refuse descriptors that are not (n, d) float32, finite, of the wanted dimension and, if asked, unit.

    A row of zeros passes as unit: it stands for a descriptor that cannot be used.
    """
    if descriptors.ndim != 2 or descriptors.dtype != np.float32:
        raise LmrError(
            "descriptors must be a table of float32",
            got=f"{descriptors.dtype} of shape {descriptors.shape}",
            fix="convert the stored descriptors to float32 and normalise each row",
        )
    if dimension is not None and descriptors.shape[1] != dimension:
        raise LmrError(
            f"descriptors must have {dimension} dimensions",
            got=f"{descriptors.shape[1]} dimensions",
            fix="extract queries and gallery with one extractor, and build the index again if it changed",
        )
    norms = np.einsum("nd,nd->n", descriptors, descriptors)
    finite = np.isfinite(norms)
    if not finite.all():
        raise LmrError(
            "descriptors must be finite",
            got=f"{np.count_nonzero(~finite)} of {len(norms)} rows with NaN or infinity, "
            f"the first is row {np.argmin(finite)}",
            fix="extract the photos of these rows again",
        )
    if unit and not ((np.abs(norms - 1) < 0.01) | (norms == 0)).all():
        raise LmrError(
            "descriptors must have unit length",
            got=f"lengths from {math.sqrt(norms.min()):.3g} to {math.sqrt(norms.max()):.3g}",
            fix="divide each row by its L2 norm after converting to float32",
        )
