"""Photos of unknown origin are decoded in a process that can be ended: it is started once and used again."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

from lmr.errors import LmrError, PhotoError, one_line
from lmr.features.decoding.decode import MAX_PIXELS, MAX_SCANS, Inspected
from lmr.features.decoding.formats import format_of
from lmr.features.decoding.protocol import ANSWER, REQUEST, read_file, receive, write_file

__all__ = ["MAX_SECONDS", "inspect_apart"]

MAX_SECONDS = 20.0
"""Processor time for one photo; 100 million pixels take 1 to 10 s."""

_CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)
_STALLED_SECONDS = 60.0

_idle: list["_Decoder"] = []
_lock = threading.Lock()


def inspect_apart(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_scans: int = MAX_SCANS,
    max_seconds: float = MAX_SECONDS,
    max_side_px: int = 0,
) -> Inspected:
    """Look at a photo as `inspect_photo` does, in another process, within bounds of time and memory.

    A photo of a longer side than `max_side_px` is shrunk as `shrink_photo` does.

    Parameters
    ----------
    data
        The bytes of the file.
    max_pixels, max_scans
        As of `inspect_photo`.
    max_seconds
        Processor time, s.
    max_side_px
        Longest side that a photo keeps, pixels; 0: any.

    Raises
    ------
    PhotoError
        If the photo cannot be used; also if it takes too long or crashes the decoder.
    LmrError
        If the decoder was ended from outside or cannot be started, which says nothing of the photo.
    """
    request = REQUEST.pack(len(data), max_pixels, max_scans, max_seconds, max_side_px)
    name = form.name if (form := format_of(data)) else "file"
    code: int | None = None
    # A decoder that was idle may have ended meanwhile, and a crash must show twice to be the photo's.
    for fresh in (False, True, True):
        decoder = _take(fresh)
        try:
            found, shrunk = decoder.ask(request, data, stalled_seconds=10 * max_seconds + _STALLED_SECONDS)
        except (EOFError, ConnectionError):
            code = decoder.end()
            if code == -signal.SIGPROF:
                raise PhotoError(
                    f"takes more than {max_seconds:g} s to decode",
                    fix="save the photo anew, or raise ingest.max_seconds",
                ) from None
            continue
        except BaseException:
            decoder.end()
            raise
        with _lock:
            _idle.append(decoder)
        if "reason" in found:
            raise PhotoError(found["reason"], got=found.get("got"), fix=found.get("fix"))
        return Inspected(found["width"], found["height"], found["note"], shrunk)
    if code is not None and -code in _CRASHES:
        raise PhotoError(f"damaged {name}: it crashes the decoder", got=signal.Signals(-code).name)
    raise LmrError(
        "the process that decodes photos was ended from outside",
        got=f"exit status {code}",
        fix="see that the machine has memory left, then run the same command again",
    )


def _take(fresh: bool) -> "_Decoder":
    with _lock:
        if _idle and not fresh:
            return _idle.pop()
    return _Decoder()


def _new_file() -> int:
    """Open a file without a name; in memory, where there is such a thing."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("photo")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Decoder:
    """A process that decodes, the socket to it, and the file in which it finds a photo."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        # One thread: others would count as processor time and take address space.
        environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        # In memory: a photo is copied once to it and once from it, which a socket takes far longer for.
        self._photo = _new_file()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "lmr.features.decoding.child", str(self._photo)],
                    pass_fds=(self._photo,),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the one who asks; the closed socket ends this one
                )
        except OSError as error:
            self._socket.close()
            os.close(self._photo)
            raise LmrError(
                "the process that decodes photos cannot be started",
                got=one_line(error),
                fix=f"use a Python that this user may run (this is {sys.executable}), and see that the "
                "user's number of processes is not used up",
            ) from error

    def ask(self, request: bytes, data: bytes, *, stalled_seconds: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and a file; return the answer, and the shrunk photo if there is one."""
        self._socket.settimeout(stalled_seconds)
        try:
            write_file(self._photo, data)
            self._socket.sendall(request)
            length, shrunk_bytes = ANSWER.unpack(receive(self._socket, ANSWER.size))
            answer: dict[str, Any] = json.loads(receive(self._socket, length))
            shrunk = read_file(self._photo, shrunk_bytes) if shrunk_bytes else b""
        except TimeoutError as error:
            raise LmrError(
                f"the process that decodes photos did not answer for {stalled_seconds:.0f} s",
                fix="see whether the machine swaps or was suspended, then run the same command again",
            ) from error
        return answer, shrunk

    def end(self) -> int:
        """End the process; return its exit status."""
        self._socket.close()
        os.close(self._photo)
        try:
            # One that has ended by itself shows how.
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@atexit.register
def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()
