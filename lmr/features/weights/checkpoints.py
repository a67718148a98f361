"""Checkpoints of global descriptors as their authors distribute them, read without running what is in them.

Three families, told apart by their contents:

- cnnimageretrieval-pytorch (Radenović et al., TPAMI 2019): `meta` and `state_dict`;
- deep-image-retrieval (Naver; Revaud et al., ICCV 2019): `model_options`, `state_dict`, a pickled PCA;
- a state dict of a torchvision network, as .pth or .safetensors.
"""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmr.errors import LmrError, one_line
from lmr.features.weights.converted import read_converted
from lmr.features.weights.files import read_safetensors, read_torch_file
from lmr.features.weights.global_checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CheckpointWhitening,
    GlobalCheckpoint,
    Linear,
    Pooling,
)

__all__ = ["pca_whitening", "read_global_checkpoint"]

# Children of a torchvision ResNet, as they are numbered in cnnimageretrieval-pytorch.
RESNET_NUMBERS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


def read_global_checkpoint(
    path: str | PathLike[str],
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
    path = Path(path)
    if path.suffix == ".safetensors":
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
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    try:
        if "meta" in content:
            return _cirtorch(content["meta"], state)
        if "model_options" in content:
            return _naver(content, state)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise LmrError(
            f"{path} lacks a part of its family's checkpoints",
            got=one_line(error, 300),
            fix="give the published file; if this is it, fetch it again",
        ) from error
    if architecture is None:
        raise LmrError(
            f"{path} is a plain state dict, which does not say of which network",
            fix="name its architecture, for instance resnet50",
        )
    power = torch.tensor([p])
    return GlobalCheckpoint(
        architecture=architecture,
        trunk=_lite0(state) if architecture == "efficientnet_lite0" else _trunk(state),
        p=power,
        mean=mean,
        std=std,
        scale_power=p,
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
            f"{dataset}/{scales}": CheckpointWhitening(
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


def pca_whitening(pca: Any, *, power: float = 0.25, multiplier: float = 1.0) -> CheckpointWhitening:
    """Return the whitening of deep-image-retrieval from a PCA: divide by multiplier * variance ** power.

    Its authors' own default power is 0.25; a true whitening has 0.5.
    """
    stretch = multiplier * np.power(pca.explained_variance_, power)
    return CheckpointWhitening(pca.mean_, pca.components_ / stretch[:, None])


def _trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    trunk = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if first == "features":
            trunk[rest] = tensor
        elif first in RESNET_NUMBERS:
            trunk[f"{RESNET_NUMBERS[first]}.{rest}"] = tensor
    return trunk


def _lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("_fc.")}


def _linear(state: Mapping[str, Tensor], name: str) -> Linear:
    return state[f"{name}.weight"], state[f"{name}.bias"]
