"""Sizes of what steps read, and where the features of photos lie."""

import tracemalloc

import numpy as np
import pytest

from lmr.steps.sizes import blocks, runs_of

OWNERS = np.repeat(np.arange(3000, dtype=np.int32), 500)


def test_the_runs_of_photos_are_found_and_a_photo_without_features_has_an_empty_one():
    owners = np.array([0, 0, 2, 2, 2, 5], np.int32)
    starts, stops = runs_of(owners, [2, 1, 5, 0, 9])
    assert starts.tolist() == [2, 2, 5, 0, 6]
    assert stops.tolist() == [5, 2, 6, 2, 6]


@pytest.mark.parametrize("photos", [np.array([7, 2999]), [7, 2999], np.array([7, 2999], np.int32)])
def test_the_features_of_all_photos_are_not_converted(photos):
    # They are mapped, and a hundred million at the contest's size.
    tracemalloc.start()
    try:
        starts, _ = runs_of(OWNERS, photos)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert starts.tolist() == [3500, 1_499_500]
    assert peak < OWNERS.nbytes // 100


def test_blocks_hold_whole_photos():
    assert blocks([3, 3, 3, 9, 1], 6) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert blocks([], 6) == [(0, 0)]
