"""PNG files whose pixels are fine and whose other chunks are not: too large, or with a wrong checksum."""

import struct
import zlib
from collections.abc import Iterator

__all__ = ["embedded_profile", "without_metadata"]

_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_OF_USE = frozenset({b"tRNS", b"eXIf"})
_LARGEST_PROFILE = 4 << 20


def without_metadata(data: bytes) -> bytes:
    """Return the file with the chunks of its pixels, transparency and orientation only."""
    kept = (
        data[start:stop]
        for name, start, stop in _chunks(data)
        if name in _PIXELS or (name in _OF_USE and _is_whole(data, start, stop))
    )
    return data[:8] + b"".join(kept)


def embedded_profile(data: bytes) -> bytes:
    """Return the colour profile, however Pillow likes its size; empty where there is none that is whole."""
    for name, start, stop in _chunks(data):
        if name == b"iCCP" and _is_whole(data, start, stop):
            _, _, packed = data[start + 8 : stop - 4].partition(b"\0")
            unpacker = zlib.decompressobj()
            try:
                profile = unpacker.decompress(packed[1:], _LARGEST_PROFILE)
            except zlib.error:
                return b""
            return profile if unpacker.eof else b""
    return b""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, start, stop) of the chunks; the last may be cut."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, at, at + 12 + length
        at += 12 + length
        if name == b"IEND":
            return


def _is_whole(data: bytes, start: int, stop: int) -> bool:
    return stop <= len(data) and zlib.crc32(data[start + 4 : stop - 4]) == int.from_bytes(
        data[stop - 4 : stop], "big"
    )
