"""Products and their largest by faiss, where its build for GPUs is installed in place of faiss-cpu."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.global_search.exact import Descriptors, spans

__all__ = ["MOST", "FaissEngine", "count"]

MOST = 2048  # neighbours that faiss's GPU search can name
QUERIES_AT_ONCE = 4096

_faiss: Any = faiss  # its stubs do not know the parts for GPUs


def count() -> int:
    """Return how many GPUs faiss sees; its build for CPUs sees none."""
    return int(_faiss.get_num_gpus()) if hasattr(_faiss, "StandardGpuResources") else 0


class FaissEngine:
    """Searches on the first GPU that this process sees.

    Parameters
    ----------
    gallery_bytes
        Most bytes of gallery rows on the GPU.
    """

    def __init__(self, *, gallery_bytes: int = 4 << 30) -> None:
        self.name = f"faiss {faiss.__version__} on a GPU"
        self.gallery_bytes = gallery_bytes
        self.resources = _faiss.StandardGpuResources()

    def load(self, rows: Descriptors) -> "FaissRows":
        """Take gallery rows to the GPU as float32; see `Engine`."""
        index = _faiss.GpuIndexFlatIP(self.resources, rows.shape[1])
        try:
            for lo, hi in spans(len(rows), 1 << 18):
                index.add(np.array(rows[lo:hi], np.float32))
        except RuntimeError as error:  # faiss tells every fault so
            raise MemoryError(str(error).splitlines()[-1]) from error
        return FaissRows(index)


class FaissRows:
    """Gallery rows on a GPU.

    Parameters
    ----------
    index
        A flat index of inner products.
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    def __call__(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the `count` largest products of each query, and the places of their rows."""
        if count > MOST:
            raise MemoryError(f"faiss names {MOST} neighbours on a GPU, and {count} are asked for")
        try:
            found = [
                self.index.search(queries[lo:hi], count) for lo, hi in spans(len(queries), QUERIES_AT_ONCE)
            ]
        except RuntimeError as error:
            raise MemoryError(str(error).splitlines()[-1]) from error
        products, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return products, places
