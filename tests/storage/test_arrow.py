import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lmr.storage.arrow import Ragged, array_table, arrays_of, column, note_of, ragged, table, with_note

DTYPES = st.sampled_from([np.uint8, np.int32, np.int64, np.float16, np.float32])


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(DTYPES, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)))
def test_arrays_come_back_as_they_were(array):
    if array.ndim == 2 and array.shape[1] == 0:
        return
    back = column(table({"x": array}), "x")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_slice_of_a_table_gives_its_rows():
    rows = table({"x": np.arange(12, dtype=np.int32).reshape(6, 2)}).slice(2, 3)
    np.testing.assert_array_equal(column(rows, "x"), [[4, 5], [6, 7], [8, 9]])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=6))
def test_ragged_rows_come_back(counts):
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = np.arange(offsets[-1] * 3, dtype=np.float32).reshape(-1, 3)
    back = ragged(table({"x": Ragged(values, offsets)}), "x")
    np.testing.assert_array_equal(back.offsets, offsets)
    np.testing.assert_array_equal(back.values, values)
    assert [len(back[i]) for i in range(len(back))] == counts


def test_named_arrays_of_any_shape():
    arrays = {
        "a": np.float64(3.5) * np.ones((2, 3, 4)),
        "b": np.array(7),
        "empty": np.empty((0, 5), np.int16),
    }
    back = arrays_of(array_table({**arrays, "bytes": b"xyz"}))
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    assert back["bytes"].tobytes() == b"xyz"


def test_a_note_travels_with_the_rows_and_is_nothing_where_there_is_none():
    rows = table({"x": np.arange(3)})
    assert note_of(rows) == ""
    assert note_of(with_note(rows, "recall 0.95")) == "recall 0.95"
    assert with_note(rows, "recall 0.95").equals(rows)
