"""A process's own memory: what it holds, without the files that it maps, and the peak of that."""

import mmap
import multiprocessing
import time

import psutil
import pytest

from lmr.runtime import own_memory
from lmr.runtime.own_memory import own_bytes, watched_peak

HELD_BYTES = 64 << 20


def _psutils():
    info = psutil.Process().memory_info()
    return info.rss - info.shared


def test_it_is_what_psutil_says():
    assert own_bytes() == pytest.approx(_psutils(), abs=2 << 20)


def test_where_there_is_no_such_file_psutil_is_asked(monkeypatch):
    def without(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(own_memory, "open", without, raising=False)
    assert own_bytes() == pytest.approx(_psutils(), abs=2 << 20)


def test_a_peak_that_is_over_is_kept_and_a_mapped_file_is_none(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(bytes(HELD_BYTES))
    before = own_bytes()
    with watched_peak() as peak, path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m.read().count(1) == 0
        time.sleep(0.06)
        del m
    with watched_peak() as own_peak:
        held = bytearray(b"1" * HELD_BYTES)
        time.sleep(0.06)
        del held
        assert own_peak() > before + HELD_BYTES / 2
    # Reading the mapped file took a copy of it once; the pages of the file itself are not counted.
    assert before <= peak() < before + 1.5 * HELD_BYTES


def _of_a_fork(answer):
    held = bytearray(b"1" * HELD_BYTES)
    answer.send(own_bytes())
    del held


def test_a_forked_process_tells_of_itself():
    """The file that its parent had open would tell of its parent."""
    with watched_peak():
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=_of_a_fork, args=(theirs,))
        process.start()
        assert ours.recv() > HELD_BYTES
        process.join()
