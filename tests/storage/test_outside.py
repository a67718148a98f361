"""Files from outside are read whole up to a bound, and no more memory is asked for than they have."""

import tracemalloc

from lmr.errors import PhotoError
from lmr.storage.outside import read_outside

PIECE = 1 << 20


def test_a_small_file_takes_no_room_for_the_largest(tmp_path):
    (tmp_path / "small.jpg").write_bytes(b"small")
    tracemalloc.start()
    found = read_outside([str(tmp_path / "small.jpg")], most_bytes=256 * PIECE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [b"small"]
    assert peak < 8 * PIECE


def test_files_longer_than_a_piece_come_whole_and_those_beyond_the_bound_do_not(tmp_path):
    content = bytes(range(256)) * (3 * PIECE // 256) + b"end"
    (tmp_path / "long.jpg").write_bytes(content)
    long = str(tmp_path / "long.jpg")
    assert read_outside([long], most_bytes=len(content)) == [content]
    (too_long,) = read_outside([long], most_bytes=len(content) - 1)
    assert isinstance(too_long, PhotoError)
