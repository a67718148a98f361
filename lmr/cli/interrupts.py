"""Ctrl-C: whatever it meets, the command ends with one sentence and code 130, and without a traceback.

An interrupt that meets an import or a library in C may come out as an error of another kind. So it is noted
when it comes, and whatever ends the command afterwards is told as the interrupt.
"""

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

__all__ = ["INTERRUPTED", "STOPPED", "end", "happened", "leave_at_once", "note", "say"]

INTERRUPTED = 130
STOPPED = "stopped; run the same command again to go on from here"

# As long as a callback may take until the interrupt that it swallowed is raised again.
_AGAIN_SECONDS = 0.05

_said = STOPPED
_noted = False
_ended = False


def leave_at_once() -> None:
    """End the process at an interrupt, while it only loads modules: there is nothing to close."""
    signal.signal(signal.SIGINT, _leave)


def note() -> None:
    """From here on, raise `KeyboardInterrupt` at an interrupt, and remember it."""
    atexit.register(_keep_code)  # what is registered first runs last
    signal.signal(signal.SIGINT, _raise)
    sys.unraisablehook = _again


def say(text: str) -> None:
    """Say this at an interrupt from here on, where the command leaves nothing to go on from."""
    global _said
    _said = text


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


def _again(met: "UnraisableHookArgs") -> None:
    # Python shows the traceback of what comes in a callback of a weak reference or in `__del__`, and goes on.
    # Python 3.14 has such a callback at imports.
    if not issubclass(met.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(met)
        return
    timer = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()


def _keep_code() -> None:
    # Where an interrupt has met code in an `exec`, as named tuples have it at an import, `python -m` ends by
    # the signal, whatever code was asked for since.
    if _ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def end() -> None:
    """End the process as one that was interrupted."""
    global _ended
    _ended = True
    print(_said, file=sys.stderr, flush=True)
    sys.exit(INTERRUPTED)
