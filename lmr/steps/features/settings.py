"""Settings of the global descriptor."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le, Len
from pydantic import AfterValidator

from lmr.features.extractors import GemSettings, OnnxSettings, known_global
from lmr.runtime.settings import ADDED_LATER, Seed, Settings

__all__ = ["DescribeSettings"]


@dataclass(frozen=True, kw_only=True)
class DescribeSettings(Settings):
    """Settings of `extract_global`."""

    descriptor: Annotated[str, Len(1, 1_000), AfterValidator(known_global)] = "vlad"
    """Which descriptor: a name in the table of extractors, or `my_module.py:Extractor`."""
    dimension: Annotated[int, Ge(2), Le(65_536)] = 256
    """Dimensions after whitening."""
    whitening: Literal["gallery", "checkpoint"] = "gallery"
    """Learned on the gallery itself, or the one that came with GeM's weights (`Lw`, `pca`)."""
    whitening_name: Annotated[str, Len(0, 100)] = ""
    """Which of those that came with the weights, by training set; empty: the only one."""
    power: Annotated[float, Ge(0), Le(1)] = 0.25
    """Of whitening on the gallery: coordinates are divided by eigenvalue ** power; 0.5 is full, 0 rotates."""
    words: Annotated[int, Ge(1), Le(65_536)] = 64
    """Visual words of VLAD (32 are enough for triangulation)."""
    gem: GemSettings = field(default_factory=GemSettings)
    """The network of GeM, and the sizes at which networks but ONNX models describe a photo."""
    onnx: OnnxSettings = field(default_factory=OnnxSettings, metadata=ADDED_LATER)
    """What an ONNX model does not say of itself."""
    region_scales: Annotated[int, Ge(1), Le(10)] = 3
    """Scales of the R-MAC grid that regions come from."""
    sample_features: Annotated[int, Ge(1), Le(1_000_000_000)] = 500_000
    """Local features that words are learned from."""
    sample_photos: Annotated[int, Ge(2), Le(10_000_000)] = 5_000
    """Gallery photos that the whitening is learned from."""
    seed: Seed = 0
    """Of samples and k-means."""
