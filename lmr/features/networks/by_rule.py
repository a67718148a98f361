"""Weights by rule: the checkpoints behind the golden outputs, made again from the names of their tensors.

The rules are those that the READMEs of the golden folders state. Tests and benchmarks use them in place of
published weights, which do not come along.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmr.features.networks._torchvision import torchvision

__all__ = ["cirtorch_checkpoint", "naver_checkpoint", "write_delf_variables"]

Shape = tuple[int, ...]


def _stream(name: str) -> np.random.Generator:
    """Return the random stream that belongs to a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def _global_tensor(name: str, shape: Shape, *, in_batch_norm: bool, residual_end: str) -> torch.Tensor:
    """Return one float32 tensor of a global descriptor's network."""
    r = _stream(name)
    leaf = name.rpartition(".")[2]
    value: Any
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if leaf == "p":
        value = 2.5 + r.random(shape)
    elif in_batch_norm and leaf == "weight":
        value = (0.5 + r.random(shape)) * (0.2 if name.endswith(residual_end) else 1.0)
    elif leaf == "running_var":
        value = 0.5 + r.random(shape)
    elif leaf == "running_mean" or (in_batch_norm and leaf == "bias"):
        value = 0.1 * r.standard_normal(shape)
    elif leaf == "bias":
        value = 0.01 * r.standard_normal(shape)
    else:
        value = r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value).astype(np.float32))


def _state(shapes: Mapping[str, Shape], architecture: str) -> dict[str, torch.Tensor]:
    ends = {"resnet18": "bn2.weight", "resnet50": "bn3.weight", "resnet101": "bn3.weight", "vgg16": "-"}
    return {
        name: _global_tensor(
            name,
            shape,
            in_batch_norm=f"{name.rpartition('.')[0]}.running_mean" in shapes,
            residual_end=ends[architecture],
        )
        for name, shape in shapes.items()
    }


def _network(architecture: str) -> Any:
    with torch.device("meta"):
        return getattr(torchvision().models, architecture)(weights=None)


def cirtorch_checkpoint(net: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as cnnimageretrieval-pytorch saves it, for a net of `gem_cirtorch/cases.json`."""
    meta = dict(net["meta"])
    network, d = _network(meta["architecture"]), meta["outputdim"]
    if meta["architecture"].startswith("vgg"):
        layers = network.features[:-1]
    else:
        layers = torch.nn.Sequential(*list(network.children())[:-2])
    shapes = {f"features.{name}": tuple(tensor.shape) for name, tensor in layers.state_dict().items()}
    pool = "pool.rpool" if meta["regional"] else "pool"
    if meta["pooling"].startswith("gem"):
        shapes[f"{pool}.p"] = (d,) if meta["pooling"] == "gemmp" else (1,)
    parts = {"lwhiten": "local_whitening", "pool.whiten": "regional", "whiten": "whitening"}
    for part, switch in parts.items():
        if meta[switch]:
            shapes |= {f"{part}.weight": (d, d), f"{part}.bias": (d,)}
    if net["has_Lw"]:
        meta["Lw"] = {
            "retrieval-SfM-120k": {
                k: {
                    "m": 0.02 * _stream(f"Lw/{k}/m").standard_normal((d, 1)),
                    "P": _stream(f"Lw/{k}/P").standard_normal((d, d)) / np.sqrt(d),
                }
                for k in ("ss", "ms")
            }
        }
    return {"meta": meta, "state_dict": _state(shapes, meta["architecture"])}


def naver_checkpoint(net: Mapping[str, Any], pca_class: Callable[[], Any] | None = None) -> dict[str, Any]:
    """Return a checkpoint as deep-image-retrieval saves it, for a net of `dir_naver/cases.json`.

    Parameters
    ----------
    net
        The net's entry in `cases.json`.
    pca_class
        Makes an object that pickles as scikit-learn's PCA, for a net that has one.
    """
    options = net["model_options"]
    architecture, d = options["arch"].removesuffix("_rmac"), options["out_dim"]
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in _network(architecture).state_dict().items()
        if not name.startswith("fc.")
    }
    shapes |= {"fc.weight": (d, d), "fc.bias": (d,)}
    if options["pooling"] == "gem":
        shapes["adpool.p"] = (1,)
    state = _state(shapes, architecture)
    checkpoint: dict[str, Any] = {
        "state_dict": {net["key_prefix"] + name: tensor for name, tensor in state.items()},
        "model_options": options,
        "preprocess": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": 224},
    }
    if net["has_pca"] and pca_class is not None:
        pca = pca_class()
        pca.whiten = True
        pca.mean_ = 0.02 * _stream(f"pca/{d}/mean").standard_normal(d)
        pca.components_ = _stream(f"pca/{d}/components").standard_normal((d, d)) / np.sqrt(d)
        variance = 1e-3 + 1e-2 * _stream(f"pca/{d}/variance").random(d)
        pca.explained_variance_ = np.sort(variance)[::-1]
        checkpoint["pca"] = {"Landmarks_clean": pca}
    return checkpoint


def _delf_tensor(name: str, shape: Shape) -> NDArray[np.float32]:
    """Return one float32 tensor of DELF."""
    r = _stream(name)
    fan_in = np.prod(shape[:-1])
    value: Any
    if name.endswith("conv3/BatchNorm/gamma"):
        value = 0.2 * (0.5 + r.random(shape))
    elif name.endswith(("gamma", "moving_variance")):
        value = 0.5 + r.random(shape)
    elif name.endswith("conv2/biases"):
        value = 5.0 + 0.1 * r.standard_normal(shape)
    elif name.endswith(("beta", "moving_mean")):
        value = 0.1 * r.standard_normal(shape)
    elif name == "attonly/attention/compute/conv2/weights":
        value = 4.0 * r.standard_normal(shape) * np.sqrt(2 / fan_in)
    else:
        value = r.standard_normal(shape) * np.sqrt(2 / fan_in)
    return np.asarray(value).astype(np.float32)


def write_delf_variables(cases: Mapping[str, Any], path: str | Path) -> None:
    """Write the data file of the checkpoint of `delf_v1/cases.json`: its tensors by name, without gaps."""
    with open(path, "wb") as file:
        file.writelines(_delf_tensor(v["name"], v["shape"]).tobytes() for v in cases["variables"])
