"""One pool of threads per worker, not five.

Dask's threads, OpenMP, BLAS, OpenCV, faiss and torch would each start a thread per core. A worker process
has one task at a time and a share of the machine's cores, `$LMR_THREADS` (default: all cores when there is
no cluster, one on a worker).
"""

import os
import sys
from contextlib import suppress

from threadpoolctl import threadpool_limits

__all__ = ["limit_threads", "threads"]


def threads() -> int:
    """Return how many threads a task may use in this process."""
    with suppress(KeyError, ValueError):
        return max(1, int(os.environ["LMR_THREADS"]))
    return len(os.sched_getaffinity(0))


def limit_threads() -> None:
    """Hold the thread pools of the libraries that are loaded to this process's share."""
    count = threads()
    threadpool_limits(limits=count)
    # OpenCV's and torch's own pools are not seen by threadpoolctl. Touched only where a step loaded them.
    for module, setter in (
        ("cv2", "setNumThreads"),
        ("torch", "set_num_threads"),
        ("numba", "set_num_threads"),
    ):
        if module in sys.modules:
            with suppress(ValueError):
                getattr(sys.modules[module], setter)(count)
