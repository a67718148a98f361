"""Photos as networks take them: checked, and shrunk to the sizes at which they are described."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from lmr.errors import LmrError
from lmr.features.interfaces import Photo

__all__ = [
    "PreparedPhoto",
    "at_scales",
    "checked",
    "extract_each",
    "least_side",
    "resized",
    "shrunk",
    "shrunk_size",
]

Result = TypeVar("Result")


@dataclass(frozen=True)
class PreparedPhoto:
    """A photo as a network takes it; those with images of equal shapes can share a batch.

    Attributes
    ----------
    images
        The photo at each size that is made before the network, (height, width, 3) uint8 each.
    size
        (height, width) of the photo as it was given, pixels.
    """

    images: tuple[Photo, ...]
    size: tuple[int, int]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the images."""
        return tuple(image.shape for image in self.images)

    @property
    def pixels(self) -> int:
        """Pixels of the largest image."""
        return max(height * width for height, width, _ in self.shapes)


def extract_each(
    photos: Sequence[Photo],
    prepare: Callable[[Photo], PreparedPhoto],
    stream: Callable[[Iterable[PreparedPhoto]], Iterator[Result]],
) -> list[Result]:
    """Return the result of each photo, in order; those of equal shapes share batches."""
    prepared = [prepare(photo) for photo in photos]
    order = sorted(range(len(photos)), key=lambda i: prepared[i].shapes)
    results = dict(zip(order, stream(prepared[i] for i in order), strict=True))
    return [results[i] for i in range(len(photos))]


def checked(photo: Photo) -> Photo:
    """Return the photo if it is (height, width, 3) uint8 and not empty; else raise an LmrError."""
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise LmrError(
            "this is not a decoded photo",
            got=f"an array {photo.shape} of {photo.dtype}",
            fix="give (height, width, 3) uint8, as lmr.features.decoding.decode_photo does",
        )
    return photo


def resized(
    photo: Photo, width: int, height: int, filter_: Image.Resampling = Image.Resampling.BILINEAR
) -> Photo:
    """Return the photo at this size, antialiased where it shrinks."""
    if photo.shape[:2] == (height, width):
        return photo
    return np.asarray(Image.fromarray(photo).resize((width, height), filter_))


def shrunk(photo: Photo, max_side_px: int) -> Photo:
    """Return the photo with a long side of at most this many pixels."""
    height, width = shrunk_size(photo.shape[:2], max_side_px)
    return resized(photo, width, height)


def shrunk_size(size: tuple[int, ...], max_side_px: int) -> tuple[int, int]:
    """Return the height and width, rounded, that `shrunk` makes of a photo of this height and width."""
    height, width = size
    shrink = min(1.0, max_side_px / max(height, width))
    return max(1, int(0.5 + shrink * height)), max(1, int(0.5 + shrink * width))


def at_scales(
    photo: Photo, max_side_px: int, scales: Sequence[float], least_px: int, multiple_px: int = 1
) -> PreparedPhoto:
    """Return a photo, shrunk to a long side, at each of several scales.

    Parameters
    ----------
    photo
        (height, width, 3) uint8.
    max_side_px
        The long side to which a larger photo is shrunk.
    scales
        Of the shrunk photo.
    least_px
        No side becomes shorter: a photo that is too narrow is stretched.
    multiple_px
        Sides are rounded to multiples of this.
    """
    least = least_side(least_px, scales)
    small = shrunk(checked(photo), max_side_px)
    height, width = small.shape[:2]
    small = resized(small, max(width, least), max(height, least))

    def side(px: int, scale: float) -> int:
        return max(least_px, int(0.5 + scale * px / multiple_px) * multiple_px)

    height, width = small.shape[:2]
    images = tuple(resized(small, side(width, scale), side(height, scale)) for scale in scales)
    return PreparedPhoto(images, photo.shape[:2])


def least_side(least_px: int, scales: Sequence[float]) -> int:
    """Return the shortest side, pixels, that the smallest scale leaves with `least_px`."""
    return int(np.ceil(least_px / min(scales)))
