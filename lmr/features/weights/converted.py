"""Checkpoints that `lmr weights convert` has written as safetensors."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from lmr.errors import LmrError, one_line
from lmr.features.weights.files import read_safetensors
from lmr.features.weights.global_checkpoint import CheckpointWhitening, GlobalCheckpoint

__all__ = ["read_converted"]


METADATA = "lmr.global_checkpoint"


LINEAR = ("local_whitening", "region_whitening", "head")


APART = ("trunk", "p", "whitenings", *LINEAR)  # fields of a checkpoint that hold tensors


def read_converted(path: str | PathLike[str]) -> GlobalCheckpoint | None:
    """Return the global checkpoint in a file that `convert` wrote; None if it is of plain tensors.

    Raises
    ------
    LmrError
        If the file is missing or damaged.
    """
    path = Path(path)
    from safetensors import safe_open

    tensors = read_safetensors(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    if METADATA not in metadata:
        return None
    try:
        return _unpacked(tensors, json.loads(metadata[METADATA]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LmrError(
            f"{path} is not what lmr weights convert wrote",
            got=one_line(error, 300),
            fix="convert the published checkpoint again",
        ) from error


def _unpacked(tensors: Mapping[str, Tensor], plain: dict[str, Any]) -> GlobalCheckpoint:
    def layer(name: str) -> tuple[Tensor, Tensor] | None:
        return (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) if f"{name}.weight" in tensors else None

    def under(place: str, end: str = "") -> dict[str, Tensor]:
        return {
            name.removeprefix(place).removesuffix(end): tensor
            for name, tensor in tensors.items()
            if name.startswith(place) and name.endswith(end)
        }

    means, projections = under("whitenings.", ".mean"), under("whitenings.", ".projection")
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}
    return GlobalCheckpoint(
        trunk=under("trunk."),
        p=tensors["p"],
        local_whitening=layer("local_whitening"),
        region_whitening=layer("region_whitening"),
        head=layer("head"),
        whitenings={n: CheckpointWhitening(means[n].numpy(), projections[n].numpy()) for n in means},
        **plain,
    )
