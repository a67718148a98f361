"""State dicts that torch wrote, read without torch and without running what is in them.

A `.pth` file is a pickle that names the functions which rebuild its tensors. Here the pickle is read as a
list of data: a function that it names is remembered by its name and never called. Tensors are rebuilt by our
own code; anything else is refused.
"""

import io
import lzma
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["read_state_dict"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first number of a file that was written before torch 1.6
STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading raises where bytes are not what they should be."""
KEPT = {
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    *(f"torch {name}" for name in STORAGES),
}


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names."""

    text: str


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's numbers lie: a storage's key, and the part of it."""

    key: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a state dict that `torch.save` wrote, by name.

    Both of torch's formats are read: the zip archive, and the older file of several pickles.

    Raises
    ------
    LmrError
        If the file is missing or damaged, names other code than tensors need, or is no state dict.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content, storages = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
    except FileNotFoundError as error:
        raise LmrError(
            f"there are no weights at {path}", fix="check the path, or see: lmr weights list"
        ) from error
    except (*DAMAGE, OSError) as error:
        raise LmrError(
            f"{path} is damaged, or not a file of weights", got=str(error), fix="fetch it again"
        ) from error
    except _Refused as refused:
        raise LmrError(
            f"{path} names code that no state dict needs; it was not run",
            got=refused.args[0],
            fix="use the file from its publisher",
        ) from refused
    if not isinstance(content, Mapping) or not all(isinstance(t, _Tensor) for t in content.values()):
        raise LmrError(f"{path} is no state dict", got=type(content).__name__, fix="give a state dict")
    try:
        return {name: _array(tensor, storages[tensor.key]) for name, tensor in content.items()}
    except DAMAGE as error:
        raise LmrError(f"{path} is damaged", got=str(error), fix="fetch it again") from error


class _Refused(Exception):
    """The pickle names code that is not in `KEPT`, or holds what no state dict holds."""


def _zipped(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        pickle = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickle.removesuffix("data.pkl") + "data/"
        storages = {
            name.removeprefix(folder): archive.read(name)
            for name in archive.namelist()
            if name.startswith(folder)
        }
        return _read(io.BytesIO(archive.read(pickle))), storages


def _legacy(file: BinaryIO) -> tuple[Any, dict[str, bytes]]:
    """Read a magic number, a version, facts of the system, the state dict, keys, and the storages."""
    file.seek(0)
    if _read(file) != MAGIC:
        raise ValueError("it does not begin as torch's files do")
    _read(file), _read(file)
    content = _read(file)
    sizes = {t.key: np.dtype(t.dtype).itemsize for t in content.values() if isinstance(t, _Tensor)}
    storages = {}
    for key in _read(file):
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(max(0, count) * sizes[key])
    return content, storages


def _array(tensor: _Tensor, storage: bytes) -> NDArray[Any]:
    values = np.frombuffer(storage, tensor.dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((side - 1) * step for side, step in steps)
    if prod(tensor.shape) and not (tensor.offset >= 0 and min(tensor.strides, default=0) >= 0):
        raise ValueError("a tensor with negative steps")
    if prod(tensor.shape) and last >= len(values):
        raise ValueError("a tensor that reaches beyond its storage")
    strides = tuple(step * values.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()


def _read(file: BinaryIO) -> Any:
    """Return what one pickle holds; names are `_Name`, tensors are `_Tensor`."""
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name == "MARK":
            marks.append(stack)
            stack = []
        elif name in ("TUPLE", "SETITEMS", "APPENDS"):
            items, stack = stack, marks.pop()
            _GATHER[name](stack, items)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(str(argument)))
        elif name in _SIMPLE:
            _SIMPLE[name](stack)
        elif opcode.stack_before == [] and name not in ("PROTO", "FRAME"):
            stack.append(argument)  # a number or a text
        elif name not in ("PROTO", "FRAME"):
            _refuse(name)
    raise ValueError("the pickle is cut off")


def _named(text: str) -> _Name:
    if text not in KEPT:
        _refuse(text.replace(" ", "."))
    return _Name(text)


def _refuse(what: str) -> NoReturn:
    raise _Refused(what)


def _pack(count: int) -> Callable[[list[Any]], None]:
    def packed(stack: list[Any]) -> None:
        items = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(items)

    return packed


def _reduce(stack: list[Any]) -> None:
    """Do what the two allowed functions would: a mapping, or a tensor of a storage."""
    arguments, function = stack.pop(), stack.pop()
    if function == _Name("collections OrderedDict"):
        stack.append({})
    elif function == _Name("torch._utils _rebuild_tensor_v2"):
        (key, dtype), offset, shape, strides = arguments[:4]
        stack.append(_Tensor(key, dtype, offset, shape, strides))
    else:
        _refuse(str(function))


def _persistent(stack: list[Any]) -> None:
    """Read a storage's ("storage", type, key, place, count); its numbers lie elsewhere in the file."""
    _, kind, key, *_ = stack.pop()
    stack.append((key, STORAGES[kind.text.split(" ")[1]]))


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    stack[-1][key] = value


def _append(stack: list[Any]) -> None:
    value = stack.pop()
    stack[-1].append(value)


def _build(stack: list[Any]) -> None:
    stack.pop()  # attributes of the mapping, such as _metadata


_GATHER: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "SETITEMS": lambda stack, items: stack[-1].update(zip(items[::2], items[1::2], strict=True)),
    "APPENDS": lambda stack, items: stack[-1].extend(items),
}
_SIMPLE: dict[str, Callable[[list[Any]], None]] = {
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "TUPLE1": _pack(1),
    "TUPLE2": _pack(2),
    "TUPLE3": _pack(3),
    "REDUCE": _reduce,
    "BINPERSID": _persistent,
    "SETITEM": _set_item,
    "APPEND": _append,
    "BUILD": _build,
}
