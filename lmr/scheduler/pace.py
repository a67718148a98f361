"""How the steps of a run come along: when each began, what its shards took. Times are this process's."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from lmr.runtime.estimate import Measured

__all__ = ["Pace"]


class Pace:
    """Keeps, for every group of tasks (a step of a run), what its finished shards took.

    Parameters
    ----------
    clock
        Returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.begun: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.made: Counter[str] = Counter()
        self.work: dict[str, float] = {}

    def begin(self, group: str) -> None:
        """Note that a task begins: the first one starts the clock of its step."""
        self.begun.setdefault(group, self.clock())

    def end(self, group: str, seconds: float, speed: float = 1.0, *, made: bool = True) -> None:
        """Note that a task is done, and how fast its worker is beside others."""
        self.last[group] = self.clock()
        if made:
            self.made[group] += 1
            self.work[group] = self.work.get(group, 0.0) + seconds * speed

    def measured(self, group: str, *, running: int = 0, speed: float = 1.0, ended: bool = False) -> Measured:
        """Return how far a step is.

        Parameters
        ----------
        group
            The step's.
        running
            How many of its shards are being made.
        speed
            Mean speed of the workers that there are now.
        ended
            Whether all of its shards are finished: its clock stands.
        """
        begun = self.begun.get(group)
        until = self.last.get(group, self.clock()) if ended else self.clock()
        return Measured(
            made=self.made[group],
            seconds=self.work.get(group, 0.0) / max(speed, 1e-9),
            running=running,
            elapsed_seconds=None if begun is None else max(0.0, until - begun),
        )

    def forget(self, groups: Iterable[str]) -> None:
        """Forget the steps of a run that has ended."""
        for group in groups:
            for known in (self.begun, self.last, self.made, self.work):
                known.pop(group, None)
