"""Plain tables as files: CSV, Parquet, NumPy's arrays and HDF5. Rows are written as they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.steps.results.csv_rows import csv_header, csv_lines

__all__ = ["SINKS", "Sink", "h5py_module"]


class Sink(Protocol):
    """Takes tables of one layout, and writes them."""

    left_out: str
    """What of the tables the format does not carry, for people; empty where it carries all."""

    def write(self, rows: pa.Table) -> None:
        """Add some rows."""
        ...

    def close(self) -> None:
        """Finish the files."""
        ...


class CsvSink:
    """`NAME.csv`; a vector is a column per number, and lists of unlike lengths are left out.

    Parameters
    ----------
    folder
        An existing folder.
    name
        What is written, such as "pairs".
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.file = open(folder / f"{name}.csv", "w", encoding="utf-8", newline="")  # noqa: SIM115
        self.empty, self.left_out = True, ""

    def write(self, rows: pa.Table) -> None:
        """Add some rows."""
        columns: dict[str, Any] = {}
        lists = []
        for name in rows.column_names:
            values = rows.column(name)
            if pa.types.is_list(values.type):
                lists.append(name)
            elif pa.types.is_fixed_size_list(values.type):
                numbers = _vectors(values)
                columns |= {f"{name}_{i}": numbers[:, i] for i in range(numbers.shape[1])}
            else:
                columns[name] = values
        flat = pa.table(columns)
        if self.empty:
            self.file.write(csv_header(flat))
            self.left_out = f"CSV holds no lists: {', '.join(lists)} left out" if lists else ""
            self.empty = False
        self.file.write(csv_lines(flat))

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


class ParquetSink:
    """`NAME.parquet`; a vector is a list of a fixed length.

    Parameters
    ----------
    folder
        An existing folder.
    name
        What is written, such as "pairs".
    """

    left_out = ""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.parquet"
        self.writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Add some rows."""
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, rows.schema, compression="zstd")
        self.writer.write_table(rows.cast(self.writer.schema))

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()


class NpySink:
    """A file `NAME.COLUMN.npy` for each column of numbers, and `NAME.csv` with the texts of every row.

    Row i of all files is one. Of lists, `NAME.COLUMN.npy` holds the items of all rows, one after another:
    those of row i are `items[offsets[i]:offsets[i + 1]]`, by `NAME.COLUMN.offsets.npy`.

    Parameters
    ----------
    folder
        An existing folder.
    name
        What is written, such as "pairs".
    """

    left_out = ""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.texts = CsvSink(folder, name)
        self.arrays: dict[str, _GrowingNpy] = {}

    def write(self, rows: pa.Table) -> None:
        """Add some rows."""
        self.texts.write(rows.select([n for n in rows.column_names if _is_text(rows.column(n))]))
        for name, values in _arrays(rows, self._starts):
            if name not in self.arrays:
                self.arrays[name] = _GrowingNpy(self.folder / f"{self.name}.{name}.npy", values)
            self.arrays[name].write(values)

    def _starts(self, name: str) -> int | None:
        return self.arrays[name].rows if name in self.arrays else None

    def close(self) -> None:
        """Finish the files."""
        self.texts.close()
        for array in self.arrays.values():
            array.close()


class _GrowingNpy:
    """An array file that grows by its first axis: NumPy leaves room for that in the header."""

    def __init__(self, path: Path, like: NDArray[Any]) -> None:
        self.file = open(path, "w+b")  # noqa: SIM115
        self.about = header_data_from_array_1_0(np.ascontiguousarray(like[:0]))
        self.rows, self.shape, self.dtype = 0, like.shape[1:], like.dtype
        self._header()
        self.header_bytes = self.file.tell()

    def _header(self) -> None:
        write_array_header_1_0(self.file, {**self.about, "shape": (self.rows, *self.shape)})

    def write(self, values: NDArray[Any]) -> None:
        self.file.write(np.ascontiguousarray(values, self.dtype).tobytes())
        self.rows += len(values)

    def close(self) -> None:
        self.file.seek(0)
        self._header()
        assert self.file.tell() == self.header_bytes
        self.file.close()


class H5Sink:
    """`NAME.h5`: a dataset for each column, of which row i of all is one; of lists as `NpySink` says.

    Parameters
    ----------
    folder
        An existing folder.
    name
        What is written, such as "pairs".
    """

    left_out = ""

    def __init__(self, folder: Path, name: str) -> None:
        self.h5py = h5py_module()
        self.file = self.h5py.File(folder / f"{name}.h5", "w")

    def write(self, rows: pa.Table) -> None:
        """Add some rows."""
        for name in rows.column_names:
            if _is_text(rows.column(name)):
                self._append(name, np.array(rows.column(name).to_pylist(), object), self.h5py.string_dtype())
        for name, values in _arrays(rows, self._starts):
            self._append(name, values, values.dtype)

    def _append(self, name: str, values: NDArray[Any], dtype: Any) -> None:
        if name not in self.file:
            shape = (0, *values.shape[1:])
            self.file.create_dataset(
                name, shape, dtype, maxshape=(None, *shape[1:]), chunks=(max(len(values), 1), *shape[1:])
            )
        dataset = self.file[name]
        before = len(dataset)
        dataset.resize(before + len(values), axis=0)
        dataset[before:] = values

    def _starts(self, name: str) -> int | None:
        return len(self.file[name]) if name in self.file else None

    def close(self) -> None:
        """Finish the file."""
        self.file.close()


def h5py_module() -> Any:
    """Return the library of HDF5.

    Raises
    ------
    LmrError
        If it is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise LmrError(
            "HDF5 needs a package more", got=str(error), fix='pip install "lmr[export]"'
        ) from error
    return h5py


def _is_text(values: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def _arrays(rows: pa.Table, starts: Callable[[str], int | None]) -> list[tuple[str, NDArray[Any]]]:
    """Return the numbers of a table, by column; lists as items and offsets.

    Parameters
    ----------
    rows
        A plain table.
    starts
        Tells how many rows of an array are written already; None before the first.
    """
    found: list[tuple[str, NDArray[Any]]] = []
    for name in rows.column_names:
        values = rows.column(name)
        if pa.types.is_list(values.type):
            lists = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
            offsets = np.asarray(lists.offsets, np.int64)
            items = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
            vectors = pa.types.is_fixed_size_list(items.type)
            before = starts(name)
            ends = offsets[1:] - offsets[0] + (before or 0)
            found += [
                (f"{name}.offsets", np.append([0], ends) if before is None else ends),
                (name, _vectors(items) if vectors else np.asarray(items)),
            ]
        elif pa.types.is_fixed_size_list(values.type):
            found.append((name, _vectors(values)))
        elif not _is_text(values):
            found.append((name, values.to_numpy()))
    return found


def _vectors(values: pa.ChunkedArray | pa.FixedSizeListArray) -> NDArray[Any]:
    """Return lists of one length as an (n, d) array."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return np.asarray(array.flatten()).reshape(len(array), values.type.list_size)


SINKS: dict[str, Callable[[Path, str], Sink]] = {
    "csv": CsvSink,
    "parquet": ParquetSink,
    "npy": NpySink,
    "h5": H5Sink,
}
"""Formats that take any table, by their name."""
