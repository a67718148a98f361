"""Ctrl-C: whatever it meets, the command ends with one sentence and code 130, and without a traceback.

An interrupt that meets an import or a library in C may come out as an error of another kind. So it is noted
when it comes, and whatever ends the command afterwards is told as the interrupt.
"""

import os
import signal
import sys
from types import FrameType

__all__ = ["INTERRUPTED", "STOPPED", "end", "happened", "leave_at_once", "note"]

INTERRUPTED = 130
STOPPED = "stopped; run the same command again to go on from here"

_noted = False


def leave_at_once() -> None:
    """End the process at an interrupt, while it only loads modules: there is nothing to close."""
    signal.signal(signal.SIGINT, _leave)


def note() -> None:
    """From here on, raise `KeyboardInterrupt` at an interrupt, and remember it."""
    signal.signal(signal.SIGINT, _raise)


def happened() -> bool:
    """Tell whether there was an interrupt."""
    return _noted


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(INTERRUPTED)


def _raise(number: int, frame: FrameType | None) -> None:
    global _noted
    _noted = True
    raise KeyboardInterrupt


def end() -> None:
    """End the process as one that was interrupted."""
    print(STOPPED, file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED)
