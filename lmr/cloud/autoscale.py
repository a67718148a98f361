"""How many machines of each kind a run needs to be done in time. Pure.

Dask's own adaptive scaling knows neither deadlines nor resources: it takes CPU workers for idle while GPU
tasks wait. Here each group is sized for the tasks that ask for its resource.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bounds", "Target", "Work", "decide", "fit_price"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run still asks of one resource.

    Attributes
    ----------
    pending
        Tasks that are not done, of any step.
    seconds
        What they will take one after another, by the measured mean of each step.
    unmeasured
        How many of the pending tasks are of steps without a finished task yet; `seconds` counts them with the
        mean of the others.
    """

    pending: int
    seconds: float
    unmeasured: int = 0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a group may be.

    Attributes
    ----------
    current
        Machines that are asked for now.
    smallest, largest
        How few and how many it may have.
    slots
        Tasks that one machine runs at a time.
    """

    current: int
    smallest: int
    largest: int
    slots: float


@dataclass(frozen=True)
class Target:
    """How many machines a group should have, why, and when the work would then be done.

    Attributes
    ----------
    machines
        The size.
    hours
        Until the pending work is done with it; infinite when nothing has been measured.
    reason
        In words.
    """

    machines: int
    hours: float
    reason: str


def decide(work: Work, bounds: Bounds, *, seconds_left: float, boot_seconds: float) -> Target:
    """Size a group so that its pending work is done by the deadline.

    Parameters
    ----------
    work
        What asks for the group's resource.
    bounds
        What the group is and may be.
    seconds_left
        Until the deadline.
    boot_seconds
        What a new machine needs before its first task: time that it cannot use.
    """
    if work.pending == 0:
        return Target(bounds.smallest, 0.0, "nothing waits for it")
    if work.seconds <= 0 or not math.isfinite(work.seconds):
        size = min(max(bounds.current, bounds.smallest, 1), bounds.largest)
        return Target(size, math.inf, "no task of it has been measured yet")
    # Machines that are there work from now on, new ones only once they have started.
    needed = math.ceil(work.seconds / (bounds.slots * max(seconds_left, 1.0)) - 1e-9)
    if needed > bounds.current:
        useful = max(seconds_left - boot_seconds, 1.0)
        missing = work.seconds - bounds.current * bounds.slots * max(seconds_left, 0.0)
        needed = bounds.current + math.ceil(missing / (bounds.slots * useful) - 1e-9)
    # More slots than tasks would stand idle.
    most = math.ceil(work.pending / bounds.slots)
    size = min(max(needed, bounds.smallest, 1), most, bounds.largest)
    size = max(size, bounds.smallest)
    hours = _hours(work, bounds, size, boot_seconds)
    if hours * 3600 <= seconds_left + 1e-6:
        return Target(size, hours, "in time")
    if size == bounds.largest:
        return Target(size, hours, "late: its largest size")
    return Target(size, hours, "late: more machines than tasks would not help" if size == most else "late")


def _hours(work: Work, bounds: Bounds, size: int, boot_seconds: float) -> float:
    now, new = min(size, bounds.current), max(size - bounds.current, 0)
    alone = work.seconds / (now * bounds.slots) if now else math.inf
    if not new or alone <= boot_seconds:
        seconds = alone
    else:
        rest = work.seconds - now * bounds.slots * boot_seconds
        seconds = boot_seconds + rest / (size * bounds.slots)
    # A task is not cut in two.
    return max(seconds, work.seconds / work.pending) / 3600


def fit_price(
    sizes: Mapping[str, int], current: Mapping[str, int], usd_each: Mapping[str, float], most_usd: float
) -> dict[str, int]:
    """Take machines away until a fleet costs at most so much per hour.

    What grows most is cut first, one machine at a time, so that no group is starved for another.

    Parameters
    ----------
    sizes, current
        Wanted and present machines, by group.
    usd_each
        USD per hour of one machine, by group.
    most_usd
        What they may cost together.
    """
    fitted = dict(sizes)
    names: Sequence[str] = sorted(fitted)
    while sum(usd_each[n] * fitted[n] for n in names) > most_usd + 1e-9 and any(fitted.values()):
        grown = max((n for n in names if fitted[n]), key=lambda n: (fitted[n] - current[n], usd_each[n]))
        fitted[grown] -= 1
    return fitted
