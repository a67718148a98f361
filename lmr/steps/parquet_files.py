"""Parquet files that users give: lists of photos, and own descriptors."""

import pyarrow as pa

from lmr.errors import LmrError
from lmr.storage.parquet import open_parquet, read_parquet
from lmr.text import printable

__all__ = ["parquet_table"]


def parquet_table(data: bytes, name: str) -> pa.Table:
    """Return the rows of a file, with every value checked.

    Parameters
    ----------
    data
        The bytes of the file.
    name
        What errors call it.

    Raises
    ------
    LmrError
        If it is no Parquet file, or is damaged.
    """
    try:
        rows = read_parquet(open_parquet(pa.BufferReader(data)))
        rows.validate(full=True)  # text that is no UTF-8 would fail where it is used
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        # Arrow says OSError of pages that cannot be unpacked.
        raise LmrError(
            f"{printable(name)} is no Parquet file, or damaged", got=str(error)[:200], fix="write it again"
        ) from error
    return rows
