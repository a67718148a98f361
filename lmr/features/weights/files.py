"""Files of tensors, read without running what is in them: torch's own, and safetensors."""

import pickle
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmr.errors import LmrError, one_line

__all__ = ["read_safetensors", "read_torch_file"]


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


def read_torch_file(path: str | PathLike[str]) -> Any:
    """Read a file written by `torch.save` to the CPU, without running code that it names.

    Tensors and plain data are read by torch's own restricted unpickler, with NumPy arrays and, as a plain
    holder of attributes, scikit-learn's PCA (under its present and its old path) allowed besides; anything
    else is refused.

    Raises
    ------
    LmrError
        If the file is missing or damaged, or names anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise LmrError(f"there are no weights at {path}", fix="check the path, or see: lmr weights list")
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # read, or refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), None)
        if named is None:
            # PyTorch's own words advise to load the file without its checks.
            raise _damaged(path, ValueError("it is not packed as PyTorch's files are")) from error
        raise LmrError(
            f"{path} names code that no checkpoint needs; it was not run",
            got=named,
            fix="use the file from its publisher, or convert it to safetensors where you trust it",
        ) from error
    except (
        Exception
    ) as error:  # the unpickler runs what the bytes say, within bounds: anything may come of it
        raise _damaged(path, error) from error


def read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file.

    Raises
    ------
    LmrError
        If the file is missing or damaged.
    """
    path = Path(path)
    from safetensors.torch import load_file

    if not path.is_file():
        raise LmrError(f"there are no weights at {path}", fix="check the path, or see: lmr weights list")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:  # of a header that is read, but names what torch lacks, too
        raise _damaged(path, error) from error
    return tensors


def _damaged(path: Path, error: Exception) -> LmrError:
    return LmrError(
        f"{path} is damaged, or not a file of weights", got=one_line(error, 300), fix="fetch it again"
    )
