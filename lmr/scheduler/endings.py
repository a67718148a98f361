"""Waiting, on the scheduler, for the end of a run: nothing is looked at until then."""

import asyncio
from contextlib import suppress

__all__ = ["Endings"]


class Endings:
    """Wakes those who wait for a run's end."""

    def __init__(self) -> None:
        self.awaited: dict[str, asyncio.Event] = {}

    async def wait(self, run: str, seconds: float) -> None:
        """Wait until a run ends, so long at most."""
        event = self.awaited.setdefault(run, asyncio.Event())
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def ended(self, run: str) -> None:
        """Wake all who wait for the end of a run."""
        if event := self.awaited.pop(run, None):
            event.set()
