"""NumPy arrays as Arrow columns and back, without a value being touched.

A two-dimensional array becomes a fixed-size binary column, one row per value, with its dtype in the
field's metadata. Parquet's own nested lists would carry repetition levels per number, which costs
seconds per shard of local features.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "Ragged",
    "array_table",
    "arrays_of",
    "bytes_of",
    "column",
    "facts_with",
    "note_of",
    "ragged",
    "table",
    "with_facts",
    "with_note",
]


class Ragged:
    """Rows of rows: `values[offsets[i]:offsets[i + 1]]` belongs to row i.

    Parameters
    ----------
    values
        (m, d) array.
    offsets
        (n + 1,) integers, from 0 to m, not falling.
    """

    def __init__(self, values: NDArray[Any], offsets: NDArray[np.integer[Any]]) -> None:
        self.values, self.offsets = values, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[Any]:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


def table(columns: Mapping[str, Any]) -> pa.Table:
    """Build a table from NumPy arrays (1-d or 2-d), `Ragged` values and plain lists."""
    arrays, fields = [], []
    for name, value in columns.items():
        array, metadata = _to_arrow(value)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=metadata))
    return pa.table(arrays, schema=pa.schema(fields))


def column(source: pa.Table, name: str) -> NDArray[Any]:
    """Return a column as a NumPy array: 2-d for packed rows, 1-d for numbers, objects for text and bytes."""
    chunks = source.column(name)
    metadata = source.schema.field(name).metadata or {}
    if b"dtype" not in metadata:
        return np.asarray(chunks.to_numpy(zero_copy_only=False))
    dtype = np.dtype(metadata[b"dtype"].decode())
    array = chunks.combine_chunks() if chunks.num_chunks != 1 else chunks.chunk(0)
    return _rows(array, dtype)


def ragged(source: pa.Table, name: str) -> Ragged:
    """Return a list column as a `Ragged`."""
    dtype = np.dtype(source.schema.field(name).metadata[b"dtype"].decode())
    chunks = source.column(name)
    array = chunks.combine_chunks() if chunks.num_chunks != 1 else chunks.chunk(0)
    offsets = array.offsets.to_numpy()
    return Ragged(_rows(array.values, dtype)[offsets[0] : offsets[-1]], offsets - offsets[0])


def with_note(rows: pa.Table, note: str) -> pa.Table:
    """Return the rows with a sentence for people: it is printed after the run and stands in the report."""
    return rows.replace_schema_metadata({"note": note})


def with_facts(rows: pa.Table, facts: Mapping[str, Any]) -> pa.Table:
    """Return the rows with facts, as JSON, that their shard's metadata will tell besides its own."""
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), b"facts": json.dumps(facts)})


def facts_with(rows: pa.Table) -> dict[str, Any]:
    """Return the facts that `with_facts` has added, or none."""
    found: dict[str, Any] = json.loads((rows.schema.metadata or {}).get(b"facts", b"{}"))
    return found


def note_of(rows: pa.Table) -> str:
    """Return the sentence that `with_note` has added, or nothing."""
    note: bytes = (rows.schema.metadata or {}).get(b"note", b"")
    return note.decode()


def array_table(arrays: Mapping[str, NDArray[Any] | bytes]) -> pa.Table:
    """Store named arrays of any shape (a codebook, a projection, a trained index), one row each.

    Long arrays are cut into rows of 64 MiB, since Parquet pages hold less than 2 GiB. The table holds the
    arrays themselves and no copy of them: an array that lies in a mapped file stays there.
    """
    rows: dict[str, list[Any]] = {"name": [], "dtype": [], "shape": [], "part": []}
    data: list[pa.Array] = []
    for name, value in arrays.items():
        array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.ascontiguousarray(value)
        view = array.reshape(-1).view(np.uint8)
        starts = range(0, max(len(view), 1), _PART_BYTES)
        for part in range(len(starts)):
            rows["name"].append(name)
            rows["dtype"].append(array.dtype.str)
            rows["shape"].append(list(array.shape))
            rows["part"].append(part)
        ends = pa.py_buffer(np.array([*starts, len(view)], np.int64))
        buffers = [None, ends, pa.py_buffer(view)]
        data.append(pa.Array.from_buffers(pa.large_binary(), len(starts), buffers))
    types = (pa.string(), pa.string(), pa.list_(pa.int64()), pa.int32())
    columns: list[Any] = [pa.array(v, t) for v, t in zip(rows.values(), types, strict=True)]
    return pa.table([*columns, pa.chunked_array(data, pa.large_binary())], names=[*rows, "data"])


def bytes_of(sources: Iterable[pa.Table], name: str) -> Iterator[memoryview]:
    """Yield the bytes of one named array that `array_table` stored, part by part and without a copy.

    The table may come in several, one after another: the row groups of its shard.
    """
    for source in sources:
        for here, data in zip(source.column("name"), source.column("data"), strict=True):
            if here.as_py() == name:
                yield memoryview(data.as_buffer())


def arrays_of(source: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the named arrays that `array_table` stored."""
    parts: dict[str, list[memoryview]] = {}
    kinds: dict[str, tuple[str, Sequence[int]]] = {}
    data = (memoryview(one.as_buffer()) for one in source.column("data"))
    for row, part in zip(source.drop_columns("data").to_pylist(), data, strict=True):
        parts.setdefault(row["name"], []).append(part)
        kinds[row["name"]] = row["dtype"], row["shape"]
    return {
        name: np.frombuffer(b"".join(parts[name]), dtype).reshape(shape)
        for name, (dtype, shape) in kinds.items()
    }


_PART_BYTES = 64 << 20


def _to_arrow(value: Any) -> tuple[pa.Array, dict[str, str] | None]:
    if isinstance(value, Ragged):
        values, metadata = _to_arrow(np.atleast_2d(value.values))
        return pa.ListArray.from_arrays(pa.array(value.offsets, pa.int32()), values), metadata
    if isinstance(value, np.ndarray) and value.ndim == 2:
        rows = np.ascontiguousarray(value)
        width = rows.shape[1] * rows.dtype.itemsize
        array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pa.py_buffer(rows)])
        return array, {"dtype": rows.dtype.str}
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return value, None
    return pa.array(value), None


def _rows(array: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    width = array.type.byte_width // dtype.itemsize
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.empty((0, width), dtype)
    start = array.offset * array.type.byte_width
    return np.frombuffer(buffer, dtype, count=len(array) * width, offset=start).reshape(len(array), width)
