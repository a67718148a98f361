"""What every worker of a run gets, whoever started it."""

import asyncio
import logging
import os
import pickle
import platform
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import distributed
from distributed.comm import connect

from lmr.cluster.admission import AMPLE, as_one_line, facts, look_around
from lmr.cluster.speed import measure_speed
from lmr.runtime.threads import limit_threads, thread_environment

__all__ = ["NOTICE_VARIABLE", "GRACE_SECONDS", "REACH_SECONDS", "WorkerSetup", "processor"]

NOTICE_VARIABLE = "LMR_LEAVE_NOTICE"
"""Names a file; when it is there, the machine is about to be taken and the worker leaves.

On AWS the machine's own service watches for the notice (deploy/aws/spot.sh)."""

logger = logging.getLogger("distributed.worker")

REACH_SECONDS = 10.0
"""How long an address is tried before it counts as out of reach."""

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
        self.worker = worker
        # Libraries that are loaded later read these; those that are loaded already are told.
        os.environ.update(thread_environment())
        limit_threads()
        speed = await asyncio.to_thread(measure_speed)
        worker.handlers["lmr_look"] = self._look
        worker.handlers["lmr_reach"] = self._reach
        worker.stream_handlers["lmr-told"] = _told
        await worker.scheduler.lmr_hello(
            worker=_address(worker),
            cpu=processor(),
            speed=speed,
            facts=await asyncio.to_thread(facts),
            clock=time.time(),
        )
        self.watching = None
        if notice := os.environ.get(NOTICE_VARIABLE):
            self.watching = asyncio.create_task(_leave_on_notice(worker, notice))

    def teardown(self, worker: distributed.Worker) -> None:
        """Stop watching."""
        if self.watching is not None:
            self.watching.cancel()

    async def _look(self, expected: bytes, grant: str) -> dict[str, Any]:
        """Look around for a run; where nothing is wrong, the worker has the run's resource from here on."""
        address = _address(self.worker)
        resources = dict(self.worker.state.total_resources)
        errors = await asyncio.to_thread(look_around, pickle.loads(expected), resources, address)
        if not errors and grant not in self.worker.state.total_resources:
            self.worker.state.total_resources[grant] = self.worker.state.available_resources[grant] = AMPLE
        return {"errors": errors}

    async def _reach(self, addresses: Iterable[str]) -> dict[str, Any]:
        """Tell which addresses this worker cannot reach."""

        async def tried(address: str) -> str:
            try:
                comm = await connect(address, timeout=REACH_SECONDS, **self.worker.connection_args)
                comm.abort()
            except OSError:
                return address
            return ""

        found = await asyncio.gather(*map(tried, addresses))
        return {"unreached": [address for address in found if address]}


def processor() -> str:
    """Return the model of this machine's processor; workers of one model count as equally fast."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _address(worker: distributed.Worker) -> str:
    """Return the address by which others know a worker."""
    return str(worker.contact_address or worker.address)


def _told(line: str) -> None:
    """Write to this worker's log what the scheduler has to say."""
    logger.error("lmr: %s", as_one_line(line))


async def _leave_on_notice(worker: distributed.Worker, notice: str) -> None:
    while not await asyncio.to_thread(os.path.exists, notice):
        await asyncio.sleep(NOTICE_SECONDS)
    await worker.scheduler.lmr_leave(worker=_address(worker), grace_seconds=GRACE_SECONDS)
