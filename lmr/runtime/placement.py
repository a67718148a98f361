"""What the worker that makes a shard has beside its core."""

import sys

__all__ = ["GPU", "may_use_gpu"]

GPU = {"GPU": 1}
"""What a worker declares that has a GPU of its own."""


def may_use_gpu() -> bool:
    """Tell whether the task that asks may use this machine's GPU.

    On a cluster a worker with a GPU declares it. The others of a machine would crowd onto one that is not
    theirs. A run in one process has all that the machine has.
    """
    if "distributed.worker" not in sys.modules:
        return True
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return True
    return bool(worker.state.total_resources.get("GPU", 0) >= 1)
