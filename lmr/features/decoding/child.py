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
from lmr.features.decoding.protocol import ANSWER, IDLE_SECONDS, MEMORY_BYTES, REQUEST, read_file, receive

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
            length, max_pixels, max_scans, seconds = REQUEST.unpack(receive(caller, REQUEST.size))
            caller.settimeout(None)
            data = read_file(photo, length)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            answer = json.dumps(_inspect(data, max_pixels, max_scans)).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)
            del data
            caller.sendall(ANSWER.pack(len(answer)) + answer)


def _inspect(data: bytes, max_pixels: int, max_scans: int) -> dict[str, object]:
    try:
        found = inspect_photo(data, max_pixels=max_pixels, max_scans=max_scans)
    except PhotoError as error:
        return {"reason": error.what, "got": error.got, "fix": error.fix}
    except MemoryError:
        return {"reason": f"needs more than {MEMORY_BYTES >> 30} GiB of memory to be decoded"}
    return {"width": found.width, "height": found.height, "note": found.note}


def _bound_memory() -> None:
    """Bound the address space beyond what the process has at its start; only Linux keeps such a bound."""
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:
        own = int(file.read().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY_BYTES, own + MEMORY_BYTES))


if __name__ == "__main__":
    main()
