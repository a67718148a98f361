"""DELF's network: a slim ResNet-50 up to its third block, with attention over the features.

It differs from torchvision's ResNet-50: a block strides in the 3x3 convolution of its last unit, padded by
zeros on every side, and the shortcut there takes every second pixel.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from lmr.errors import LmrError

__all__ = ["DEPTH", "DelfNetwork", "Weights", "weight_of"]

DEPTH = 1024
UNITS = (
    (3, 64),
    (4, 128),
    (6, 256),
)  # of each block: how many, and their inner depth; outside it is fourfold
NORM_EPSILON = 1.001e-5

Weights = Mapping[str, NDArray[np.float32]]


class DelfNetwork(nn.Module):
    """From normalised images to features and their attention.

    Parameters
    ----------
    weights
        By the names of the released checkpoint. Batch norms are folded into their convolutions.

    Raises
    ------
    LmrError
        If a tensor is missing, or of another shape than the released one.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        depth = 64
        self.conv1 = _normed(weights, "resnet_v1_50/conv1", (7, 7, 3, depth), stride=2)
        units = []
        for block, (count, inner) in enumerate(UNITS, 1):
            for unit in range(1, count + 1):
                name = f"resnet_v1_50/block{block}/unit_{unit}/bottleneck_v1"
                units.append(_Unit(weights, name, depth, inner, stride=2 if unit == count else 1))
                depth = 4 * inner
        self.units = nn.Sequential(*units)
        self.attention1 = _normed(weights, "attonly/attention/compute/conv1", (1, 1, DEPTH, 512))
        last = "attonly/attention/compute/conv2"
        kernel, bias = (
            weight_of(weights, f"{last}/weights", (1, 1, 512, 1)),
            weight_of(weights, f"{last}/biases", (1,)),
        )
        self.attention2 = _convolution(kernel.astype(np.float64), bias.astype(np.float64))

    def features(self, images: Tensor) -> Tensor:
        """Return (n, 1024, rows, columns) features of images (n, 3, height, width)."""
        first = max_pool2d(relu(self.conv1(images)), 3, stride=2, padding=1)
        return cast("Tensor", self.units(first))

    def logits(self, features: Tensor) -> Tensor:
        """Return (n, rows, columns): attention before the softplus."""
        return cast("Tensor", self.attention2(relu(self.attention1(features))))[:, 0]


class _Unit(nn.Module):
    """A bottleneck: 1x1, 3x3, 1x1, added to its input."""

    def __init__(self, weights: Weights, name: str, depth: int, inner: int, *, stride: int) -> None:
        super().__init__()
        self.stride, outer = stride, 4 * inner
        self.conv1 = _normed(weights, f"{name}/conv1", (1, 1, depth, inner))
        self.conv2 = _normed(weights, f"{name}/conv2", (3, 3, inner, inner), stride=stride)
        self.conv3 = _normed(weights, f"{name}/conv3", (1, 1, inner, outer))
        has_shortcut = depth != outer  # the first unit of a block
        self.shortcut = _normed(weights, f"{name}/shortcut", (1, 1, depth, outer)) if has_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv3(relu(self.conv2(relu(self.conv1(x)))))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return relu(residual + shortcut[:, :, :: self.stride, :: self.stride])


def _normed(weights: Weights, name: str, shape: tuple[int, ...], *, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with its batch norm folded in; (height, width, in, out) is its shape."""
    kernel = weight_of(weights, f"{name}/weights", shape).astype(np.float64)
    gamma, beta, mean, variance = (
        weight_of(weights, f"{name}/BatchNorm/{part}", shape[3:]).astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    factor = gamma / np.sqrt(variance + NORM_EPSILON)
    return _convolution(kernel * factor, beta - mean * factor, stride=stride)


def _convolution(kernel: NDArray[np.float64], bias: NDArray[np.float64], *, stride: int = 1) -> nn.Conv2d:
    size, _, inputs, outputs = kernel.shape
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, device="meta")
    tensors = {"weight": kernel.transpose(3, 2, 0, 1), "bias": bias}
    layer.load_state_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in tensors.items()}, assign=True)
    return layer


def weight_of(weights: Weights, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a tensor, after looking whether it is there and of this shape; else raise an LmrError."""
    if name not in weights or weights[name].shape != shape:
        raise LmrError(
            f"these are not the weights of DELF: {name} should be {shape}",
            got=str(weights[name].shape) if name in weights else "no such tensor",
            fix="give the released model of 2017, see: lmr weights list",
        )
    return weights[name]
