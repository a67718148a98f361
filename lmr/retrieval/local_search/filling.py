"""Filling an inverted file with more than memory holds: encoded in runs, then merged list by list.

Lists that grow in memory take up to twice the index. Here a block of descriptors becomes a run: its codes, in
order of their lists. Runs may lie in a mapped file. The merge takes from each run what belongs to some lists,
so that two blocks are held at a time, however large the index becomes.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.descriptors import check_descriptors
from lmr.retrieval.local_search.codebook import probe_cells

__all__ = ["RUN_ROWS", "encoded_runs", "merged"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Ivf = Any  # a faiss.IndexIVF; faiss's stubs know neither its members nor the Python form of its methods
Run = NDArray[np.void]
"""(n,) rows of `list` (int32, ascending), `photo` (int64) and `code` (uint8, (code bytes,))."""

RUN_ROWS = 1 << 16
"""Descriptors of a run, and about as many of a piece of the merge."""
BUILD_CELL_PROBES = 8


def encoded_runs(index: Ivf, parts: Iterable[tuple[Floats, Ints]]) -> Iterator[Run]:
    """Encode descriptors for a trained index, block by block; see `build_index_of` for the parts.

    Rows of equal lists stay in order of photo row: faiss keeps the first of equal distances, so that ties go
    to the lower row whatever the order in which the photos came.
    """
    kind = [("list", "<i4"), ("photo", "<i8"), ("code", "u1", (index.code_size,))]
    # A descriptor in the second nearest list is found as well: half the probes find the nearest of 99 in 100.
    probe_cells(index.quantizer, BUILD_CELL_PROBES)
    for descriptors, photo_rows in parts:
        check_descriptors(descriptors, dimension=index.d, unit=True)
        if photo_rows.shape != (len(descriptors),):
            raise LmrError(
                "every descriptor needs the row of its photo",
                got=f"{len(descriptors)} descriptors, rows of shape {photo_rows.shape}",
                fix="repeat each photo's row once per feature",
            )
        order = np.argsort(photo_rows, kind="stable")
        order = order[descriptors[order].any(axis=1)]
        for rows in np.array_split(order, -(-len(order) // RUN_ROWS) or 1):  # no second copy of the shard
            lists, codes = _encoded(index, descriptors[rows])
            by_list = np.argsort(lists, kind="stable")
            run = np.empty(len(rows), kind)
            run["list"], run["photo"], run["code"] = lists[by_list], photo_rows[rows[by_list]], codes[by_list]
            yield run
    probe_cells(index.quantizer)


def _encoded(index: Ivf, descriptors: Floats) -> tuple[Ints, NDArray[np.uint8]]:
    """Return the list, (n,) int64, and the code, (n, code bytes) uint8, of each descriptor."""
    codes = np.empty((len(descriptors), index.code_size), np.uint8)
    if not len(descriptors):
        return np.empty(0, np.int64), codes
    lists = np.ascontiguousarray(index.quantizer.search(descriptors, 1)[1][:, 0])
    pointers = (faiss.swig_ptr(array) for array in (descriptors, lists, codes))
    index.encode_vectors(len(descriptors), *pointers, False)
    return lists, codes


def merged(index: Ivf, runs: Sequence[Run]) -> Iterator[bytes | memoryview]:
    """Yield, piece by piece, the file that `faiss.write_index` would write of the index with these entries.

    Parameters
    ----------
    index
        The trained, empty index. It is told how many entries the file has.
    runs
        From `encoded_runs`, in order of their photo rows; possibly mapped from a disk.

    Raises
    ------
    LmrError
        faiss writes another format than the one that is known here.
    """
    lists = [np.ascontiguousarray(run["list"]) for run in runs]
    sizes = np.zeros(index.nlist, np.int64)
    for of_run in lists:
        sizes += np.bincount(of_run, minlength=index.nlist)
    yield _header(index, sizes)
    ends = np.cumsum(sizes)
    pieces = [0, *np.flatnonzero(np.diff(ends // RUN_ROWS)) + 1, index.nlist]
    bounds = np.array([np.searchsorted(of_run, pieces) for of_run in lists])
    for piece, (first, end) in enumerate(itertools.pairwise(pieces)):
        rows = np.concatenate(
            [run[lo:hi] for run, (lo, hi) in zip(runs, bounds[:, piece : piece + 2], strict=True)]
        )
        order = np.argsort(rows["list"], kind="stable")
        codes, photos = rows["code"][order], rows["photo"][order]
        of_list = np.concatenate([[0], np.cumsum(sizes[first:end])])
        for lo, hi in itertools.pairwise(of_list):
            if hi > lo:
                yield codes[lo:hi].data
                yield photos[lo:hi].data


def _header(index: Ivf, sizes: Ints) -> bytes:
    """Return what the file of an index holds before the entries of its lists."""
    index.ntotal = int(sizes.sum())
    written = faiss.serialize_index(index).tobytes()
    # How faiss writes the lists: a mark, their number, the bytes of a code; then their sizes, of all lists or
    # as pairs of list and size, whichever is shorter; then the codes and the rows of each.
    about = b"ilar" + np.array([index.nlist, index.code_size], "<i8").tobytes()
    none = about + b"sprs" + bytes(8)
    if not written.endswith(none):
        raise LmrError(
            "this faiss writes inverted lists in a format that is not known here",
            got=f"faiss {faiss.__version__}",
            fix="install the version of faiss-cpu that constraints.txt names",
        )
    filled = np.flatnonzero(sizes)
    if len(filled) > index.nlist // 2:
        kind, told = b"full", sizes
    else:
        kind, told = b"sprs", np.stack([filled, sizes[filled]], axis=1).ravel()
    counted = np.array([len(told)], "<i8").tobytes() + told.astype("<i8").tobytes()
    return written[: -len(none)] + about + kind + counted
