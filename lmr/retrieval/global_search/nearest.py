"""Exact nearest neighbours on a GPU or on CPUs: the same to the last bit, whoever computed the products.

A GPU sums a product in an order of its own. So it names candidates only, some more per query than are asked
for, by products of whole float32. They are scored again in the fixed order of
`lmr.retrieval.global_search.exact`. A query's list is kept where nothing can be missing from it: the score of
its last neighbour lies above the weakest candidate by more than rounding. The few others the CPU searches.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.global_search import _gpu_faiss
from lmr.retrieval.global_search.exact import Descriptors, similarities, spans, top_k

__all__ = ["Engine", "Loaded", "gpu_count", "gpu_engine", "nearest"]

SPARE = 16
"""Candidates named beyond those that are asked for; a quarter of these where that is more."""
ROWS_AT_ONCE = 1 << 16
"""Gallery rows whose lengths are taken at a time."""

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
Loaded = Callable[[Floats, int], tuple[Floats, NDArray[np.int64]]]
"""Takes queries, (q, d) float32, and a count c; returns products and row numbers, (q, c), in any order."""


class Engine(Protocol):
    """What multiplies: a library and its device.

    Attributes
    ----------
    name
        Library and device, for people.
    gallery_bytes
        Most bytes of float32 gallery rows that it holds at a time.
    """

    name: str
    gallery_bytes: int

    def load(self, rows: Descriptors) -> Loaded:
        """Take gallery rows, (n, d) float16 or float32, to the device; return their search.

        Raises
        ------
        MemoryError
            If the device has no room for them, or later for a search among them.
        """
        ...


def nearest(
    queries: Floats,
    gallery: Descriptors,
    k: int,
    *,
    engine: Engine | None = None,
    exclude_self_start: int | None = None,
    threads: int = 1,
) -> tuple[Floats, Ids]:
    """Find the `k` gallery rows with the largest inner product for each query.

    Parameters
    ----------
    queries
        (q, d) float32. A zero row (a photo without descriptor) gets no neighbours.
    gallery
        (n, d) float16 or float32, possibly a `np.memmap`. Zero rows are never returned.
    k
        Neighbours per query.
    engine
        From `gpu_engine`; None: the CPU, see `top_k`.
    exclude_self_start
        If given, query i is gallery row `exclude_self_start + i` and is not its own neighbour.
    threads
        Threads on the CPU.

    Returns
    -------
    sims, ids : (q, k) float32, (q, k) int32
        As of `top_k`, to the bit, whatever the engine.

    Raises
    ------
    LmrError
        If shapes disagree, or a descriptor is not finite.
    MemoryError
        If the engine's device has no room.
    """
    fits = queries.ndim == gallery.ndim == 2 and queries.shape[1] == gallery.shape[1] and k >= 1
    if engine is None or not fits or not gallery.size or not len(queries):
        # Which also tells what does not fit.
        return top_k(queries, [(0, gallery)], k, exclude_self_start=exclude_self_start, threads=threads)
    plain = np.ascontiguousarray(queries, dtype=np.float32)
    own = None if exclude_self_start is None else exclude_self_start + np.arange(len(plain))
    count = k + max(SPARE, k // 4) + (own is not None)
    products, ids, longest = _candidates(plain, gallery, count, engine)
    known = plain.any(axis=1)
    ids[~known] = -1
    if own is not None:
        ids[ids == own[:, None]] = -1
    exact = similarities(plain, ids, gallery)
    order = np.lexsort((ids, -exact), axis=1)[:, :k]
    sims, best = np.take_along_axis(exact, order, 1), np.take_along_axis(ids, order, 1)
    open_ = np.flatnonzero(known & ~_complete(products, exact, sims[:, -1], _rounding(plain, longest)))
    if len(open_):
        sims[open_], best[open_] = _on_cpu(plain, gallery, k, open_, own, threads)
    return sims, best


def _on_cpu(
    queries: Floats,
    gallery: Descriptors,
    k: int,
    rows: NDArray[np.int64],
    own: NDArray[np.int64] | None,
    threads: int,
) -> tuple[Floats, Ids]:
    """Search with some of the queries, which then leave themselves out of one neighbour more."""
    sims, ids = top_k(queries[rows], [(0, gallery)], k + (own is not None), threads=threads)
    if own is None:
        return sims, ids
    keep = np.argsort(ids == own[rows][:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(sims, keep, 1), np.take_along_axis(ids, keep, 1)


def _complete(products: Floats, exact: Floats, last: Floats, rounding: Floats) -> NDArray[np.bool_]:
    """Mark the queries of which no row outside the list of candidates can be one of the neighbours.

    That is so where the last neighbour's score lies above the weakest product by more than products may be
    wrong, or where every row is a candidate. A device whose products are less exact, as those of TF32 are, is
    found out by its candidates and not believed.
    """
    listed = np.isfinite(exact)
    wrong = np.abs(np.subtract(products, exact, out=np.zeros_like(exact), where=listed))
    weakest = products.min(axis=1)
    # What is no number compares as False: then the search on the CPU names the row.
    enough = np.isneginf(weakest) | (last > weakest + rounding)
    complete: NDArray[np.bool_] = enough & (wrong <= rounding[:, None]).all(axis=1)
    return complete


def _rounding(queries: Floats, longest: float) -> Floats:
    """Return how far a float32 product may lie from the true one, in whatever order it is summed."""
    reach = np.linalg.norm(queries, axis=1) * longest
    return np.asarray(queries.shape[1] * 1.2e-7 * reach, np.float32)


def _candidates(
    queries: Floats, gallery: Descriptors, count: int, engine: Engine
) -> tuple[Floats, Ids, float]:
    """Return the `count` largest products of each query, their rows, and the length of the longest row.

    Where the gallery has fewer rows, the list ends with -inf and -1.
    """
    products = np.full((len(queries), count), -np.inf, np.float32)
    ids = np.full((len(queries), count), -1, np.int32)
    longest = 0.0
    for part in _parts(engine, gallery):
        longest = np.maximum(longest, part.longest)  # which hands on what is no number
        more, places = part.search(queries, min(count, len(part.rows)))
        products, ids = np.concatenate([products, more], 1), np.concatenate([ids, part.rows[places]], 1)
        keep = np.argpartition(-products, count - 1, axis=1)[:, :count]
        products, ids = np.take_along_axis(products, keep, 1), np.take_along_axis(ids, keep, 1)
    return products, ids, float(longest)


@dataclass(frozen=True)
class _Part:
    """Gallery rows on a device: the numbers of those that have a descriptor, and the longest one's length."""

    rows: Ids
    longest: float
    search: Loaded


_kept: dict[tuple[object, ...], _Part] = {}
"""The gallery that this process searched last, where it is one part: the next task finds it on the device."""


def _parts(engine: Engine, gallery: Descriptors) -> Iterator[_Part]:
    size = max(1, engine.gallery_bytes // (4 * gallery.shape[1]))
    key = _name_of(gallery) if len(gallery) <= size else None
    if key is not None and (engine.name, *key) in _kept:
        yield _kept[engine.name, *key]
        return
    _kept.clear()  # before the device is filled anew
    for lo, hi in spans(len(gallery), size):
        block = gallery[lo:hi]
        norms = np.concatenate(
            [np.linalg.norm(block[a:b].astype(np.float32), axis=1) for a, b in spans(hi - lo, ROWS_AT_ONCE)]
        )
        rows = np.flatnonzero(norms).astype(np.int32)
        if not len(rows):
            continue
        search = engine.load(block if len(rows) == len(block) else block[rows])
        part = _Part(rows + np.int32(lo), float(norms.max()), search)
        if key is not None:
            _kept[engine.name, *key] = part
        yield part


def _name_of(gallery: Descriptors) -> tuple[object, ...] | None:
    """Return what names a mapped file's content; None for other arrays, of which nothing may stay."""
    array, base = gallery, cast("Any", gallery).base
    # A part of a mapped array knows its file, and not where in it the part begins.
    if not (isinstance(array, np.memmap) and isinstance(base, mmap.mmap) and array.filename):
        return None
    try:
        about = os.stat(array.filename)
    except OSError:  # its folder is gone, and it lives on as long as it is mapped
        return None
    place = about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size, array.offset
    return (*place, array.shape, array.dtype.str)


@lru_cache(1)
def gpu_engine() -> tuple[Engine | None, str]:
    """Return what searches on this process's GPU, and its name; or None, and why there is none.

    faiss where its build for GPUs is installed, else torch. Where faiss has GPUs, torch is not imported: a
    faiss of CUDA 12 and a torch of CUDA 13 are known to crash in one process.
    """
    if _gpu_faiss.count():
        engine: Engine = _gpu_faiss.FaissEngine()
        return engine, engine.name
    try:
        from lmr.retrieval.global_search import _gpu_torch
    except ImportError as error:
        return None, f"{error}; pip install 'lmr[gpu]'"
    if not _gpu_torch.count():
        return None, f"torch {_gpu_torch.VERSION} sees none"
    engine = _gpu_torch.TorchEngine("cuda")
    return engine, engine.name


def gpu_count() -> int:
    """Return how many GPUs this machine has that exact searches can use."""
    if found := _gpu_faiss.count():
        return found
    try:
        from lmr.retrieval.global_search import _gpu_torch
    except ImportError:
        return 0
    return _gpu_torch.count()
