"""The sub-indexes of local search as a machine opens them: neighbouring small ones merged into one."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.local_search.inverted_file import list_sizes
from lmr.retrieval.local_search.on_disk import open_merged, write_merged
from lmr.runtime.steps import Source
from lmr.storage.arrow import bytes_of
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import unpack

__all__ = ["entries_of_lists", "merged_at_once", "open_merged_indexes"]

MERGED_BYTES = 400e6
"""Codes of a merged index: as many as a task may hold while it merges them."""


def merged_at_once(parts: Source) -> int:
    """Return how many sub-indexes make one that a machine opens."""
    each = parts.rows * parts.bytes_per_row / max(parts.shards, 1)
    return max(1, min(int(MERGED_BYTES // max(each, 1.0)), parts.shards))


def open_merged_indexes(index: Dataset, at_once: int) -> Iterator[Any]:
    """Open the sub-indexes in their order, so many as one, mapped from this machine's disk."""
    for part, shards in _groups(index, at_once):
        yield unpack(part, _key(shards), partial(_write, part, shards), open_merged)


def entries_of_lists(index: Dataset, at_once: int) -> NDArray[np.int64]:
    """Return the gallery features in each inverted list, (lists,), over all sub-indexes."""
    total: NDArray[np.int64] = np.sum(
        [list_sizes(one) for one in open_merged_indexes(index, at_once)], axis=0
    )
    return total


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


def _write(index: Dataset, shards: range, folder: Path) -> None:
    write_merged(_files(index, shards, folder / "part"), folder)


def _files(index: Dataset, shards: range, path: Path) -> Iterator[Path]:
    """Write one sub-index after the other to the same file, which is gone at the end."""
    for shard in shards:
        with open(path, "wb") as file:
            file.writelines(bytes_of(index.read(shard), "index"))
        yield path
    path.unlink()
