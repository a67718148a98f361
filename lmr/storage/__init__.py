"""Whole objects, Parquet datasets and unpacked files, at any fsspec URL. Knows nothing of Dask."""

from lmr.storage.objects import (
    absolute,
    delete,
    delete_empty,
    exists,
    find,
    folder_sizes,
    is_local,
    join,
    local_path,
    open_read,
    put,
    read,
    size,
)
from lmr.storage.outside import Piece, read_outside

__all__ = [
    "Piece",
    "absolute",
    "delete",
    "delete_empty",
    "exists",
    "find",
    "folder_sizes",
    "is_local",
    "join",
    "local_path",
    "open_read",
    "put",
    "read",
    "read_outside",
    "size",
]
