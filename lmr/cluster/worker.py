"""What every worker of a run gets, whoever started it."""

import asyncio
import os
import platform
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path

import distributed

from lmr.cluster.speed import measure_speed
from lmr.runtime.threads import limit_threads, thread_environment

__all__ = ["NOTICE_VARIABLE", "GRACE_SECONDS", "WorkerSetup", "processor"]

NOTICE_VARIABLE = "LMR_LEAVE_NOTICE"
"""Names a file or a URL; when it is there, the machine is about to be taken and the worker leaves.

On AWS the machine's own service watches for the notice (deploy/aws/spot.sh)."""

NOTICE_SECONDS = 2.0
GRACE_SECONDS = 90.0
"""How long a leaving worker may go on with its shard; a spot notice comes two minutes ahead."""


class WorkerSetup(distributed.WorkerPlugin):  # type: ignore[misc]
    """Holds thread pools to the worker's share, one shard at a time, measures its speed, leaves in time."""

    name = "lmr"
    idempotent = True

    async def setup(self, worker: distributed.Worker) -> None:
        """Prepare a worker, now or when it joins."""
        self.turn = threading.Lock()
        # Libraries that are loaded later read these; those that are loaded already are told.
        os.environ.update(thread_environment())
        limit_threads()
        speed = await asyncio.to_thread(measure_speed)
        await worker.scheduler.lmr_hello(worker=worker.address, cpu=processor(), speed=speed)
        self.watching = None
        if notice := os.environ.get(NOTICE_VARIABLE):
            self.watching = asyncio.create_task(_leave_on_notice(worker, notice))

    def teardown(self, worker: distributed.Worker) -> None:
        """Stop watching."""
        if self.watching is not None:
            self.watching.cancel()


def processor() -> str:
    """Return the model of this machine's processor; workers of one model count as equally fast."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


async def _leave_on_notice(worker: distributed.Worker, notice: str) -> None:
    while not await asyncio.to_thread(_is_there, notice):
        await asyncio.sleep(NOTICE_SECONDS)
    await worker.scheduler.lmr_leave(worker=worker.address, grace_seconds=GRACE_SECONDS)


def _is_there(notice: str) -> bool:
    if "://" not in notice:
        return os.path.exists(notice)
    try:
        with urllib.request.urlopen(notice, timeout=2):
            return True
    except OSError:
        return False
