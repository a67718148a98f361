"""Reads a LevelDB table, the file behind TensorFlow's checkpoint index: sorted keys and values, in blocks.

The formats are those of LevelDB's `table_format.md` and of Snappy's `format_description.txt`; every block
carries a CRC-32C, which is checked.
"""

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["crc32c", "masked", "read_table", "varint"]

FOOTER_BYTES, TRAILER_BYTES = 48, 5
MAGIC = 0xDB4775248B80FB57
PLAIN, SNAPPY = 0, 1
POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
MASK_DELTA = 0xA282EAD8
MOST_BITS = 63  # that the last byte of a variable-length number may be shifted by
MOST_KEY_BYTES = 64 << 20  # of all keys of a block: each may repeat the one before
LANE_BYTES = 64  # that one lane of the checksum takes


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return the keys and values of a table, in their order.

    Raises
    ------
    LmrError
        If it is no table, is damaged, or is compressed otherwise than by Snappy.
    """
    if len(data) < FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise LmrError("this is not a LevelDB table", fix="give the .index file of a TensorFlow checkpoint")
    try:
        footer = data[-FOOTER_BYTES:]
        at = _handle(footer, 0)[2]  # skip the handle of the meta index
        table: dict[bytes, bytes] = {}
        for _, handle in _entries(_block(data, *_handle(footer, at)[:2])):
            table.update(_entries(_block(data, *_handle(handle, 0)[:2])))
        return table
    except (IndexError, struct.error) as error:
        raise LmrError("a LevelDB table is damaged", got=str(error), fix="fetch the file again") from error


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length number at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > MOST_BITS:
            raise IndexError("a number of more than 64 bits")


def crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (Castagnoli) of the data.

    The checksum is linear over GF(2), so that lanes of the data are summed side by side in NumPy and then
    joined in pairs: many megabytes in a fraction of a second, against seconds in a plain loop.
    """
    lanes = 1 << max(0, (len(data) - 1) // LANE_BYTES).bit_length()
    # Zeros in front change no linear checksum; to start from ones is to invert the first four bytes.
    start = lanes * LANE_BYTES - len(data)
    numbers = np.zeros(lanes * LANE_BYTES + 4, np.uint8)
    numbers[start:-4] = np.frombuffer(data, np.uint8)
    numbers[start : start + 4] ^= 0xFF
    left_over = numbers[-4:].view("<u4")[0]  # of that inversion, where there are fewer than four bytes
    table, state = _byte_table(), np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(numbers[:-4].reshape(lanes, LANE_BYTES).T):
        state = table[(state ^ column) & 0xFF] ^ (state >> np.uint32(8))
    count = LANE_BYTES
    while len(state) > 1:
        state = _after_zeros(state[0::2], count) ^ state[1::2]
        count *= 2
    return int(state[0] ^ left_over) ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """Return a checksum as LevelDB and TensorFlow store it."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at


def _block(data: bytes, offset: int, size: int) -> bytes:
    content = data[offset : offset + size]
    trailer = data[offset + size : offset + size + TRAILER_BYTES]
    if len(trailer) != TRAILER_BYTES:
        raise IndexError(f"a block of {size} bytes at {offset} is cut off")
    kind, stored = struct.unpack("<BI", trailer)
    if masked(crc32c(content + trailer[:1])) != stored:
        raise IndexError(f"the block at {offset} has another CRC-32C than is stored")
    if kind == PLAIN:
        return content
    if kind == SNAPPY:
        return _unsnapped(content)
    raise LmrError(
        "a LevelDB table has blocks of an unknown kind", got=str(kind), fix="known are plain and snappy"
    )


def _entries(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of a block; a key is stored as what differs from the one before."""
    (restarts,) = struct.unpack("<I", block[-4:])
    end, at, key = len(block) - 4 * (restarts + 1), 0, b""
    entries, key_bytes = [], 0
    while at < end:
        shared, at = varint(block, at)
        unshared, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        key_bytes += len(key)
        if key_bytes > MOST_KEY_BYTES:
            raise IndexError("keys of a block that no checkpoint has")
        entries.append((key, block[at : at + length]))
        at += length
    return entries


def _unsnapped(data: bytes) -> bytes:
    size, at = varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind, high = tag & 3, tag >> 2
        if kind == 0:
            length = high + 1
            if high >= 60:  # the length follows in one to four bytes
                extra = high - 59
                length = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            out += data[at : at + length]
            at += length
            continue
        if kind == 1:
            length, distance = (high & 7) + 4, (high >> 3) << 8 | data[at]
            at += 1
        else:
            width = 2 if kind == 2 else 4
            length, distance = high + 1, int.from_bytes(data[at : at + width], "little")
            at += width
        if not 0 < distance <= len(out):
            raise IndexError("a snappy copy from before the start")
        for _ in range(length):  # byte by byte: a copy may run into what it writes
            out.append(out[-distance])
    if len(out) != size:
        raise IndexError(f"a snappy block of {len(out)} bytes instead of {size}")
    return bytes(out)


@lru_cache(maxsize=1)
def _byte_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(POLYNOMIAL), table >> np.uint32(1))
    return table


def _after_zeros(states: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """Return what becomes of checksums after `count` more zero bytes: `LANE_BYTES` times a power of 2."""
    result = np.zeros_like(states)
    for place, table in enumerate(_zeros_tables(count)):
        result ^= table[(states >> np.uint32(8 * place)) & 0xFF]
    return result


@lru_cache(maxsize=32)
def _zeros_tables(count: int) -> NDArray[np.uint32]:
    """Return (4, 256) uint32: what becomes of each value of each byte of a checksum."""
    states = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32)[:, None])
    if count > LANE_BYTES:
        return _after_zeros(_after_zeros(states, count // 2), count // 2)
    table = _byte_table()
    for _ in range(count):
        states = table[states & 0xFF] ^ (states >> np.uint32(8))
    return states
