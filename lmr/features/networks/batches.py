"""Photos in batches of equal size, as large as memory allows, in the order in which they came.

A batch is launched, then the one before it is finished: on a GPU the host uploads and queues the next
batch while the device works, and waits only for results that are needed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmr.errors import LmrError
from lmr.features.interfaces import Photo
from lmr.features.prepared import PreparedPhoto

__all__ = ["Batches", "Landing", "download", "upload"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Landing:
    """Results on their way from the device, in the order in which they were queued."""

    tensors: tuple[Tensor, ...]
    landed: torch.cuda.Event | None

    def arrays(self) -> list[NDArray[Any]]:
        """Wait for them, and for nothing that was queued later."""
        if self.landed is not None:
            self.landed.synchronize()
        return [tensor.numpy() for tensor in self.tensors]


Launch = Callable[[list[PreparedPhoto]], Landing]
Finish = Callable[[Landing, list[PreparedPhoto]], Sequence[Result]]


class Batches:
    """Runs a network over photos, in batches of consecutive photos of one size.

    When the device's memory runs out, the batch is halved, and later ones stay as small.

    Parameters
    ----------
    pixels
        Most pixels in a batch (but always one photo).
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def run(
        self, photos: Iterable[PreparedPhoto], launch: Launch, finish: Finish[Result]
    ) -> Iterator[Result]:
        """Yield the result of each photo, in order.

        Parameters
        ----------
        photos
            Taken from the iterable as they are needed: at most two batches are held.
        launch
            Queues the network's work on photos of equal shapes.
        finish
            Makes a result for each photo of a batch that was launched.

        Raises
        ------
        LmrError
            If memory does not suffice for a single photo.
        """
        flying: tuple[Landing, list[PreparedPhoto]] | None = None
        for rest in self._alike(photos):
            while rest:
                batch = rest[: self._room(rest[0])]
                landing, lacking = _launched(launch, batch)
                if flying is not None:
                    yield from finish(*flying)
                    flying = None
                elif lacking is not None and len(batch) == 1:
                    height, width = batch[0].size
                    raise LmrError(
                        "the device has too little memory for one photo",
                        got=f"{width} x {height} px; {lacking}",
                        fix="give a smaller max_side_px, or leave the device to one process",
                    )
                if landing is None:
                    self.pixels = max(1, len(batch) // 2) * batch[0].pixels
                    torch.cuda.empty_cache()
                    continue
                flying, rest = (landing, batch), rest[len(batch) :]
        if flying is not None:
            yield from finish(*flying)

    def _alike(self, photos: Iterable[PreparedPhoto]) -> Iterator[list[PreparedPhoto]]:
        """Yield consecutive photos of equal shapes, as many as fill a batch."""
        waiting: list[PreparedPhoto] = []
        for photo in photos:
            if waiting and photo.shapes != waiting[0].shapes:
                yield waiting
                waiting = []
            waiting.append(photo)
            if len(waiting) >= self._room(photo):
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _room(self, photo: PreparedPhoto) -> int:
        return max(1, self.pixels // photo.pixels)


def _launched(launch: Launch, batch: list[PreparedPhoto]) -> tuple[Landing | None, str | None]:
    """Return what was launched, or what torch said of its memory.

    The error itself ends here: its traceback holds the tensors that made memory run out.
    """
    try:
        return launch(batch), None
    except torch.OutOfMemoryError as error:
        return None, str(error)


def upload(photos: Sequence[Photo], device: torch.device) -> Tensor:
    """Return photos of one size as (n, 3, height, width) float32 in 0 .. 255 on the device, channels last.

    To a GPU they travel from pinned memory, and the host does not wait for them.
    """
    # (n, height, width, 3) in memory is "channels last" to torch, and a quarter of the bytes of float32.
    shape = (len(photos), *photos[0].shape)
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(photos, out=pixels.numpy())
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()


def download(*tensors: Tensor) -> Landing:
    """Queue the copies of tensors to the host, behind the work that makes them."""
    if tensors[0].device.type != "cuda":
        return Landing(tensors, None)
    copies = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)  # into pinned memory
    landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
    landed.record()
    return Landing(copies, landed)
