"""ONNX models, run on a CPU without torch: by ONNX Runtime, or by OpenCV where that is missing."""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["Network", "OpenCvNetwork", "RuntimeNetwork", "has_runtime"]

Floats = NDArray[np.float32]
Shape = tuple[int | str | None, ...]
FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
NETS = 16  # of OpenCV kept at once, one per size of photos


class Network(Protocol):
    """From normalised images (n, 3, height, width) float32 to what the network makes of them."""

    def __call__(self, images: Floats) -> Floats:
        """Return the network's output."""
        ...


def has_runtime() -> bool:
    """Return whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


class RuntimeNetwork:
    """A model in ONNX Runtime, with one thread: other cores have processes of their own.

    Parameters
    ----------
    model
        The file's path, or its bytes.
    name
        What errors call it.
    input, output
        Names of the one input and the one output that are used; empty: the model has only one, or the first
        output counts.

    Attributes
    ----------
    input_shape
        As the model states it; a free side is a name or None.

    Raises
    ------
    LmrError
        If ONNX Runtime is missing, the model cannot be read, or it has no such input or output.
    """

    def __init__(self, model: str | bytes, *, name: str, input: str = "", output: str = "") -> None:
        if not has_runtime():
            raise LmrError("ONNX Runtime is not installed", fix="pip install onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings are of the model's author
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes of errors have no common base but this
            raise LmrError(
                f"{name} cannot be read as an ONNX model",
                got=_first_line(error),
                fix="export it again: opset 21 or less, with its weights inside or beside it",
            ) from error
        self.name = name
        chosen = _chosen(self.session.get_inputs(), input, f"{name}: input", one=True)
        made = _chosen(self.session.get_outputs(), output, f"{name}: output", one=False)
        self.input, self.output = chosen.name, made.name
        self.input_shape: Shape = tuple(chosen.shape)
        if chosen.type not in FLOAT_TYPES:
            raise LmrError(
                f"{name} does not take images of floats",
                got=f"input {chosen.name} of {chosen.type}",
                fix="export it so that it takes a normalised image, float32 (1, 3, height, width)",
            )
        self.type = FLOAT_TYPES[chosen.type]

    def __call__(self, images: Floats) -> Floats:
        """Return the output, float32.

        Raises
        ------
        LmrError
            If the model refuses images of this size.
        """
        try:
            (made,) = self.session.run([self.output], {self.input: images.astype(self.type, copy=False)})
        except Exception as error:  # as above
            raise LmrError(
                f"{self.name} failed on an input of shape {images.shape}",
                got=_first_line(error),
                fix="give sizes that it takes: sizes_px, multiple_px of describe.onnx",
            ) from error
        return np.asarray(made, np.float32)


class OpenCvNetwork:
    """A model in OpenCV, made anew for each size of images.

    OpenCV 5.0 pads even sides before strided layers where ONNX's SAME_UPPER pads behind them, so only models
    that are written for a size come here.

    Parameters
    ----------
    model_for
        Returns the model's bytes for a (height, width).
    """

    def __init__(self, model_for: Callable[[tuple[int, int]], bytes]) -> None:
        self.net = lru_cache(maxsize=NETS)(lambda size: _opencv(model_for(size)))

    def __call__(self, images: Floats) -> Floats:
        """Return the output, float32."""
        net = self.net(images.shape[2:])
        net.setInput(images)
        return np.asarray(net.forward(), np.float32)


def _opencv(model: bytes) -> Any:
    import cv2

    return cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))


def _chosen(there: list[Any], name: str, what: str, *, one: bool) -> Any:
    names = [value.name for value in there]
    if name:
        found = [value for value in there if value.name == name]
    else:
        found = there[:1] if len(there) == 1 or not one else []
    if found:
        return found[0]
    raise LmrError(
        f"{what} is not clear" if not name else f"{what} {name} is not there",
        got=f"it has {', '.join(names) or 'none'}",
        fix="name one of them in describe.onnx, or in the TOML file beside the model",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
