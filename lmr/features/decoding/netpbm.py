"""Bitmaps whose pixels are decimal numbers (P1, P2, P3), as binary ones, which are read quickly."""

import re

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_binary", "is_text"]

_HEADER = re.compile(rb"P([123])((?:\s+|#[^\n]*\n)*)(\d+)((?:\s+|#[^\n]*\n)+)(\d+)")
_COMMENT = re.compile(rb"#[^\n]*")


def is_text(data: bytes) -> bool:
    """Tell whether the pixels are written as decimal numbers."""
    return data[:2] in (b"P1", b"P2", b"P3")


def as_binary(data: bytes) -> bytes:
    """Return the same bitmap in binary form (P4, P5, P6).

    Raises
    ------
    ValueError
        If there are too few numbers, or something that is none of this bitmap.
    """
    header = _HEADER.match(data)
    if header is None:
        raise ValueError("no width and height")
    kind, width, height = int(header[1]), int(header[3]), int(header[5])
    body = _COMMENT.sub(b"", data[header.end() :])
    start = b"P%d\n%d %d\n" % (kind + 3, width, height)
    if kind == 1:
        bits = _bits(body, width * height).reshape(height, width)
        return start + np.packbits(bits, axis=1).tobytes()
    most_text, *rest = body.split(None, 1)
    most = int(most_text[:6])
    if not 0 < most < 65536:
        raise ValueError(f"largest value {most}")
    count = width * height * (3 if kind == 3 else 1)
    # Text that is no number ends the parsing: what is missing is seen by the count.
    values = np.fromstring(rest[0] if rest else b"", np.int32, sep=" ")[:count]
    if len(values) < count:
        raise ValueError(f"truncated: {len(values)} of {count} numbers")
    if values.min() < 0 or values.max() > most:
        raise ValueError(f"a value beyond {most}")
    return start + b"%d\n" % most + values.astype(">u2" if most > 255 else "u1").tobytes()


def _bits(body: bytes, count: int) -> NDArray[np.uint8]:
    letters = np.frombuffer(body, np.uint8)
    digits = letters[(letters == ord("0")) | (letters == ord("1"))][:count]
    bits: NDArray[np.uint8] = digits - np.uint8(ord("0"))
    if len(bits) < count:
        raise ValueError(f"truncated: {len(bits)} of {count} bits")
    return bits
