"""What a user chooses of a workflow, and the refusal of choices of the wrong kind."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import SettingsError

__all__ = ["Choices", "check_choices"]

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_SEARCH_DEVICE = re.compile("cpu|cuda")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chooses of a workflow.

    Attributes
    ----------
    out
        Folder or URL of the run.
    gallery, queries
        Folders or URLs of photos.
    gallery_descriptors, query_descriptors
        Descriptors in place of photos: .npy or Parquet files at any URL, or arrays; see
        `lmr.steps.features.own_files`.
    gallery_ids, query_ids
        Their ids: text or Parquet files, or lists; None where they stand in the Parquet file.
    solution
        Kaggle's CSV file `id,images`; None: nothing is scored.
    labels
        For recognition, a CSV or Parquet file `id,landmark` of the gallery; None: its folders name them.
    preset
        Named settings of the workflow; None: its first ones.
    config
        TOML file of settings, a table per step.
    overrides
        `step.field=value` items; they count most.
    settings
        Settings by step and field, as a Python program gives them.
    local, local_weights
        Kind of the local features, and the weights of their network.
    descriptor, weights
        Kind of the global descriptor, and the weights of its network.
    calibration
        File that `lmr calibrate` wrote, or what it holds: each answer gets a probability. None: none.
    device
        Where networks run: "cpu" or "cuda".
    search_device
        Where exact searches run: "cpu"; or "cuda", which is used where a worker has a GPU.
    prune
        First shards of everything only: a smoke test.
    score, truth
        Protocols that every ranking is scored by, and their ground truth where a solution is not enough.
    dataset, published
        Name of the photos' data set, and a file of the figures that papers print of it; None: the one that
        comes along.
    planned
        Whether `gallery` and `queries` may be numbers of photos, and nothing is to be run.
    dimension
        Numbers in a descriptor, of a plan for a workflow on own descriptors.
    """

    out: str
    gallery: str | None = None
    queries: str | None = None
    gallery_descriptors: str | NDArray[np.generic] | None = None
    query_descriptors: str | NDArray[np.generic] | None = None
    gallery_ids: str | Sequence[str] | None = None
    query_ids: str | Sequence[str] | None = None
    solution: str | None = None
    labels: str | None = None
    preset: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] | None = None
    local: str | None = None
    local_weights: str | None = None
    descriptor: str | None = None
    weights: str | None = None
    calibration: str | Mapping[str, Any] | None = None
    device: str = "cpu"
    search_device: str = "cpu"
    prune: int | None = None
    planned: bool = False
    dimension: int = 2048
    score: Sequence[str] = ()
    truth: str | None = None
    dataset: str | None = None
    published: str | None = None


def check_choices(choices: Choices) -> None:
    """Refuse choices of the wrong kind, before anything is looked at."""
    for name in ("gallery", "queries", "out"):
        value = getattr(choices, name)
        if value is None and name != "out":
            continue  # descriptors may take its place
        if not (isinstance(value, str) and value):
            raise SettingsError(f"{name} names no folder", got=repr(value), fix="give a folder or a URL")
    for name in ("solution", "labels", "preset", "config", "local", "local_weights", "descriptor", "weights"):
        if not isinstance(value := getattr(choices, name), str | None):
            raise SettingsError(
                f"{name} is no text", got=repr(value)[:100], fix="give a name, a path or a URL"
            )
    for device, known in ((choices.device, _DEVICE), (choices.search_device, _SEARCH_DEVICE)):
        if not (isinstance(device, str) and known.fullmatch(device)):
            raise SettingsError("there is no such device", got=repr(device)[:100], fix="give cpu or cuda")
    prune = choices.prune
    if prune is not None and (isinstance(prune, bool) or not isinstance(prune, int) or prune < 1):
        raise SettingsError("prune is no number of shards", got=repr(prune)[:100], fix="give 1 or more")
