"""One thread per task; the cores of a machine are shared out as worker processes.

Dask's threads, OpenMP, BLAS, OpenCV, faiss and torch would each start a thread per core. And BLAS sums in
another order with another number of threads: with one, a run gives the same result to the last bit on one
process, on a laptop's cores and on a cluster. `$LMR_THREADS` allows more, where that does not matter.
"""

import os
import sys
from contextlib import suppress

from threadpoolctl import threadpool_limits

__all__ = ["limit_threads", "malloc_environment", "thread_environment", "threads"]


def threads() -> int:
    """Return how many threads a task may use in this process."""
    with suppress(ValueError):
        return max(1, int(os.environ.get("LMR_THREADS", "1")))
    return 1


def thread_environment() -> dict[str, str]:
    """Return the environment that holds libraries to `threads()` from their first import on."""
    # Numba's pool is not among them: compiled kernels here take no threads of it, and Numba refuses to
    # compile once its variable differs from the size of a pool that runs (Dask's nanny sets these in its
    # parent too).
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads()))


def malloc_environment() -> dict[str, str]:
    """Return the environment that lets a worker keep what it allocated for the next array of its task.

    Dask starts workers with a threshold of 64 KiB above which glibc gives memory back at once, and which
    also stops it from learning how large a task's arrays are: each is mapped and cleared anew. On arrays of
    1 MB that made a step of matrix products and sorting take 1.6 times as long, and verification 1.07 times.
    The values are those that glibc itself learns at most on 64-bit machines (mallopt(3)).

    Arrow gets its memory of glibc too. Its own allocator took twice as much for a table of 300 MB that was
    written and read back, kept 1.7 GB of it, and three gigabytes of addresses that limits of memory count.
    """
    return {
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }


def limit_threads() -> None:
    """Hold the thread pools of the libraries that are loaded to this process's share."""
    count = threads()
    threadpool_limits(limits=count)
    # OpenCV's and torch's own pools are not seen by threadpoolctl. Touched only where a step loaded them.
    for module, setter in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        if module in sys.modules:
            with suppress(ValueError):
                getattr(sys.modules[module], setter)(count)
