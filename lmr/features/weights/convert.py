"""Published checkpoints written again as safetensors: nothing in such a file can run.

What a checkpoint holds beside its tensors (architecture, pooling, input) goes into the file's metadata.
"""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from lmr.errors import LmrError
from lmr.features.weights.checkpoints import read_global_checkpoint
from lmr.features.weights.converted import APART, LINEAR, METADATA
from lmr.features.weights.delf_files import read_delf_weights
from lmr.features.weights.files import read_safetensors, read_torch_file
from lmr.features.weights.global_checkpoint import GlobalCheckpoint

__all__ = ["convert"]


def convert(source: str | PathLike[str], out: str | PathLike[str]) -> int:
    """Write a checkpoint as safetensors, read that back, and return the number of its tensors.

    Parameters
    ----------
    source
        A file of cnnimageretrieval-pytorch or deep-image-retrieval, a state dict (.pth, .pt), or the folder
        of a DELF release.
    out
        The .safetensors file to make.

    Raises
    ------
    LmrError
        If the source cannot be read or holds other than tensors, or `out` exists or cannot be written.
    """
    source, out = Path(source), Path(out)
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if out.suffix != ".safetensors" or out.exists():
        raise LmrError(
            f"cannot write {out}",
            got="it exists" if out.exists() else f"suffix {out.suffix!r}",
            fix="give a new path that ends in .safetensors",
        )
    tensors, metadata = _content(source)
    # A tensor may be a view of a larger storage or share one; safetensors keeps each whole and by itself.
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    temporary = out.with_name(f".{uuid.uuid4().hex}.{out.name}")  # the suffix stays: readers go by it
    try:
        save_file(tensors, temporary, metadata)
        back = read_safetensors(temporary)
        if back.keys() != tensors.keys() or not all(_same(back[n], tensors[n]) for n in tensors):
            raise LmrError(f"{out} differs from {source} when read back", fix="check the disk")
        os.replace(temporary, out)
    except (OSError, SafetensorError) as error:
        raise LmrError(f"cannot write {out}", got=str(error), fix="give another folder") from error
    finally:
        temporary.unlink(missing_ok=True)
    return len(tensors)


def _content(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if source.is_dir():
        arrays = read_delf_weights(source)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, {}
    if source.suffix in (".safetensors", ".npz"):
        raise LmrError(
            f"{source} is not a checkpoint to convert",
            got=f"a {source.suffix} file, which holds no code",
            fix="use it as it is",
        )
    content = read_torch_file(source)
    if isinstance(content, Mapping) and ("meta" in content or "model_options" in content):
        return _packed(read_global_checkpoint(source))
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise LmrError(
            f"{source} is not a state dict, nor of a known family",
            got=f"a {type(content).__name__}",
            fix="give the published file",
        )
    return dict(state), {}


def _packed(checkpoint: GlobalCheckpoint) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {f"trunk.{name}": tensor for name, tensor in checkpoint.trunk.items()} | {"p": checkpoint.p}
    for name in LINEAR:
        if (layer := getattr(checkpoint, name)) is not None:
            tensors |= {f"{name}.weight": layer[0], f"{name}.bias": layer[1]}
    for name, whitening in checkpoint.whitenings.items():
        tensors[f"whitenings.{name}.mean"] = torch.from_numpy(whitening.mean)
        tensors[f"whitenings.{name}.projection"] = torch.from_numpy(whitening.projection)
    plain = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name not in APART}
    return tensors, {METADATA: json.dumps(plain)}


def _same(one: Tensor, other: Tensor) -> bool:
    # By bytes: a NaN is equal to itself here.
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()
