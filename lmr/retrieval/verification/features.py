"""The local features of several photos, as verification takes them."""

from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.verification.match import byte_lengths, matchable

__all__ = ["Features"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """The local features of several photos, one after another.

    Attributes
    ----------
    xy
        (n, 2) float32, pixels.
    descriptors
        (n, d) float32, unit rows; or uint8 or int8 as they are stored, of any length, which are compared as
        the unit rows of `lmr.retrieval.descriptors.to_float`. A feature whose descriptor is zero or not
        finite, or whose place is not finite, is passed over as though the photo did not have it.
    offsets
        (photos + 1,) int64: photo i has rows offsets[i] to offsets[i + 1].
    scale, orientation
        (n,) float32, pixels and radians; only for `Recipe.weak_geometry`.
    frame
        (photos, 2) float32, width and height of the photos in the same pixels. Where both sides have it, only
        inliers that are evidence count (`lmr.retrieval.verification.evidence`); None counts all.
    """

    xy: NDArray[np.float32]
    descriptors: NDArray[Any]
    offsets: NDArray[np.int64]
    scale: NDArray[np.float32] | None = None
    orientation: NDArray[np.float32] | None = None
    frame: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.xy)
        if self.in_bytes and not self.descriptors.flags.c_contiguous:
            object.__setattr__(self, "descriptors", np.ascontiguousarray(self.descriptors))
        sizes = [len(a) for a in (self.descriptors, self.scale, self.orientation) if a is not None]
        rising = len(self.offsets) > 0 and self.offsets[0] == 0 and bool((np.diff(self.offsets) >= 0).all())
        if self.xy.shape != (n, 2) or self.descriptors.ndim != 2 or any(size != n for size in sizes):
            raise LmrError(
                "the arrays of local features do not fit together",
                got=f"xy {self.xy.shape}, descriptors {self.descriptors.shape}, lengths {sizes}",
                fix="give one place, descriptor, scale and orientation for each feature",
            )
        if not rising or self.offsets[-1] != n:
            raise LmrError(
                "the offsets of local features do not divide them among photos",
                got=f"offsets {self.offsets[:3]}...{self.offsets[-3:]} for {n} features",
                fix="start at 0, never fall, and end at the number of features",
            )
        if self.frame is not None and self.frame.shape != (len(self.offsets) - 1, 2):
            raise LmrError(
                "every photo needs its frame",
                got=f"frames {self.frame.shape} for {len(self.offsets) - 1} photos",
                fix="give width and height of each photo, or no frame",
            )

    @cached_property
    def usable(self) -> "tuple[NDArray[np.int64], Features]":
        """The features that can be matched, and the row that each had before; found once.

        Raises
        ------
        LmrError
            If a descriptor is finite, not zero, and not of unit length.
        """
        if self.in_bytes:
            descriptors = self.descriptors
            good = (self.lengths > 0) & np.isfinite(self.xy).all(axis=1)
        else:
            descriptors = np.ascontiguousarray(self.descriptors, dtype=np.float32)
            good = matchable(descriptors) & np.isfinite(self.xy).all(axis=1)
        rows = np.flatnonzero(good)
        if good.all():
            # A copy, with what was found so far: what holds itself is freed late.
            return rows, copy(self) if self.in_bytes else replace(self, descriptors=descriptors)
        before = np.concatenate([[0], np.cumsum(good)])
        return rows, Features(
            xy=self.xy[rows],
            descriptors=descriptors[rows],
            offsets=before[self.offsets],
            scale=None if self.scale is None else self.scale[rows],
            orientation=None if self.orientation is None else self.orientation[rows],
            frame=self.frame,
        )

    @property
    def in_bytes(self) -> bool:
        """Whether the descriptors are as stored, a byte per number."""
        return self.descriptors.dtype in (np.uint8, np.int8)

    @cached_property
    def lengths(self) -> NDArray[np.float32]:
        """The length of each descriptor that is kept in bytes: (n,) float32."""
        return np.asarray(byte_lengths(self.descriptors))
