"""Sizes of what steps read, for the costs that they state, and the blocks in which they take it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmr.runtime.steps import Source
from lmr.storage.datasets import GROUP_BYTES

__all__ = ["FEATURES_AT_ONCE", "blocks", "in_pieces", "rows_per_shard", "runs_of"]

FEATURES_AT_ONCE = 1 << 17
"""Local features that a task holds as floats at a time; a shard of the default size has no more."""


def rows_per_shard(source: Source) -> int:
    """Return how many rows a shard of a source has, as the mean of its shards rounded up."""
    return -(-source.rows // max(source.shards, 1))


def in_pieces(shard_bytes: float) -> float:
    """Return the memory that writing or unpacking a shard in row groups takes: one as stored, and twice more.

    The rows themselves lie in a mapped file.
    """
    return 3.0 * min(shard_bytes, 2.0 * GROUP_BYTES)


def blocks(counts: Sequence[int], at_once: int) -> list[tuple[int, int]]:
    """Cut photos into runs of at most `at_once` features, each of at least one photo.

    Parameters
    ----------
    counts
        Features of each photo.
    at_once
        Most features of a run, but for one of a single photo.

    Returns
    -------
    First and last-but-one number of the photos of each run; one empty run where there is no photo.
    """
    found, start, held = [], 0, 0
    for number, count in enumerate(counts):
        if number > start and held + count > at_once:
            found.append((start, number))
            start, held = number, 0
        held += count
    return [*found, (start, len(counts))]


def runs_of(
    owners: NDArray[np.integer[Any]], photos: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where the features of some photos begin and end among those of all photos.

    NumPy would convert all of `owners` where the two differ in type. Here the few `photos` are converted.

    Parameters
    ----------
    owners
        (n,) the photo of each feature, ascending.
    photos
        (m,) rows of photos, or one.

    Returns
    -------
    starts, stops : (m,) int64 each
    """
    same = np.asarray(photos, dtype=owners.dtype)
    return np.searchsorted(owners, same), np.searchsorted(owners, same, side="right")
