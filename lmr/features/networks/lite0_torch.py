"""EfficientNet-Lite0 in torch, for GPUs; `lite0` has the same network for CPUs without torch."""

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import pad

from lmr.features.networks.lite0 import BLOCKS, DEPTH, NORM_EPSILON, Block

__all__ = ["Lite0"]


class _Conv(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME" does."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max(0, (-(-s // stride) - 1) * stride + kernel - s) for s in x.shape[2:])
        if height or width:
            x = pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


class _Block(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        wide = block.inputs * block.expansion
        self.skips, self.expands = block.skips, block.expansion > 1
        if self.expands:
            self._expand_conv = _Conv(block.inputs, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, NORM_EPSILON)
        self._depthwise_conv = _Conv(wide, wide, block.kernel, block.stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, NORM_EPSILON)
        self._project_conv = _Conv(wide, block.outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(block.outputs, NORM_EPSILON)
        self.relu = nn.ReLU6()

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        if self.expands:
            x = self.relu(self._bn0(self._expand_conv(x)))
        x = self.relu(self._bn1(self._depthwise_conv(x)))
        x = cast("Tensor", self._bn2(self._project_conv(x)))
        return x + inputs if self.skips else x


class Lite0(nn.Module):
    """From images (n, 3, height, width) to features (n, 1280, rows, columns); names are the state dict's."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Conv(3, BLOCKS[0].inputs, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(BLOCKS[0].inputs, NORM_EPSILON)
        self._blocks = nn.Sequential(*map(_Block, BLOCKS))
        self._conv_head = _Conv(BLOCKS[-1].outputs, DEPTH, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(DEPTH, NORM_EPSILON)
        self.relu = nn.ReLU6()

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map."""
        x = self._blocks(self.relu(self._bn0(self._conv_stem(images))))
        features: Tensor = self.relu(self._bn1(self._conv_head(x)))
        return features
