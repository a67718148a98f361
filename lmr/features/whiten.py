"""PCA whitening, learned without labels from the gallery's own descriptors.

Jégou and Chum, *Negative evidences and co-occurrences in image retrieval: the benefit of PCA and whitening*
(ECCV 2012): directions that many photos share say little of which landmark they show, and are scaled down.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["Whitening", "learn_whitening"]

Floats = NDArray[np.float32]

SMALLEST = 1e-6  # of the largest eigenvalue; below, a direction is the rounding of float32


@dataclass(frozen=True)
class Whitening:
    """A learned change of coordinates.

    Attributes
    ----------
    mean
        (d,) float32.
    projection
        (d, k) float32, the principal directions, each divided by its eigenvalue ** power.
    """

    mean: Floats
    projection: Floats

    def rotate(self, x: Floats) -> Floats:
        """Return the new coordinates (n, k) float32 of rows (n, d) float32, their lengths as they come."""
        # Equal to (x - mean) @ projection, without a copy of x.
        rotated: Floats = x @ self.projection - self.mean @ self.projection
        return rotated

    def apply(self, x: Floats) -> Floats:
        """Return the new coordinates (n, k) float32 of rows (n, d) float32, with unit length.

        A row of zeros (a photo or region without descriptor) stays zero.
        """
        rotated = self.rotate(x)
        norms = np.linalg.norm(rotated, axis=1, keepdims=True)
        rotated /= np.where(norms > 0, norms, 1)
        rotated[~np.any(x, axis=1)] = 0
        return rotated


def learn_whitening(x: Floats, dimension: int, *, power: float) -> Whitening:
    """Learn a whitening from a sample of descriptors.

    Parameters
    ----------
    x
        (n, d) float32. Rows of zeros are left out. There may be fewer rows than columns.
    dimension
        Coordinates kept, those of the largest variance; fewer if the sample does not span as many (n rows
        span at most n - 1). Rows that are all the same span one, their own direction.
    power
        Each coordinate is divided by its variance (eigenvalue) ** power: 0 only rotates, 0.5 divides by the
        standard deviation, which is full whitening. The less the sample has rows, the less of it is good.

    Raises
    ------
    LmrError
        If the rows are not finite, or `dimension` or `power` is out of range.
    """
    if dimension < 1 or not 0 <= power <= 1:
        raise LmrError(
            "a whitening cannot be learned with these settings",
            got=f"dimension = {dimension}, power = {power}",
            fix="give a dimension of at least 1 and a power of 0 (none) to 0.5 (full)",
        )
    rows = x[np.any(x, axis=1)]
    if not np.isfinite(rows).all():
        raise LmrError(
            "descriptors are not finite", got=f"{len(rows)} rows with NaN or infinity", fix="leave those out"
        )
    if not (rows != rows[:1]).any():
        return _along(rows)
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    rows -= mean  # a copy of the caller's
    variances, directions = _principal(rows, dimension)
    # In rows, as a stored array comes back; the same numbers in columns are summed in another order.
    return Whitening(mean, np.ascontiguousarray(directions / variances**power, np.float32))


def _along(rows: Floats) -> Whitening:
    """Return the coordinate along rows that are all the same: one photo is found as many are."""
    direction = rows[:1].T.astype(np.float32) if len(rows) else np.eye(rows.shape[1], 1, dtype=np.float32)
    return Whitening(np.zeros(rows.shape[1], np.float32), direction / np.linalg.norm(direction))


def _principal(centred: Floats, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the `count` largest variances and their directions (d, count), as far as there are any."""
    n, d = centred.shape
    fewer_rows = n < d
    # The products of rows have the same eigenvalues as those of columns; the smaller matrix is solved.
    products = (centred @ centred.T if fewer_rows else centred.T @ centred).astype(np.float64)
    values, vectors = np.linalg.eigh(products)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    kept = values > SMALLEST * values[:1]
    values, vectors = values[kept], vectors[:, kept]
    if fewer_rows:
        vectors = (centred.T @ vectors.astype(np.float32)) / np.sqrt(values)
    return values / n, vectors
