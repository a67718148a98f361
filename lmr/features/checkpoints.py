"""Checkpoints of global descriptors as their authors distribute them, read without running what is in them.

Three families, told apart by their contents:

- cnnimageretrieval-pytorch (Radenović et al., TPAMI 2019): `meta` and `state_dict`;
- deep-image-retrieval (Naver; Revaud et al., ICCV 2019): `model_options`, `state_dict`, a pickled PCA;
- a state dict of a torchvision network, as .pth or .safetensors.
"""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmr.errors import LmrError

__all__ = [
    "GlobalCheckpoint",
    "Linear",
    "Whitening",
    "pca_whitening",
    "read_global_checkpoint",
    "read_safetensors",
    "read_torch_file",
]

Pooling = Literal["gem", "max", "avg"]
Linear = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,)."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Children of a torchvision ResNet, as they are numbered in cnnimageretrieval-pytorch.
RESNET_NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


@dataclass(frozen=True)
class Whitening:
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
    whitenings: Mapping[str, Whitening] = field(default_factory=dict)


class _Pca:
    """Stands in for scikit-learn's PCA while unpickling: it holds the attributes and has no code."""

    mean_: NDArray[np.float64]
    components_: NDArray[np.float64]
    explained_variance_: NDArray[np.float64]


def _allowed() -> list[Any]:
    """Return what a checkpoint may name beyond the plain data and tensors that torch allows by itself."""
    core = np._core.multiarray  # type: ignore[attr-defined]  # where NumPy's own pickles point
    return [
        *((core._reconstruct, f"numpy.{place}.multiarray._reconstruct") for place in ("core", "_core")),
        *((core.scalar, f"numpy.{place}.multiarray.scalar") for place in ("core", "_core")),
        np.ndarray,
        np.dtype,
        *(type(np.dtype(code)) for code in ("f8", "f4", "i8", "i4", "?")),
        *((_Pca, f"sklearn.decomposition.{place}.PCA") for place in ("pca", "_pca")),
    ]


def read_torch_file(path: Path) -> Any:
    """Read a file written by `torch.save` to the CPU, without running code that it names.

    Tensors and plain data are read by torch's own restricted unpickler, with NumPy arrays and, as a plain
    holder of attributes, scikit-learn's PCA (under its present and its old path) allowed besides; anything
    else is refused.

    Raises
    ------
    LmrError
        If the file is missing or damaged, or names anything else.
    """
    if not path.is_file():
        raise LmrError(f"there are no weights at {path}", fix="check the path, or see: lmr weights list")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), None)
        if named is None:
            raise _damaged(path, error) from error
        raise LmrError(
            f"{path} names code that no checkpoint needs; it was not run",
            got=named,
            fix="use the file from its publisher, or convert it to safetensors where you trust it",
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
    ) as error:
        raise _damaged(path, error) from error


def read_global_checkpoint(
    path: Path,
    *,
    architecture: str | None = None,
    p: float = 3.0,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> GlobalCheckpoint:
    """Read a checkpoint of any of the three families.

    Parameters
    ----------
    path
        A .pth, .pt or .safetensors file.
    architecture, p, mean, std
        Of a torchvision state dict, which does not say. The other families name their own.

    Raises
    ------
    LmrError
        If the file cannot be read, or is of no known family.
    """
    if path.suffix == ".safetensors":
        from lmr.features.convert import read_converted

        if (converted := read_converted(path)) is not None:
            return converted
        content: Any = read_safetensors(path)
    else:
        content = read_torch_file(path)
    if not isinstance(content, Mapping):
        raise LmrError(
            f"{path} is not a checkpoint", got=f"a {type(content).__name__}", fix="give a state dict"
        )
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise LmrError(
            f"{path} is not a known kind of checkpoint",
            got=f"entries {', '.join(map(str, list(content)[:5]))}",
            fix="give one of cnnimageretrieval-pytorch or deep-image-retrieval, or a torchvision state dict",
        )
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    try:
        if "meta" in content:
            return _cirtorch(content["meta"], state)
        if "model_options" in content:
            return _naver(content, state)
    except (KeyError, TypeError, AttributeError) as error:
        raise LmrError(f"{path} lacks a part of its family's checkpoints", got=repr(error)) from error
    if architecture is None:
        raise LmrError(
            f"{path} is a plain state dict, which does not say of which network",
            fix="name its architecture, for instance resnet50",
        )
    power = torch.tensor([p])
    return GlobalCheckpoint(
        architecture=architecture, trunk=_trunk(state), p=power, mean=mean, std=std, scale_power=p
    )


def _cirtorch(meta: Mapping[str, Any], state: Mapping[str, Tensor]) -> GlobalCheckpoint:
    pooling, regional = meta["pooling"], meta.get("regional", False)
    kinds: dict[str, Pooling] = {"gem": "gem", "gemmp": "gem", "mac": "max", "rmac": "max", "spoc": "avg"}
    if pooling not in kinds:
        raise LmrError("unknown pooling", got=repr(pooling), fix=f"known are {', '.join(kinds)}")
    p = state.get("pool.rpool.p" if regional else "pool.p", torch.tensor([3.0]))
    head = _linear(state, "whiten") if meta.get("whitening", False) else None
    plain_gem = pooling == "gem" and not regional and head is None
    return GlobalCheckpoint(
        architecture=meta["architecture"],
        trunk=_trunk(state),
        pooling=kinds[pooling],
        p=p,
        aggregate=regional or pooling == "rmac",
        local_whitening=_linear(state, "lwhiten") if meta.get("local_whitening", False) else None,
        region_whitening=_linear(state, "pool.whiten") if regional else None,
        head=head,
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        scale_power=float(p) if plain_gem else 1.0,
        whitenings={
            f"{dataset}/{scales}": Whitening(
                np.asarray(lw["m"], np.float64)[:, 0], np.asarray(lw["P"], np.float64)
            )
            for dataset, by_scales in meta.get("Lw", {}).items()
            for scales, lw in by_scales.items()
        },
    )


def _naver(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> GlobalCheckpoint:
    options = content["model_options"]
    architecture, is_rmac, _ = options["arch"].partition("_rmac")
    kind = options.get("pooling", "gem")
    pooling: Pooling = "gem" if kind.startswith("gem") else kind
    if not is_rmac or pooling not in ("gem", "max", "avg"):
        raise LmrError(
            "this network of deep-image-retrieval is not supported", got=f"{options['arch']}, {kind}"
        )
    preprocess = content.get("preprocess", {})
    return GlobalCheckpoint(
        architecture=architecture,
        trunk=_trunk(state),
        pooling=pooling,
        p=state.get("adpool.p", torch.tensor([float(options.get("gemp", 3))])),
        unit_pooled=bool(options.get("norm_features", False)),
        center_bias=float(options.get("center_bias", 0)),
        head=None if options.get("without_fc", False) else _linear(state, "fc"),
        mean=tuple(preprocess.get("mean", IMAGENET_MEAN)),
        std=tuple(preprocess.get("std", IMAGENET_STD)),
        resize="photo",
        scale_power=3.0,
        scale_least=1e-6,
        whitenings={name: pca_whitening(pca) for name, pca in content.get("pca", {}).items()},
    )


def pca_whitening(pca: Any, *, power: float = 0.25, multiplier: float = 1.0) -> Whitening:
    """Return the whitening of deep-image-retrieval from a PCA: divide by multiplier * variance ** power.

    Its authors' own default power is 0.25; a true whitening has 0.5.
    """
    stretch = multiplier * np.power(pca.explained_variance_, power)
    return Whitening(pca.mean_, pca.components_ / stretch[:, None])


def _trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    trunk = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if first == "features":
            trunk[rest] = tensor
        elif first in RESNET_NUMBERS:
            trunk[f"{RESNET_NUMBERS[first]}.{rest}"] = tensor
    return trunk


def _linear(state: Mapping[str, Tensor], name: str) -> Linear:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file.

    Raises
    ------
    LmrError
        If the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise LmrError(f"there are no weights at {path}", fix="check the path, or see: lmr weights list")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error
    return tensors


def _damaged(path: Path, error: Exception) -> LmrError:
    return LmrError(f"{path} is damaged, or not a file of weights", got=str(error), fix="fetch it again")
