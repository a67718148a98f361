"""Shards as any library reads them: packed rows become lists of numbers."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import StorageError
from lmr.storage import objects
from lmr.storage.arrow import column, ragged
from lmr.storage.parquet import open_parquet, read_parquet

__all__ = ["plain", "read_shard"]


def read_shard(url: str) -> pa.Table:
    """Read a shard of any step as a table that pandas and DuckDB understand.

    The files themselves hold vectors as bytes. pandas cannot read lists of those at all.

    Parameters
    ----------
    url
        A file `part-00000.parquet` of a run: a path, or any fsspec URL.

    Returns
    -------
    rows
        A row as in the file. A vector is a list of numbers, and float16 numbers are float32.

    Raises
    ------
    StorageError
        If there is no such file, or it is damaged.

    Examples
    --------
    >>> import lmr
    >>> pairs = lmr.read_shard("run/pairs/0a1b2c3d4e5f/part-00000.parquet")  # doctest: +SKIP
    >>> pairs.to_pandas()  # doctest: +SKIP
    """
    try:
        with objects.open_read(url) as file:
            return plain(read_parquet(open_parquet(file)))
    except (pa.ArrowException, OSError, ValueError) as error:
        got = f"{url}: {' '.join(str(error).split())[:200]}"
        raise StorageError("a shard cannot be read", got=got, fix="name a Parquet file of a run") from error


def plain(rows: pa.Table) -> pa.Table:
    """Return rows with every packed column as lists of numbers; all other columns stay as they are.

    Parameters
    ----------
    rows
        As `lmr.storage.arrow.table` builds them.

    Returns
    -------
    rows
        A packed row is a list of a fixed length, and a list of rows is a list of such lists.
        Lists of single numbers are flat. float16 becomes float32, which every reader knows.
    """
    columns: dict[str, Any] = {}
    for field in rows.schema:
        if b"dtype" not in (field.metadata or {}):
            columns[field.name] = rows.column(field.name)
        elif pa.types.is_list(field.type):
            found = ragged(rows, field.name)
            offsets = pa.array(np.asarray(found.offsets, np.int32))
            columns[field.name] = pa.ListArray.from_arrays(offsets, _lists(found.values, flat=True))
        else:
            columns[field.name] = _lists(column(rows, field.name))
    return pa.table(columns)


def _lists(values: NDArray[Any], *, flat: bool = False) -> pa.Array:
    """Return (n, d) numbers as n lists of d; with `flat` and d = 1 as n numbers."""
    numbers = values.astype(np.float32) if values.dtype == np.float16 else values
    width = numbers.shape[1]
    array = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    return array if flat and width == 1 else pa.FixedSizeListArray.from_arrays(array, width)
