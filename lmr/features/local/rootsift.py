"""RootSIFT: local features without a network, from OpenCV's SIFT.

Lowe, *Distinctive image features from scale-invariant keypoints* (IJCV 2004); the square root of the
L1-normalised descriptor is from Arandjelovic and Zisserman, *Three things everyone should know to improve
object retrieval* (CVPR 2012): its dot product is the Hellinger kernel of two SIFT histograms.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.interfaces import LocalFeatures, Photo

__all__ = ["RootSift", "store"]

STORED_PER_UNIT = 512  # elements of real unit rows stay below 255 / 512


@dataclass(frozen=True)
class GreyPhoto:
    """A photo in grey, shrunk, and how many pixels of the photo make one of its: (x, y)."""

    grey: NDArray[np.uint8]
    zoom: NDArray[np.float64]


class RootSift:
    """Extracts RootSIFT features; a `LocalExtractor`.

    Parameters
    ----------
    max_features
        Features kept of a photo, the strongest.
    max_side_px
        Long side to which larger photos are shrunk first. Coordinates and scales are those of the photo as
        given.
    orientations
        "one": each place is described once. "all": once per dominant orientation, as Lowe does; that helps
        against rotation only, and spends 15 % of the features on it.
    contrast
        OpenCV's `contrastThreshold`. Its default, 0.04, leaves foggy and plain photos nearly without
        features; a lower value changes nothing for the others, whose strongest `max_features` are above it.

    Raises
    ------
    LmrError
        If a setting is out of range.
    """

    def __init__(
        self,
        *,
        max_features: int = 1000,
        max_side_px: int = 800,
        orientations: Literal["one", "all"] = "one",
        contrast: float = 0.01,
    ) -> None:
        if max_features < 1 or max_side_px < 16 or contrast < 0:
            raise LmrError(
                "RootSIFT cannot be extracted with these settings",
                got=f"max_features = {max_features}, max_side_px = {max_side_px}, contrast = {contrast}",
                fix="give max_features of at least 1, max_side_px of at least 16, contrast of at least 0",
            )
        if orientations not in ("one", "all"):
            raise LmrError("unknown orientations", got=repr(orientations), fix='choose "one" or "all"')
        self.max_features, self.max_side_px = max_features, max_side_px
        self.orientations, self.contrast = orientations, contrast
        self.name = "rootsift"
        self.dimension = 128
        self.storage: np.dtype[np.uint8] | np.dtype[np.float16] = np.dtype(np.uint8)
        self.needs_gpu = False

    def __call__(self, photos: Sequence[Photo]) -> list[LocalFeatures]:
        """Extract the features of each photo, the strongest first (then by y, x and orientation).

        Raises
        ------
        LmrError
            If a photo is not (height, width, 3) uint8.
        """
        return list(self.stream(self.prepare(photo) for photo in photos))

    def prepare(self, photo: Photo) -> GreyPhoto:
        """Return the photo in grey, shrunk to `max_side_px`."""
        return _shrunk(photo, self.max_side_px)

    def stream(self, photos: Iterable[GreyPhoto]) -> Iterator[LocalFeatures]:
        """Yield the features of photos that `prepare` returned."""
        return map(self._extract, photos)

    def _extract(self, photo: GreyPhoto) -> LocalFeatures:
        zoom = photo.zoom
        # OpenCV counts a place once per orientation; few places have two, so twice the number is enough.
        asked = self.max_features if self.orientations == "all" else 2 * self.max_features
        sift = cv2.SIFT.create(asked, contrastThreshold=self.contrast, enable_precise_upscale=True)
        points, histograms = sift.detectAndCompute(photo.grey, None)
        if not points:
            return _none(self.dimension)
        # Columns x, y, size, angle, score.
        found = np.array([(*p.pt, p.size, p.angle, p.response) for p in points], np.float32)
        order = np.lexsort((found[:, 2], found[:, 3], found[:, 0], found[:, 1], -found[:, 4]))
        if self.orientations == "one":
            order = order[_first_of_place(found[order][:, [0, 1, 4]])]
        order = order[: self.max_features]
        x, y, size, angle, score = found[order].T
        # The centre of the first pixel is 0 in both frames, its left edge -0.5.
        xy = (np.stack([x, y], axis=1) + 0.5) * zoom - 0.5
        return LocalFeatures(
            xy=xy.astype(np.float32),
            scale=(size * np.sqrt(zoom.prod())).astype(np.float32),
            orientation=np.deg2rad(angle).astype(np.float32),
            score=score.copy(),
            descriptor=store(histograms[order]),
        )


def store(histograms: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return SIFT histograms (n, 128) float32 as RootSIFT: round(512 x) of the unit rows x, at most 255.

    Measured on 27,000 features of the development set: the dot product of two rows changes by 0.0008 (root
    mean square), 98.5 % of 8,000 rows keep their nearest neighbour, and no element is clipped.
    `lmr.retrieval.descriptors.to_float` gives the unit rows back.
    """
    sums = histograms.sum(axis=1, keepdims=True)
    roots = np.sqrt(histograms / np.maximum(sums, np.finfo(np.float32).tiny))
    rounded: NDArray[np.uint8] = np.minimum(np.rint(STORED_PER_UNIT * roots), 255).astype(np.uint8)
    return rounded


def _shrunk(photo: Photo, max_side_px: int) -> GreyPhoto:
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise LmrError(
            "this is not a decoded photo",
            got=f"an array {photo.shape} of {photo.dtype}",
            fix="give (height, width, 3) uint8, as lmr.features.decoding.decode_photo does",
        )
    height, width = photo.shape[:2]
    shrink = min(1.0, max_side_px / max(width, height, 1))
    if width == 0 or height == 0:
        return GreyPhoto(np.zeros((1, 1), np.uint8), np.ones(2))
    grey = np.asarray(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), np.uint8)
    if shrink == 1.0:
        return GreyPhoto(grey, np.ones(2))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    return GreyPhoto(small, np.array([width / size[0], height / size[1]]))


def _first_of_place(places: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the rows (n, 3) that differ from the row before; rows of one place stand together."""
    first = np.ones(len(places), np.bool_)
    first[1:] = (places[1:] != places[:-1]).any(axis=1)
    return first


def _none(dimension: int) -> LocalFeatures:
    none = np.empty(0, np.float32)
    return LocalFeatures(
        xy=np.empty((0, 2), np.float32),
        scale=none,
        orientation=none,
        score=none,
        descriptor=np.empty((0, dimension), np.uint8),
    )
