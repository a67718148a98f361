"""What a process and its decoder say to each other: numbers, bytes and JSON; nothing is unpickled."""

import os
import socket
import struct

__all__ = ["ANSWER", "IDLE_SECONDS", "MEMORY_BYTES", "REQUEST", "read_file", "receive", "write_file"]

REQUEST = struct.Struct("<QQIdI")
"""Bytes of the photo, most pixels, most scans, most seconds of processor time, the longest side (0: any)."""

ANSWER = struct.Struct("<IQ")
"""Bytes of the JSON that follows, and of the shrunk photo that is in the photo's file then; 0: none."""

IDLE_SECONDS = 120.0
"""A decoder that has had nothing to do for this long ends."""

MEMORY_BYTES = 4 << 30
"""Memory that decoding one photo may take, with the file: 100 million pixels take 1 to 2 GB."""


def receive(peer: socket.socket, count: int) -> bytearray:
    """Read exactly so many bytes.

    Raises
    ------
    EOFError
        If the other end was closed before.
    """
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        got = peer.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return data


def write_file(file: int, data: bytes) -> None:
    """Write an open file's whole content."""
    view, at = memoryview(data), 0
    os.ftruncate(file, 0)
    while at < len(data):
        at += os.pwrite(file, view[at:], at)


def read_file(file: int, count: int) -> bytes:
    """Read an open file's whole content.

    Raises
    ------
    EOFError
        If it holds less.
    """
    pieces, at = [], 0
    while at < count:
        pieces.append(os.pread(file, count - at, at))
        if not pieces[-1]:
            raise EOFError
        at += len(pieces[-1])
    return b"".join(pieces) if len(pieces) != 1 else pieces[0]
