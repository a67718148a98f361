"""Who waits for a run's end on the scheduler is woken by it, and by nothing else."""

import asyncio
import time

from lmr.scheduler.endings import Endings


def test_all_who_wait_are_woken_at_once_and_others_wait_their_time():
    async def waiting():
        endings = Endings()
        began = time.monotonic()

        async def ends(run, seconds):
            await endings.wait(run, seconds)
            return time.monotonic() - began

        some = [asyncio.create_task(ends(run, 0.3)) for run in ("one", "one", "other")]
        await asyncio.sleep(0.05)
        endings.ended("one")
        endings.ended("none that anybody waits for")
        return await asyncio.gather(*some)

    *woken, waited = asyncio.run(waiting())
    assert max(woken) < 0.25
    assert waited >= 0.3
