"""Reads the files in which DELF was released, without TensorFlow: checkpoints, `.datum` and `.delf`."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.interfaces import LocalFeatures
from lmr.features.weights._leveldb import crc32c, masked, read_table, varint

__all__ = ["BundleEntry", "read_bundle", "read_bundle_index", "read_datum", "read_delf"]

DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8"}  # TensorFlow's numbers of them
BIG_ENDIAN = 1
Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class BundleEntry:
    """Where a tensor of a checkpoint lies.

    Attributes
    ----------
    dtype, shape
        Of the tensor.
    shard, offset, size
        Number of the data file, and the place of its bytes there.
    crc32c
        Of these bytes, masked.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int


def read_bundle_index(path: str | PathLike[str]) -> tuple[dict[str, BundleEntry], int]:
    """Return the entries of a TensorBundle's `.index` file by name, and the number of its data files.

    Raises
    ------
    LmrError
        If the file is missing or damaged, or holds types or an order of bytes that are not supported.
    """
    path = Path(path)
    try:
        table = read_table(_bytes(path))
        header = _fields(table.pop(b""))
        if _number(header, 2) == BIG_ENDIAN:
            raise LmrError(f"{path} is of a big-endian checkpoint", fix="write it again on another machine")
        return {key.decode(): _entry(value) for key, value in table.items()}, _number(header, 1)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def read_bundle(path: str | PathLike[str]) -> dict[str, NDArray[np.generic]]:
    """Return the tensors of a TensorFlow checkpoint by name.

    Parameters
    ----------
    path
        The `.index` file; `NAME.data-00000-of-00001` lies beside `NAME.index`.

    Raises
    ------
    LmrError
        If a file is missing or damaged (every tensor's CRC-32C is checked).
    """
    path = Path(path)
    entries, shards = read_bundle_index(path)
    if any(entry.shard >= shards for entry in entries.values()):
        raise _damaged(path, IndexError(f"tensors in other files than the {shards} that there are"))
    tensors = {}
    for shard in range(shards):
        file = path.with_suffix(f".data-{shard:05d}-of-{shards:05d}")
        data = memoryview(_bytes(file))
        for name, entry in entries.items():
            if entry.shard != shard:
                continue
            piece = data[entry.offset : entry.offset + entry.size]
            if (
                len(piece) != prod(entry.shape) * entry.dtype.itemsize
                or masked(crc32c(piece)) != entry.crc32c
            ):
                raise LmrError(
                    f"{file} is damaged, or of another checkpoint than {path.name}",
                    got=f"{len(piece)} of {entry.size} bytes of {name}, with another CRC-32C than is stored",
                    fix="fetch both files again",
                )
            try:
                tensors[name] = np.frombuffer(bytes(piece), entry.dtype).reshape(entry.shape)
            except (ValueError, OverflowError) as error:  # of a shape that no array can have
                raise _damaged(path, error) from error
    return tensors


def read_datum(path: str | PathLike[str]) -> NDArray[np.float32]:
    """Return the array in a `.datum` file, float32 of its shape (a DatumProto, as DELF's PCA is kept in).

    Raises
    ------
    LmrError
        If the file is missing or damaged.
    """
    path = Path(path)
    try:
        return _datum(_bytes(path))
    except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
        raise _damaged(path, error) from error


def read_delf(path: str | PathLike[str]) -> LocalFeatures:
    """Return the features in a `.delf` file, in its order.

    `scale` is as in the file: 1 / the scale of the image in which the feature was found.

    Raises
    ------
    LmrError
        If the file is missing or damaged.
    """
    path = Path(path)
    try:
        features = [_fields(_message(one)) for one in _fields(_bytes(path)).get(1, [])]
        rows = [_datum(_message(one[1][0])) for one in features]
        x, y, scale, orientation, strength = (
            np.array([_float(one, number) for one in features], np.float32) for number in (2, 3, 4, 5, 6)
        )
        descriptor = np.stack(rows).astype(np.float16) if rows else np.empty((0, 0), np.float16)
    except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
        raise _damaged(path, error) from error
    return LocalFeatures(
        xy=np.stack([x, y], axis=1),
        scale=scale,
        orientation=orientation,
        score=strength,
        descriptor=descriptor,
    )


def _entry(message: bytes) -> BundleEntry:
    fields = _fields(message)
    shape = _fields(_message(fields[2][0])) if 2 in fields else {}
    if 7 in fields or _number(fields, 1) not in DTYPES:
        raise LmrError(
            "a tensor of this checkpoint is sliced or of an unsupported type",
            got=f"type {_number(fields, 1)}",
        )
    return BundleEntry(
        dtype=np.dtype(DTYPES[_number(fields, 1)]),
        shape=tuple(_number(_fields(_message(dim)), 1) for dim in shape.get(2, [])),
        shard=_number(fields, 3),
        offset=_number(fields, 4),
        size=_number(fields, 5),
        crc32c=struct.unpack("<I", _message(fields[6][0]))[0],
    )


def _datum(message: bytes) -> NDArray[np.float32]:
    """Return DatumProto {1: shape {1: packed int64}, 2: {1: packed float}}."""
    fields = _fields(message)
    shape, packed, at = [], _message(_fields(_message(fields[1][0]))[1][0]), 0
    while at < len(packed):
        side, at = varint(packed, at)
        shape.append(side)
    values = np.frombuffer(_message(_fields(_message(fields[2][0]))[1][0]), "<f4")
    return values.reshape(shape).astype(np.float32)


def _fields(message: bytes) -> Fields:
    """Return the fields of a protocol buffer by number; fixed-size ones as their bytes."""
    fields: Fields = {}
    for number, value in _wire(message):
        fields.setdefault(number, []).append(value)
    return fields


def _wire(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise IndexError(f"a field of unknown kind {kind}")
        if at + size > len(message):
            raise IndexError("a field is cut off")
        yield tag >> 3, message[at : at + size]
        at += size


def _number(fields: Mapping[int, list[int | bytes]], number: int) -> int:
    value = fields.get(number, [0])[0]  # zeros are not written
    if isinstance(value, bytes):
        raise IndexError(f"field {number} is no number")
    return value


def _float(fields: Mapping[int, list[int | bytes]], number: int) -> float:
    value = fields.get(number, [b"\0\0\0\0"])[0]
    return float(struct.unpack("<f", _message(value))[0])


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise IndexError("a number where bytes belong")
    return value


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise OSError("it is no regular file")  # a device may never end
        return path.read_bytes()
    except OSError as error:
        raise LmrError(f"cannot read {path}", got=str(error), fix="check the path") from error


def _damaged(path: Path, error: Exception) -> LmrError:
    return LmrError(f"{path} is damaged, or not of its kind", got=repr(error), fix="fetch it again")
