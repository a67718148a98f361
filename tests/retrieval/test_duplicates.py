"""Copies by hashes: the index finds what brute force finds, and groups do not chain."""

import numpy as np
import pytest

from lmr.retrieval.duplicates import first_of_each, near_pairs, same_rows, with_copies


def flipped(rng, hashes, bits):
    """Hashes with so many bits of each changed."""
    made = np.unpackbits(hashes, axis=1)
    for row in made:
        row[rng.choice(len(row), bits, replace=False)] ^= 1
    return np.packbits(made, axis=1)


@pytest.mark.parametrize("max_bits", [0, 7, 15, 16, 24, 31, 40, 47])
def test_pairs_are_those_of_brute_force(max_bits):
    rng = np.random.default_rng(max_bits)
    base = rng.integers(0, 256, (40, 32), np.uint8)
    known = np.concatenate([flipped(rng, base, bits) for bits in (0, max_bits, max_bits + 1, 60)])
    far = np.bitwise_count(base[:, None] ^ known[None]).sum(-1, dtype=np.int64)
    row, other = np.nonzero(far <= max_bits)
    order = np.lexsort((other, far[row, other], row))
    found = near_pairs(base, known, max_bits)
    for got, wanted in zip(found, (row[order], other[order], far[row, other][order]), strict=True):
        assert np.array_equal(got, wanted)
    assert len(row) >= 80  # the unchanged, and those at the limit itself


def test_nothing_has_no_pairs():
    empty, one = np.empty((0, 32), np.uint8), np.zeros((1, 32), np.uint8)
    for pair in ((empty, one), (one, empty)):
        assert [len(part) for part in near_pairs(*pair, 24)] == [0, 0, 0]
    assert len(same_rows(np.empty((0, 16), np.uint8))) == 0


def test_a_chain_is_no_group():
    # Each of these is near to the next only: 2 is no copy of 0.
    row, other = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4])
    assert first_of_each(6, row, other).tolist() == [0, 0, 2, 2, 4, 5]
    assert first_of_each(6, other, row).tolist() == [0, 0, 2, 2, 4, 5]


def test_later_photos_change_nothing_for_earlier_ones():
    rng = np.random.default_rng(0)
    row, other = rng.integers(0, 60, (2, 200))
    whole = first_of_each(60, row, other)
    early = (row < 40) & (other < 40)
    assert first_of_each(40, row[early], other[early]).tolist() == whole[:40].tolist()
    assert (whole[whole] == whole).all()


def test_copies_stand_together_take_the_best_score_and_missing_ones_are_added():
    first = np.array([0, 1, 0, 0, 4, 4])
    photos = np.array([[3, 1, 2, -1], [5, 1, 3, 0], [-1, -1, -1, -1]], np.int32)
    scores = np.array([[0.9, 0.5, 0.4, 0], [0.8, 0.7, 0.6, 0.5], [0, 0, 0, 0]], np.float32)
    made, kept = with_copies(photos, scores, first)
    assert made.tolist() == [[3, 2, 0, 1], [5, 4, 1, 3], [-1, -1, -1, -1]]
    assert (
        kept.tolist() == np.array([[0.9, 0.9, 0.9, 0.5], [0.8, 0.8, 0.7, 0.6], [0] * 4], np.float32).tolist()
    )


def test_lists_without_copies_stay_as_they_are():
    photos = np.array([[2, 0, -1], [1, 2, 0]], np.int32)
    scores = np.array([[2, 1, 0], [3, 2, 1]], np.float32)
    made, kept = with_copies(photos, scores, np.arange(3))
    assert np.array_equal(made, photos)
    assert np.array_equal(kept, scores)
