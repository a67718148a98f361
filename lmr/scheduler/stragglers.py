"""When a shard near the end of a step is started a second time, on an idle worker.

Machines differ and shards differ. Shards are written whole, and the same whoever makes them, so making one
twice costs nothing but the time of a worker that has nothing else to do.
"""

from statistics import median

__all__ = ["worth_starting_again"]

GAIN = 1.5
"""The worker in hand must be expected to need this many times longer than an idle one from the start."""

SETTLED_SECONDS = 1.0
"""A shard that began less than this ago is left alone."""


def worth_starting_again(
    elapsed: float, finished: list[float], speed_here: float, speed_there: float
) -> bool:
    """Tell whether an idle worker would finish a shard well before the one that has it in hand.

    Parameters
    ----------
    elapsed
        Seconds since the shard was begun.
    finished
        What finished shards of the same step took, in seconds times the speed of the worker they ran on.
    speed_here, speed_there
        Measured speeds of the worker that has it and of the idle one.

    Notes
    -----
    Of a step of which nothing is finished (many have one shard only) it is not known how long a shard takes.
    It has hardly begun when this is first asked, so a clearly faster worker will be done first.

    A shard that has already taken longer than its step's median on this worker is late for a reason that is
    not known: it is expected to take as long again as it has taken (for a heavy-tailed duration, the age is
    the best guess of what is left).
    """
    if elapsed < SETTLED_SECONDS:
        return False
    if not finished:
        return speed_there > GAIN * speed_here
    typical = median(finished)
    expected_here = typical / speed_here
    left_here = expected_here - elapsed if elapsed < expected_here else elapsed
    return left_here > GAIN * typical / speed_there
