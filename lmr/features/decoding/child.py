"""The process in which photos of unknown origin are decoded: `python -m lmr.features.decoding.child FILE`.

The photo stands in the open file of this number. The process answers on the socket that is its standard
input, one photo after the other, and ends when that is closed. What a decoder may take is bounded by the
kernel, since no decoder in C can be interrupted.
"""

import json
import mmap
import resource
import signal
import socket
import sys
from contextlib import suppress

from lmr.errors import PhotoError
from lmr.features.decoding.decode import inspect_photo
from lmr.features.decoding.protocol import (
    ANSWER,
    IDLE_SECONDS,
    MEMORY_BYTES,
    REQUEST,
    read_file,
    receive,
    write_file,
)
from lmr.features.decoding.shrink import shrink_photo

__all__ = ["main"]


def main() -> None:
    """Answer until the other end is closed, or nothing has come for a while."""
    # Processor time, not time: a machine that stands still for a while makes no photo a slow one.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    photo = int(sys.argv[1])
    _bound_memory()
    with socket.socket(fileno=0) as caller, suppress(EOFError, TimeoutError, ConnectionError):
        while True:
            caller.settimeout(IDLE_SECONDS)
            length, max_pixels, max_scans, seconds, max_side = REQUEST.unpack(receive(caller, REQUEST.size))
            caller.settimeout(None)
            data = read_file(photo, length)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            found, shrunk = _inspect(data, max_pixels, max_scans, max_side)
            signal.setitimer(signal.ITIMER_PROF, 0)
            del data
            if shrunk:
                write_file(photo, shrunk)
            answer = json.dumps(found).encode()
            caller.sendall(ANSWER.pack(len(answer), len(shrunk)) + answer)


def _inspect(data: bytes, max_pixels: int, max_scans: int, max_side: int) -> tuple[dict[str, object], bytes]:
    try:
        if max_side:
            found = shrink_photo(data, max_side, max_pixels=max_pixels, max_scans=max_scans)
        else:
            found = inspect_photo(data, max_pixels=max_pixels, max_scans=max_scans)
    except PhotoError as error:
        return {"reason": error.what, "got": error.got, "fix": error.fix}, b""
    except MemoryError:
        return {"reason": f"needs more than {MEMORY_BYTES >> 30} GiB of memory to be decoded"}, b""
    return {"width": found.width, "height": found.height, "note": found.note}, found.shrunk


def _bound_memory() -> None:
    """Bound the address space beyond what the process has at its start; only Linux keeps such a bound."""
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:
        own = int(file.read().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY_BYTES, own + MEMORY_BYTES))


if __name__ == "__main__":
    main()
