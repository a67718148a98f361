"""Where a step's exact searches run: on its worker's GPU, if there is one and the run asks for it.

The neighbours are the same to the bit, so that the device is placement and no part of a fingerprint.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.retrieval.global_search.exact import Descriptors
from lmr.retrieval.global_search.nearest import Engine, gpu_engine, nearest
from lmr.runtime.placement import may_use_gpu
from lmr.runtime.threads import threads
from lmr.storage.arrow import with_note

__all__ = ["ExactSearch"]


class ExactSearch:
    """The exact searches of one task.

    Parameters
    ----------
    device
        Where they are to run: "cpu" or "cuda".
    """

    def __init__(self, device: str = "cpu") -> None:
        self.engine: Engine | None = None
        self.note = ""
        if device == "cpu":
            return
        if not may_use_gpu():
            self._fall_back("the worker has none; start one by lmr cluster worker SCHEDULER --gpu")
            return
        self.engine, about = gpu_engine()
        if self.engine is None:
            self._fall_back(about)

    def __call__(
        self,
        queries: NDArray[np.float32],
        gallery: Descriptors,
        neighbours: int,
        *,
        exclude_self_start: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return what `lmr.retrieval.global_search.nearest.nearest` finds."""
        own = exclude_self_start
        if self.engine is not None:
            try:
                return nearest(queries, gallery, neighbours, engine=self.engine, exclude_self_start=own)
            except MemoryError as error:
                self.engine = None
                self._fall_back(str(error))
        return nearest(queries, gallery, neighbours, exclude_self_start=own, threads=threads())

    def told(self, rows: pa.Table) -> pa.Table:
        """Return the rows of a shard, with the line that says so where a GPU was asked for and not used."""
        return with_note(rows, self.note) if self.note else rows

    def _fall_back(self, reason: str) -> None:
        self.note = f"searched on CPUs, with the same result, since no GPU could be used: {reason}"
