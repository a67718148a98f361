"""Parquet files are read in the thread that asks.

Arrow's own threads let go of a Python file or buffer some time after the reader has its rows. Where the
interpreter is ending by then, Python ends such a thread, and the C++ library aborts the whole process: all is
written, and the exit code is 134 (apache/arrow issue 34314). A task has one thread of its own anyway.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["open_parquet", "read_parquet"]


def open_parquet(source: Any, *, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open a Parquet file that verifies its pages' checksums, where it has them, and starts no thread.

    Parameters
    ----------
    source
        A file that is open for reading, or a buffer of Arrow's.
    footer
        What its footer says, where that is read already.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If it is no Parquet file.
    """
    return pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, pre_buffer=False)


def read_parquet(
    parquet: pq.ParquetFile,
    columns: Sequence[str] | None = None,
    *,
    row_groups: Iterable[int] | None = None,
) -> pa.Table:
    """Read a Parquet file, or a part of it, without threads of Arrow's.

    Parameters
    ----------
    parquet
        The file, as `open_parquet` returns it.
    columns
        The columns to read, by name; all where it is None. Those that are not in the file are left out.
    row_groups
        The row groups to read, by number; all where it is None.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If the file is damaged.
    """
    names = None if columns is None else list(columns)
    if row_groups is None:
        return parquet.read(names, use_threads=False)
    return parquet.read_row_groups(list(row_groups), columns=names, use_threads=False)
