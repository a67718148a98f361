"""A global descriptor's network as it is read from a checkpoint, whoever published it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "GlobalCheckpoint", "Linear", "Pooling", "CheckpointWhitening"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


Pooling = Literal["gem", "max", "avg"]


Linear = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,)."""


@dataclass(frozen=True)
class CheckpointWhitening:
    """A learned linear map of descriptors, after which they are made unit again.

    Attributes
    ----------
    mean
        (d,) float64, subtracted first.
    projection
        (k, d) float64, rows by decreasing variance; the first ones alone reduce the dimension.
    """

    mean: NDArray[np.float64]
    projection: NDArray[np.float64]

    def __call__(
        self, descriptors: NDArray[np.float32], *, dimension: int | None = None
    ) -> NDArray[np.float64]:
        """Return the whitened unit rows, (n, dimension or k) float64, of descriptors (n, d)."""
        rows = (descriptors - self.mean) @ self.projection[:dimension].T
        unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


@dataclass(frozen=True, kw_only=True)
class GlobalCheckpoint:
    """What a global descriptor is made of, whichever family its file is of.

    Attributes
    ----------
    architecture
        Name of the torchvision network whose convolutions are used.
    trunk
        Their tensors, named as in the sequence of the network's children without the classifier.
    pooling, p
        Of the last feature map; `p`, (1,) or (d,), is GeM's learned power.
    aggregate
        The descriptor is the sum of the unit descriptors of R-MAC's regions, not of the whole map.
    unit_pooled
        The pooled vector is made unit before the `head`.
    center_bias
        Features in the middle of the map weigh up to this much more.
    local_whitening, region_whitening, head
        Linear layers on features, on pooled regions, and on the pooled vector.
    mean, std
        Of the input, for pixels in 0 .. 1.
    resize
        How scales are made: "input" shrinks the photo to the longest side by Lanczos' filter, then
        interpolates the network's input; "photo" resizes the photo by the antialiased bilinear filter.
    scale_power, scale_least
        Power of the mean over scales. Numbers nearer to zero than `scale_least` are set to it, with their
        sign, before each power; in deep-image-retrieval that lifts all to 0.01 at least.
    whitenings
        By name. They are no part of the descriptor; the names are those of the training sets.
    """

    architecture: str
    trunk: Mapping[str, Tensor]
    pooling: Pooling = "gem"
    p: Tensor = field(default_factory=lambda: torch.tensor([3.0]))
    aggregate: bool = False
    unit_pooled: bool = True
    center_bias: float = 0.0
    local_whitening: Linear | None = None
    region_whitening: Linear | None = None
    head: Linear | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: Literal["input", "photo"] = "input"
    scale_power: float = 1.0
    scale_least: float = 0.0
    whitenings: Mapping[str, CheckpointWhitening] = field(default_factory=dict)
