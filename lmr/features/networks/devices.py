"""Where networks run, and in which precision."""

from typing import Literal

import torch

from lmr.errors import LmrError

__all__ = ["Precision", "compute_device", "compute_dtype", "gpu_count"]

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
KNOWN = 'give "cpu", "cuda" or "cuda:1"'


def compute_device(name: str) -> torch.device:
    """Return the device of this name.

    On a GPU, float32 is float32 from then on, in this whole process: torch's own default lets convolutions
    round their inputs to TF32's 10 bits, which moves descriptors by about 1e-3. Who wants speed there asks
    for float16 or bfloat16, and gets more of it.

    Raises
    ------
    LmrError
        If the name is unknown, or this machine has no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LmrError("unknown device", got=repr(name), fix=KNOWN) from error
    if device.type not in ("cpu", "cuda"):
        raise LmrError("unknown device", got=repr(name), fix=KNOWN)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LmrError(
            f"there is no device {name}",
            got=f"{torch.cuda.device_count()} CUDA devices, torch {torch.__version__}",
            fix='give --device cpu (in Python device="cpu"), or install a torch that fits the driver',
        )
    if device.type == "cuda":
        _whole_float32()
    return device


def gpu_count() -> int:
    """Return how many GPUs this process sees."""
    return torch.cuda.device_count()


def _whole_float32() -> None:
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def compute_dtype(precision: Precision | None, device: torch.device) -> torch.dtype:
    """Return the type in which convolutions run: float32 on CPUs and float16 on GPUs unless given.

    Raises
    ------
    LmrError
        If the precision is unknown.
    """
    if precision is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision not in PRECISIONS:
        raise LmrError("unknown precision", got=repr(precision), fix=f"known are {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
