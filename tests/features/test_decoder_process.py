"""Decoding in a process of its own: bounded time and memory, ended and started again, blaming no photo."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from lmr.errors import LmrError, PhotoError
from lmr.features.decoding import inspect_photo, process
from lmr.features.decoding.process import inspect_apart
from tests.features.test_decode import DAMAGED, WHOLE, file, noise, scene
from tests.features.test_kinds_of_photos import many_scans


def child():
    """Return the one idle decoder's process."""
    (decoder,) = process._idle
    return psutil.Process(decoder._process.pid)


@pytest.fixture(autouse=True)
def one_decoder():
    process._end_all()
    yield
    process._end_all()


def test_says_the_same_as_in_this_process():
    for make in WHOLE.values():
        assert inspect_apart(make()) == inspect_photo(make())
    for make, reason in DAMAGED.values():
        with pytest.raises(PhotoError) as caught:
            inspect_apart(make())
        assert caught.value.what == reason
    assert len(process._idle) == 1


def test_a_photo_that_takes_too_long_is_told_and_the_next_one_is_decoded():
    slow = many_scans(3000, side=1500)
    start = time.monotonic()
    with pytest.raises(PhotoError, match=r"^takes more than 0.5 s to decode"):
        inspect_apart(slow, max_scans=10**6, max_seconds=0.5)
    assert time.monotonic() - start < 60
    assert inspect_apart(file(scene())).width == 96


def test_what_needs_too_much_memory_is_a_reason():
    inspect_apart(file(scene()))
    soft = 400 << 20
    resident = child()
    resident.rlimit(psutil.RLIMIT_AS, (soft, soft))
    large = file(np.zeros((9000, 9000, 3), np.uint8), "PNG")
    with pytest.raises(PhotoError, match="memory"):
        inspect_apart(large)


def test_a_decoder_killed_while_idle_is_replaced_without_a_word():
    inspect_apart(file(scene()))
    for number in (signal.SIGKILL, signal.SIGSEGV):
        child().send_signal(number)
        assert inspect_apart(file(scene())).width == 96


CRASHING = """
import os, signal
from lmr.features.decoding import child
child._inspect = lambda *_: os.kill(os.getpid(), {number})
child.main()
"""


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_the_photo_s_and_a_kill_is_not(number, monkeypatch):
    begun = []
    popen = subprocess.Popen

    def crashing(command, **options):
        begun.append(command)
        return popen([sys.executable, "-c", CRASHING.format(number=int(number)), command[-1]], **options)

    monkeypatch.setattr(subprocess, "Popen", crashing)
    if number == signal.SIGSEGV:
        with pytest.raises(PhotoError, match=r"^damaged JPEG: it crashes the decoder"):
            inspect_apart(file(noise()))
    else:
        with pytest.raises(LmrError, match="ended from outside") as caught:
            inspect_apart(file(noise()))
        assert not isinstance(caught.value, PhotoError)
    assert len(begun) == 3


def test_a_decoder_ends_with_the_process_that_asks():
    code = (
        "import os, sys\nfrom lmr.features.decoding import process\n"
        "from tests.features.test_decode import file, scene\n"
        "process.inspect_apart(file(scene()))\n"
        "print(process._idle[0]._process.pid, flush=True)\nos._exit(0)"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    pid = int(done.stdout)
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("the decoder lives on")
