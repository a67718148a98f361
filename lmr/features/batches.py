"""Photos in batches of equal size, as large as memory allows, in the order in which they came."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lmr.errors import LmrError
from lmr.features.interfaces import Photo

__all__ = ["Batches", "checked", "resized", "shrunk", "shrunk_size", "upload"]

Result = TypeVar("Result")


class Batches:
    """Runs a function over photos, in batches of photos of one size.

    When the device's memory runs out, the batch is halved, and later ones stay as small.

    Parameters
    ----------
    pixels
        Most pixels in a batch (but always one photo).
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def run(
        self, photos: Sequence[Photo], function: Callable[[list[Photo]], Sequence[Result]]
    ) -> list[Result]:
        """Return the function's result for each photo.

        Parameters
        ----------
        photos
            Decoded photos of any sizes.
        function
            Takes photos of one size and returns a result for each.

        Raises
        ------
        LmrError
            If memory does not suffice for a single photo.
        """
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for position, photo in enumerate(photos):
            by_size[photo.shape].append(position)
        results: dict[int, Result] = {}
        for (height, width, _), waiting in by_size.items():
            while waiting:
                batch = waiting[: max(1, self.pixels // (height * width))]
                try:
                    outputs = function([photos[position] for position in batch])
                except torch.OutOfMemoryError as error:
                    if len(batch) == 1:
                        raise LmrError(
                            "the device has too little memory for one photo",
                            got=f"{width} x {height} px; {error}",
                            fix="give a smaller max_side_px, or leave the device to one process",
                        ) from error
                    self.pixels = len(batch) // 2 * height * width
                    torch.cuda.empty_cache()
                    continue
                results.update(zip(batch, outputs, strict=True))
                waiting = waiting[len(batch) :]
        return [results[position] for position in range(len(photos))]


def checked(photos: Sequence[Photo]) -> Sequence[Photo]:
    """Return the photos if they are all (height, width, 3) uint8 and not empty; else raise an LmrError."""
    for photo in photos:
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
            raise LmrError(
                "this is not a decoded photo",
                got=f"an array {photo.shape} of {photo.dtype}",
                fix="give (height, width, 3) uint8, as lmr.features.decode.decode_photo does",
            )
    return photos


def resized(
    photo: Photo, width: int, height: int, filter_: Image.Resampling = Image.Resampling.BILINEAR
) -> Photo:
    """Return the photo at this size, antialiased where it shrinks."""
    if photo.shape[:2] == (height, width):
        return photo
    return np.asarray(Image.fromarray(photo).resize((width, height), filter_))


def shrunk(photo: Photo, max_side_px: int) -> Photo:
    """Return the photo with a long side of at most this many pixels."""
    height, width = shrunk_size(photo, max_side_px)
    return resized(photo, width, height)


def shrunk_size(photo: Photo, max_side_px: int) -> tuple[int, int]:
    """Return the height and width, rounded, that `shrunk` makes."""
    height, width = photo.shape[:2]
    shrink = min(1.0, max_side_px / max(height, width))
    return max(1, int(0.5 + shrink * height)), max(1, int(0.5 + shrink * width))


def upload(photos: Sequence[Photo], device: torch.device) -> Tensor:
    """Return photos of one size as (n, 3, height, width) float32 in 0 .. 255 on the device, channels last."""
    pixels = torch.from_numpy(np.stack(photos))
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    # (n, height, width, 3) in memory is "channels last" to torch, and a quarter of the bytes of float32.
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
