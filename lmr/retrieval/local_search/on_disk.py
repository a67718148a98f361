"""Sub-indexes of local descriptors merged on a machine's disk: each inverted list in one piece.

A search makes a table of distances for each list that it looks into, and does so anew for every index. Where
sub-indexes are many and their lists short, the tables take longer than the codes. Merged, they are made once
for all. What is found stays the same, since a list holds what the lists held, one after the other.

An open list costs a process 24 bytes, where it costs 260 in a sub-index that faiss maps.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from lmr.errors import LmrError
from lmr.retrieval.local_search.inverted_file import list_sizes, open_index

__all__ = ["MERGED_LIST_BYTES", "open_merged", "write_merged"]

MERGED_LIST_BYTES = 24.0  # memory of a process for each list of a merged index that it has open

_LIBRARY: Any = faiss  # its stubs do not know the inverted lists
_HEAD, _LISTS, _SIZES = "index.faiss", "lists", "sizes.npy"
_ID_BYTES = 8


def write_merged(sources: Iterable[Path], folder: Path) -> None:
    """Write sub-indexes of one quantiser as one index.

    Parameters
    ----------
    sources
        Files of sub-indexes, in order of their photo rows; one of them is held beside the merged index at a
        time, and may be deleted when the next one is asked for.
    folder
        Where the files go; it exists.
    """
    rest = iter(sources)
    merged = _read(next(rest))
    for source in rest:
        merged.merge_from(_read(source), 0)
    np.save(folder / _SIZES, list_sizes(merged))
    writer = _LIBRARY.FileIOWriter(str(folder / _LISTS))
    _LIBRARY.write_InvertedLists(merged.invlists, writer)
    del writer  # the file is closed
    none = _LIBRARY.ArrayInvertedLists(merged.nlist, merged.code_size)
    none.this.disown()  # the index frees them
    merged.replace_invlists(none, True)
    _LIBRARY.write_index(merged, str(folder / _HEAD))


def _read(path: Path) -> Any:
    # Not mapped: what is merged is taken out of its lists.
    return faiss.read_index(str(path), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)


def open_merged(folder: Path) -> Any:
    """Open what `write_merged` wrote, mapped: its pages are shared by all processes of the machine.

    Raises
    ------
    LmrError
        The files are missing, or are no faiss index.
    """
    index = open_index(folder / _HEAD)
    sizes, path = np.load(folder / _SIZES), folder / _LISTS
    entries, length = int(sizes.sum()), os.path.getsize(path)
    entry_bytes = index.code_size + _ID_BYTES
    if length < entries * entry_bytes:
        raise LmrError(
            f"the inverted lists in {folder} are cut off",
            got=f"{length:,} bytes for {entries:,} entries",
            fix="delete the folder and run the same command again: it is made anew",
        )
    # faiss writes the lists last, one after the other: of each its codes, then its numbers.
    places = np.empty((len(sizes), 3), np.uint64)
    places[:, :2] = sizes[:, None]  # how many there are, and for how many there is room
    places[:, 2] = length - entries * entry_bytes + (np.cumsum(sizes) - sizes) * entry_bytes
    lists = _LIBRARY.OnDiskInvertedLists(len(sizes), index.code_size, str(path))
    _LIBRARY.memcpy(lists.lists.data(), _LIBRARY.swig_ptr(places), places.nbytes)
    lists.read_only, lists.totsize = True, length
    if entries:
        lists.do_mmap()
    index.replace_invlists(lists, True)
    lists.this.disown()  # the index frees them
    index.ntotal = entries
    return index
