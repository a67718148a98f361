"""Extractors by name. A network's module is imported when it is asked for, so that torch stays optional."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len

from lmr.errors import ClusterError, LmrError
from lmr.features.interfaces import GlobalExtractor, LocalExtractor

__all__ = ["DIMENSIONS", "GemSettings", "LocalKind", "Precision", "global_extractor", "local_extractor"]

Architecture = Literal["resnet18", "resnet50", "resnet101", "resnet152", "vgg16", "mobilenet_v2"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
LocalKind = Literal["rootsift", "delf", "xfeat", "aliked-t16", "aliked-n16"]

DIMENSIONS: dict[LocalKind, int] = {
    "rootsift": 128,
    "delf": 40,
    "xfeat": 64,
    "aliked-t16": 64,
    "aliked-n16": 128,
}
"""Numbers in a descriptor of each kind."""


@dataclass(frozen=True, kw_only=True)
class GemSettings:
    """What a file of weights does not say of itself, and the sizes at which photos are described."""

    architecture: Architecture = "mobilenet_v2"
    """Of a torchvision state dict; the published checkpoints know their own."""
    input: Literal["imagenet", "half"] = "half"
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


@lru_cache(maxsize=2)
def local_extractor(
    kind: LocalKind, max_features: int, max_side_px: int, weights: str, device: str, precision: Precision
) -> LocalExtractor:
    """Return a local extractor, the same one for the same arguments (a worker loads a network once).

    Parameters
    ----------
    kind
        Which one.
    max_features
        Features kept per photo, the strongest first.
    max_side_px
        Long side, pixels, to which photos are shrunk before extraction.
    weights
        File (of DELF, the folder of the released model) on this machine or on storage that it mounts; not
        looked at for RootSIFT.
    device
        "cpu" or "cuda".
    precision
        Of DELF's convolutions. The other networks are small and run in float32: keypoints move with the
        rounding of less.

    Raises
    ------
    ClusterError
        If the kind is a network and torch is not installed on this worker.
    LmrError
        If the weights cannot be read or are not of this kind, or it does not run in this precision.
    """
    if kind == "rootsift":
        from lmr.features.local.rootsift import RootSift

        return RootSift(max_features=max_features, max_side_px=max_side_px)
    with _needs_torch():
        from lmr.features.local.delf import load_delf
        from lmr.features.local.learned import load_aliked, load_xfeat

    path = Path(weights)
    if kind == "delf":
        return load_delf(
            path,
            max_features=max_features,
            max_side_px=max_side_px,
            device=device,
            precision=None if precision == "auto" else precision,
        )
    if precision not in ("auto", "float32"):
        raise LmrError(f"{kind} runs in float32 only", got=precision, fix="leave local.precision out")
    if kind == "xfeat":
        return load_xfeat(path, max_features=max_features, max_side_px=max_side_px, device=device)
    return load_aliked(path, variant=kind, max_features=max_features, max_side_px=max_side_px, device=device)


@lru_cache(maxsize=2)
def global_extractor(settings: GemSettings, weights: str, device: str) -> GlobalExtractor:
    """Return the extractor of GeM descriptors, the same one for the same arguments.

    Parameters
    ----------
    settings
        What the weights do not say.
    weights
        File of the weights, on this machine or on storage that it mounts.
    device
        "cpu" or "cuda".

    Raises
    ------
    ClusterError
        If torch is not installed on this worker.
    """
    with _needs_torch():
        from lmr.features.networks.gem import load_gem

    return load_gem(
        Path(weights),
        architecture=settings.architecture,
        input=settings.input,
        p=settings.p,
        max_side_px=max(settings.sizes_px, default=0),
        scales=settings.scales,
        sizes_px=None if settings.scales else settings.sizes_px,
        device=device,
        precision=None if settings.precision == "auto" else settings.precision,
    )


@contextmanager
def _needs_torch() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClusterError(
            "this worker cannot run networks",
            got=str(error),
            fix="install the extra on it: pip install 'lmr[features]'",
        ) from error
