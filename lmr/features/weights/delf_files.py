"""The weights of a DELF release, as its authors distribute them."""

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.weights.files import read_safetensors
from lmr.features.weights.tensorflow_files import read_bundle, read_datum

__all__ = ["PCA", "read_delf_weights"]

PCA = {
    "pca/mean": "mean.datum",
    "pca/projection": "pca_proj_mat.datum",
    "pca/variance": "pca_variances.datum",
}
"""The tensors of the PCA, and the files of a release that hold them."""


def read_delf_weights(model: str | PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Return all tensors of a model by their names in the release, with the PCA's as `pca/mean`, ....

    Parameters
    ----------
    model
        The released folder (with `model/variables` and `pca`), a folder that holds the same files side by
        side, or a .safetensors file of these tensors.

    Raises
    ------
    LmrError
        If a file is missing or damaged.
    """
    model = Path(model)
    if model.suffix == ".safetensors":
        return {name: tensor.float().numpy() for name, tensor in read_safetensors(model).items()}
    variables = _first(
        model, "model/variables/variables.index", "variables/variables.index", "variables.index"
    )
    tensors = {name: tensor.astype(np.float32) for name, tensor in read_bundle(variables).items()}
    return tensors | {name: read_datum(_first(model, f"pca/{file}", file)) for name, file in PCA.items()}


def _first(folder: Path, *candidates: str) -> Path:
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise LmrError(
        f"there is no {Path(candidates[0]).name} in {folder}",
        fix="give the folder that the released archive unpacks to, or see: lmr weights list",
    )
