"""Writes small ONNX models, without the package `onnx`: a model is one protocol buffer.

Field numbers are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), IR version 8.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Graph"]

IR_VERSION, OPSET = 8, 13  # read by every onnxruntime since 1.10, and by OpenCV
FLOAT, VARINT, BYTES = 1, 0, 2  # TensorProto.FLOAT; the wire types of a number and of bytes
Attribute = int | str | Sequence[int]


class Graph:
    """A model in the making: nodes in the order in which they run, and their constants."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes, self.constants = name, list[bytes](), list[bytes]()

    def constant(self, name: str, values: NDArray[np.float32]) -> str:
        """Keep an array in the model, float32; return its name."""
        data = np.ascontiguousarray(values, "<f4")
        dims = [_number(1, side) for side in data.shape]
        self.constants.append(b"".join([*dims, _number(2, FLOAT), _text(8, name), _bytes(9, data.tobytes())]))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute] | None = None
    ) -> str:
        """Add an operation; return the name of its output."""
        parts = [*(_text(1, one) for one in inputs), _text(2, output), _text(3, output), _text(4, kind)]
        parts += [_bytes(5, _attribute(key, value)) for key, value in (attributes or {}).items()]
        self.nodes.append(b"".join(parts))
        return output

    def model(
        self, inputs: Mapping[str, Sequence[int | str]], outputs: Mapping[str, Sequence[int | str]]
    ) -> bytes:
        """Return the file's bytes.

        Parameters
        ----------
        inputs, outputs
            By name, their shapes; a side that is free has a name in place of a number. All are float32.
        """
        graph = b"".join(
            [
                *(_bytes(1, node) for node in self.nodes),
                _text(2, self.name),
                *(_bytes(5, constant) for constant in self.constants),
                *(_bytes(11, _value(*one)) for one in inputs.items()),
                *(_bytes(12, _value(*one)) for one in outputs.items()),
            ]
        )
        opset = _bytes(8, _number(2, OPSET))
        return b"".join([_number(1, IR_VERSION), _text(2, "lmr"), _bytes(7, graph), opset])


def _attribute(name: str, value: Attribute) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _number(3, value) + _number(20, 2)
    if isinstance(value, str):
        return _text(1, name) + _text(4, value) + _number(20, 3)
    return _text(1, name) + b"".join(_number(8, one) for one in value) + _number(20, 7)


def _value(name: str, shape: Iterable[int | str]) -> bytes:
    sides = (_number(1, side) if isinstance(side, int) else _text(2, side) for side in shape)
    tensor = _number(1, FLOAT) + _bytes(2, b"".join(_bytes(1, side) for side in sides))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value & (1 << 64) - 1)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | BYTES) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + struct.pack("B", value)
