"""Stored descriptors come back as unit rows, whatever they were stored as."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmr.errors import LmrError
from lmr.retrieval.descriptors import to_float

NUMBERS = {
    np.uint8: st.integers(0, 255),
    np.float16: st.floats(-1000, 1000, width=16),
    np.float32: st.floats(-(2.0**100), 2.0**100, width=32),
}


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(list(NUMBERS)))
def test_rows_are_unit_or_zero_and_keep_their_direction(data: st.DataObject, kind: type) -> None:
    stored = data.draw(hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=2), elements=NUMBERS[kind]))
    before = stored.copy()
    rows = to_float(stored)
    np.testing.assert_array_equal(stored, before)
    assert rows.dtype == np.float32
    wide = stored.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), norms > 0, rtol=1e-5)
    # The cosine with what was stored is 1.
    np.testing.assert_allclose((rows * wide).sum(axis=1), norms, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rows_that_are_not_finite_become_zero(kind: type) -> None:
    stored = np.array([[np.nan, 1], [np.inf, 1], [3, 4], [0, 0]], kind)
    np.testing.assert_allclose(to_float(stored), [[0, 0], [0, 0], [0.6, 0.8], [0, 0]], rtol=1e-6)


def test_rows_longer_than_float32_can_say_become_zero() -> None:
    np.testing.assert_array_equal(to_float(np.full((1, 9), 3e38, np.float32)), np.zeros((1, 9)))


def test_no_rows() -> None:
    assert to_float(np.empty((0, 128), np.uint8)).shape == (0, 128)


@pytest.mark.parametrize("wrong", [np.zeros(3, np.uint8), np.zeros((2, 2)), np.zeros((2, 2), np.int32)])
def test_refuses_what_is_no_descriptor(wrong: np.ndarray) -> None:
    with pytest.raises(LmrError, match="not descriptors"):
        to_float(wrong)


def test_every_half_float_is_read_as_numpy_reads_it():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    # A unit row of one number tells no more than its sign, so a one stands beside each.
    rows = np.stack([halves, np.ones_like(halves)], axis=1)
    wide = rows.astype(np.float64)
    good = np.isfinite(wide).all(axis=1)
    expected = wide[good] / np.linalg.norm(wide[good], axis=1, keepdims=True)
    found = to_float(rows)
    np.testing.assert_allclose(found[good], expected, rtol=2e-7, atol=1e-12)
    assert (found[~good] == 0).all()
