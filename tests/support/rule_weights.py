"""Weights by rule: the checkpoints behind the golden outputs, made again from the names of their tensors.

The rules are those that the READMEs of the golden folders state.
"""

import zlib

import numpy as np
import torch

from lmr.features.networks._torchvision import torchvision

__all__ = ["cirtorch_checkpoint", "naver_checkpoint", "stream", "write_delf_variables"]


def stream(name):
    """Return the random stream that belongs to a name."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def global_tensor(name, shape, *, in_batch_norm, residual_end):
    """Return one float32 tensor of a global descriptor's network."""
    r = stream(name)
    leaf = name.rpartition(".")[2]
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


def _state(shapes, architecture):
    ends = {"resnet18": "bn2.weight", "resnet50": "bn3.weight", "resnet101": "bn3.weight", "vgg16": "-"}
    return {
        name: global_tensor(
            name,
            shape,
            in_batch_norm=f"{name.rpartition('.')[0]}.running_mean" in shapes,
            residual_end=ends[architecture],
        )
        for name, shape in shapes.items()
    }


def _network(architecture):
    with torch.device("meta"):
        return getattr(torchvision().models, architecture)(weights=None)


def cirtorch_checkpoint(net):
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
                    "m": 0.02 * stream(f"Lw/{k}/m").standard_normal((d, 1)),
                    "P": stream(f"Lw/{k}/P").standard_normal((d, d)) / np.sqrt(d),
                }
                for k in ("ss", "ms")
            }
        }
    return {"meta": meta, "state_dict": _state(shapes, meta["architecture"])}


def naver_checkpoint(net, pca_class=None):
    """Return a checkpoint as deep-image-retrieval saves it, for a net of `dir_naver/cases.json`."""
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
    checkpoint = {
        "state_dict": {net["key_prefix"] + name: tensor for name, tensor in state.items()},
        "model_options": options,
        "preprocess": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": 224},
    }
    if net["has_pca"]:
        pca = pca_class()
        pca.whiten = True
        pca.mean_ = 0.02 * stream(f"pca/{d}/mean").standard_normal(d)
        pca.components_ = stream(f"pca/{d}/components").standard_normal((d, d)) / np.sqrt(d)
        variance = 1e-3 + 1e-2 * stream(f"pca/{d}/variance").random(d)
        pca.explained_variance_ = np.sort(variance)[::-1]
        checkpoint["pca"] = {"Landmarks_clean": pca}
    return checkpoint


def delf_tensor(name, shape):
    """Return one float32 tensor of DELF."""
    r = stream(name)
    fan_in = np.prod(shape[:-1])
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
    return value.astype(np.float32)


def write_delf_variables(cases, path):
    """Write the data file of the checkpoint of `delf_v1/cases.json`: its tensors by name, without gaps."""
    with open(path, "wb") as file:
        file.writelines(delf_tensor(v["name"], v["shape"]).tobytes() for v in cases["variables"])
