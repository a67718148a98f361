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


def test_a_peak_that_is_over_is_kept():
    before = own_bytes()
    with watched_peak() as peak:
        held = bytearray(b"1" * HELD_BYTES)
        time.sleep(0.06)
        del held
        assert own_bytes() < before + HELD_BYTES / 2
        assert peak() > before + 0.9 * HELD_BYTES
    assert peak() > before + 0.9 * HELD_BYTES


def test_the_pages_of_a_mapped_file_do_not_count(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(bytes(HELD_BYTES))
    before = own_bytes(), psutil.Process().memory_info().rss
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert psutil.Process().memory_info().rss > before[1] + 0.9 * HELD_BYTES
        assert own_bytes() < before[0] + 0.1 * HELD_BYTES


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
