"""What every worker of a run gets, whoever started it."""

import os
import threading

import distributed

from lmr.runtime.limits import limit_threads, thread_environment

__all__ = ["WorkerSetup"]


class WorkerSetup(distributed.WorkerPlugin):  # type: ignore[misc]
    """Holds thread pools to the worker's share, and lets one shard at a time be made in a process."""

    name = "lmr"
    idempotent = True

    def setup(self, worker: distributed.Worker) -> None:
        """Prepare a worker, now or when it joins."""
        self.turn = threading.Lock()
        # Libraries that are loaded later read these; those that are loaded already are told.
        os.environ.update(thread_environment())
        limit_threads()
