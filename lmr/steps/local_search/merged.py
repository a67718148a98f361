"""The sub-indexes of local search as a machine opens them: neighbouring small ones merged into one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.local_search.inverted_file import LIST_BYTES, LISTS_AT_ONCE, list_sizes, open_index
from lmr.retrieval.local_search.on_disk import MERGED_LIST_BYTES, open_merged, write_merged
from lmr.steps.local_search.index import LocalIndex
from lmr.steps.sizes import in_pieces
from lmr.storage.arrow import bytes_of
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import unpack

__all__ = ["entries_of_lists", "merged_at_once", "open_bytes", "open_sub_indexes", "unpacking_bytes"]

MERGED_BYTES = 400e6
"""Codes of a merged index: as many as a task may hold while it merges them."""
MAPPED_AT_ONCE = 3
"""Sub-indexes that a process has open where they are searched one after the other: with the next, and one
that is not yet closed."""


def merged_at_once(index: LocalIndex) -> int:
    """Return how many sub-indexes make one that a machine opens; 0: they are opened as they are.

    Scalar codes need no tables of distances, so that nothing is gained by merging them.
    """
    if index.scalar:
        return 0
    return max(1, min(int(MERGED_BYTES // max(_codes_bytes(index), 1.0)), index.parts.shards))


def unpacking_bytes(index: LocalIndex, at_once: int) -> float:
    """Return the memory that a task holds while it unpacks."""
    if not at_once:
        return in_pieces(_codes_bytes(index) + index.trained.bytes_per_row)
    # The merged index as it grows, and one sub-index, with the quantiser of each.
    return (1.0 + 2.0 * at_once) * _codes_bytes(index) + 3.0 * index.trained.bytes_per_row


def open_bytes(index: LocalIndex, at_once: int) -> float:
    """Return the memory that the open lists of a search take in a process."""
    if not at_once:
        return LIST_BYTES * index.lists * min(MAPPED_AT_ONCE, index.parts.shards + 1)
    return MERGED_LIST_BYTES * min(LISTS_AT_ONCE, index.lists * (-(-index.parts.shards // at_once) + 1))


def open_sub_indexes(index: Dataset, at_once: int) -> Iterator[Any]:
    """Open the sub-indexes in their order, so many as one, mapped from this machine's disk; see above."""
    if not at_once:
        for shard in range(index.shards):
            part, inside = index.locate(shard)
            yield unpack(part, f"{inside:05d}", partial(_write, part, inside), _open)
        return
    for part, shards in _groups(index, at_once):
        yield unpack(part, _key(shards), partial(_write_merged, part, shards), open_merged)


def entries_of_lists(index: Dataset, at_once: int) -> NDArray[np.int64]:
    """Return the gallery features in each inverted list, (lists,), over all sub-indexes."""
    total: NDArray[np.int64] = np.sum([list_sizes(one) for one in open_sub_indexes(index, at_once)], axis=0)
    return total


def _codes_bytes(index: LocalIndex) -> float:
    """Return the bytes of a sub-index without its quantiser."""
    return index.parts.rows * index.entry_bytes / max(index.parts.shards, 1)


def _groups(index: Dataset, at_once: int) -> Iterator[tuple[Dataset, range]]:
    """Yield datasets and neighbouring shards of them; what is unpacked belongs to one dataset."""
    places = [index.locate(shard) for shard in range(index.shards)]
    first = 0
    for end in range(1, len(places) + 1):
        part, start = places[first]
        follows = end < len(places) and places[end] == (part, start + end - first)
        if not follows or end - first == at_once:
            yield part, range(start, start + end - first)
            first = end


def _key(shards: range) -> str:
    return f"{shards.start:05d}-{len(shards)}-merged"


def _write(index: Dataset, shard: int, folder: Path) -> None:
    _save(index, shard, folder / "index.faiss")


def _open(folder: Path) -> Any:
    return open_index(folder / "index.faiss")


def _write_merged(index: Dataset, shards: range, folder: Path) -> None:
    write_merged(_files(index, shards, folder / "part"), folder)


def _files(index: Dataset, shards: range, path: Path) -> Iterator[Path]:
    """Write one sub-index after the other to the same file, which is gone at the end."""
    for shard in shards:
        _save(index, shard, path)
        yield path
    path.unlink()


def _save(index: Dataset, shard: int, path: Path) -> None:
    """Write a sub-index to a file, piece by piece."""
    with open(path, "wb") as file:
        file.writelines(bytes_of(index.read_groups(shard), "index"))
