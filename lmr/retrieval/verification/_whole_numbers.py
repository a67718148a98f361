"""Products of descriptors that are kept in bytes, as whole numbers, by ONNX Runtime.

Processors with VNNI (x86) or dot products (ARM) multiply bytes several times as fast as float32, and what
comes out is exact. Measured on one such processor, 1000 × 1000 features: `docs/results/performance.md`.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["columns", "multiply", "rows", "supported"]

_INPUTS = {"a": 2, "b": 3, "a_zero": 2, "b_zero": 3}  # TensorProto: UINT8 = 2, INT8 = 3, INT32 = 6
_TURNED = np.uint8(0x80)  # what turns uint8 to int8 and back, moving numbers by 128


def rows(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Return stored descriptors (n, d) as the left side of a product takes them."""
    return stored if stored.dtype == np.uint8 else stored.view(np.uint8) ^ _TURNED


def columns(stored: NDArray[Any]) -> NDArray[np.int8]:
    """Return stored descriptors (n, d) as the right side of a product takes them: (d, n), contiguous."""
    turned = stored ^ _TURNED if stored.dtype == np.uint8 else stored.view(np.uint8)
    if not turned.size:
        return turned.T.view(np.int8)
    # Tile by tile: NumPy's transposed copy takes seven times as long.
    return np.asarray(cv2.transpose(turned)).view(np.int8)


def multiply(
    left: NDArray[np.uint8], right: NDArray[np.int8], out: NDArray[np.int32], kind: np.dtype[Any]
) -> None:
    """Write the inner products of what was stored into `out`.

    Parameters
    ----------
    left, right
        (m, d) from `rows`, (d, n) from `columns`.
    out
        (m, n) int32, C-contiguous.
    kind
        What was stored, on both sides: uint8 or int8.
    """
    if not out.size:
        return
    # Either side may stand 128 too high or too low; the product takes it back.
    a_zero, b_zero = _ZEROS[kind.char]
    session = _session()
    binding = session.io_binding()
    for name, value in (("a", left), ("b", right), ("a_zero", a_zero), ("b_zero", b_zero)):
        binding.bind_input(name, "cpu", 0, value.dtype, value.shape, value.ctypes.data)
    binding.bind_output("c", "cpu", 0, np.int32, out.shape, out.ctypes.data)
    session.run_with_iobinding(binding)


_ZEROS = {
    "B": (np.array(0, np.uint8), np.array(-128, np.int8)),
    "b": (np.array(128, np.uint8), np.array(0, np.int8)),
}


@cache
def supported() -> bool:
    """Return whether this processor's products of bytes are exact.

    Without VNNI, x86 adds two products of bytes in 16 bits, which overflow; and it gains little.
    """
    try:
        ends = np.array([[255, 255, 0, 255], [255, 0, 255, 1]], np.uint8).repeat(32, axis=1)
        found = np.empty((2, 2), np.int32)
        multiply(rows(ends), columns(ends), found, ends.dtype)
    except Exception:  # its own classes of errors have no common base but this
        return False
    return bool((found == ends.astype(np.int32) @ ends.T.astype(np.int32)).all())


@cache
def _session() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # other cores have tasks of their own
    return onnxruntime.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])


def _model() -> bytes:
    """Return a model of one operator, MatMulInteger, as ONNX stores it (onnx.proto, IR 8, opset 13)."""
    names = b"".join(_field(1, name.encode()) for name in _INPUTS)
    node = names + _field(2, b"c") + _field(4, b"MatMulInteger")
    inputs = b"".join(_field(11, _value(name, kind)) for name, kind in _INPUTS.items())
    graph = _field(1, node) + _field(2, b"product") + inputs + _field(12, _value("c", 6))
    return b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x0d")


def _value(name: str, kind: int) -> bytes:
    return _field(1, name.encode()) + _field(2, _field(1, bytes([8, kind])))


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds text or a message, of less than 16 kB."""
    size = len(content)
    return bytes([number << 3 | 2, *([size] if size < 128 else [size & 127 | 128, size >> 7])]) + content
