"""Settings of networks: what a file of weights does not say of itself."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len

__all__ = ["LEAST_SIDE_PX", "Architecture", "GemSettings", "Input", "OnnxSettings", "Pooling", "Precision"]

Architecture = Literal[
    "resnet18", "resnet50", "resnet101", "resnet152", "vgg16", "mobilenet_v2", "efficientnet_lite0"
]
Input = Literal["imagenet", "half"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
Pooling = Literal["auto", "gem", "avg", "max", "cls"]
Mean = Annotated[float, Ge(-1_000), Le(1_000)]
Deviation = Annotated[float, Gt(0), Le(1_000)]
LEAST_SIDE_PX = 32
"""No image that a network sees has a shorter side."""


@dataclass(frozen=True, kw_only=True)
class GemSettings:
    """What a file of weights does not say of itself, and the sizes at which photos are described."""

    architecture: Architecture = "mobilenet_v2"
    """Of a torchvision state dict; the published checkpoints know their own."""
    input: Input = "half"
    """How pixels are normalised, of a torchvision state dict: by ImageNet's figures, or to -1 .. 1."""
    p: Annotated[float, Gt(0), Le(1_000)] = 3.0
    """GeM's power, of a torchvision state dict."""
    sizes_px: Annotated[tuple[Annotated[int, Ge(16), Le(65_535)], ...], Len(1, 16)] = (640, 320)
    """Long sides at which a photo is described; regions come from the largest."""
    scales: Annotated[tuple[Annotated[float, Gt(0), Le(16)], ...], Len(0, 16)] = ()
    """In place of several sizes: scales of the photo at the largest of `sizes_px`, made as the checkpoint's
    authors make them; 1, 0.7071 and 0.5 are the papers'."""
    precision: Precision = "auto"
    """Of the convolutions: float16 on GPUs and float32 on CPUs ("auto"), or one of these everywhere."""


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """What an ONNX model does not say of itself."""

    input: Annotated[str, Len(0, 1_000)] = ""
    """Name of the input; empty: the only one."""
    output: Annotated[str, Len(0, 1_000)] = ""
    """Name of the output; empty: the first."""
    mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    """Subtracted from pixels in 0 .. 1 (red, green, blue)."""
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    """Pixels are divided by this then."""
    sizes_px: Annotated[tuple[Annotated[int, Ge(LEAST_SIDE_PX), Le(65_535)], ...], Len(1, 16)] = (640, 320)
    """Long sides at which a photo is described; a model with a fixed size has that one only."""
    multiple_px: Annotated[int, Ge(1), Le(65_535)] = 1
    """Sides are rounded to multiples of this, such as a transformer's patch."""
    fit: Literal["stretch", "crop"] = "stretch"
    """How a photo becomes a fixed size: all of it stretched, or its middle cut out."""
    pooling: Pooling = "auto"
    """How a map or tokens become one vector; auto: "gem" of a map, the first token ("cls") of tokens."""
    p: Annotated[float, Gt(0), Le(1_000)] = 3.0
    """GeM's power."""
    extra_tokens: Annotated[int, Ge(0), Le(65_535)] = 1
    """Tokens before those of patches (CLS, registers), which avg, max and gem leave out."""
