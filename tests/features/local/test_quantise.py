import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmr.features.local.quantise import to_int8
from lmr.retrieval.descriptors import to_float


def test_unit_rows_come_back_with_the_rounding_of_eight_bits():
    rows = to_float(np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32))
    stored = to_int8(rows.astype(np.float16))
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(np.abs(stored.astype(int)).max(axis=1), 127)
    back = to_float(stored)
    assert (back * rows).sum(axis=1).min() > 0.9999
    similarities = rows @ rows[:50].T
    assert np.abs(back @ back[:50].T - similarities).max() < 0.006


@given(arrays(np.float16, (3, 8), elements=st.floats(-1000, 1000, width=16)), st.integers(-3, 3))
def test_a_row_keeps_its_direction_whatever_its_length(rows, power):
    np.testing.assert_array_equal(to_int8(rows.astype(np.float32) * np.float32(2.0**power)), to_int8(rows))
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float32)
    restored = to_int8(rows) * largest / 127
    np.testing.assert_allclose(restored, rows, atol=float(largest.max()) / 200)


def test_rows_of_zeros_and_rows_that_are_not_finite_become_zero():
    rows = np.ones((4, 5), np.float16)
    rows[0], rows[1, 2], rows[2, 0] = 0, np.nan, np.inf
    np.testing.assert_array_equal(to_int8(rows), [[0] * 5] * 3 + [[127] * 5])
    assert to_int8(np.empty((0, 64), np.float16)).shape == (0, 64)
