"""How long a run will still take: from what its steps have to do, and what their shards took so far.

Only arithmetic. A step's rate (seconds per unit of its `Cost.work`) is measured on its own finished shards,
or on those of another step with the same shard function: the one of the queries, or of an earlier run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Left", "Measured", "Progress", "StepWork", "left_text", "rates_of", "seconds_left", "span_text"]


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """What a step of a run has to do.

    Attributes
    ----------
    shards
        How many shards are to be made.
    work
        How many units these work through, all together: "photos", say.
    kind
        What the step does; steps of one kind have one rate.
    resources
        What a worker must have for it: "CPU", "GPU".
    known_rate
        Seconds per unit that an earlier run's shards took; None where there are none.
    peak_bytes
        Memory of a worker that the step states; 0 where it is not known.
    """

    shards: int
    work: float
    kind: str
    resources: tuple[str, ...] = ()
    known_rate: float | None = None
    peak_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How far a step is.

    Attributes
    ----------
    made
        Shards that were made and measured.
    seconds
        What these took, in seconds of the workers that are there now.
    running
        Shards that are being made.
    elapsed_seconds
        Since the step's first task began; to its end, if it ended. None: it waits.
    """

    made: int = 0
    seconds: float = 0.0
    running: int = 0
    elapsed_seconds: float | None = None


@dataclass(frozen=True)
class Left:
    """How long a run will still take.

    Attributes
    ----------
    seconds
        For the steps whose rate is known.
    unknown
        The steps of which nothing is known yet.
    """

    seconds: float
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    counts
        Finished shards by step.
    measured
        What is known of each step's course; steps that wait may be left out.
    left
        How long the run will still take; None where that was not asked.
    notices
        What was noticed of workers since the run began.
    """

    counts: Mapping[str, int]
    measured: Mapping[str, Measured] = field(default_factory=dict)
    left: Left | None = None
    notices: tuple[str, ...] = ()


def rates_of(steps: Mapping[str, StepWork], measured: Mapping[str, Measured]) -> dict[str, float]:
    """Return seconds per unit of work by kind of step: as measured in this run, else as known before.

    Parameters
    ----------
    steps
        What each step has to do, by its name.
    measured
        How far each step is, by its name.
    """
    rates = {step.kind: step.known_rate for step in steps.values() if step.known_rate is not None}
    seconds: dict[str, float] = {}
    work: dict[str, float] = {}
    for name, step in steps.items():
        found = measured.get(name, Measured())
        if found.made and step.shards and step.work > 0:
            seconds[step.kind] = seconds.get(step.kind, 0.0) + found.seconds
            work[step.kind] = work.get(step.kind, 0.0) + step.work * found.made / step.shards
    return {**rates, **{kind: seconds[kind] / work[kind] for kind in seconds}}


def seconds_left(
    steps: Mapping[str, StepWork],
    done: Mapping[str, int],
    measured: Mapping[str, Measured],
    workers: Mapping[str, int],
) -> Left:
    """Return how long a run will still take.

    Parameters
    ----------
    steps
        What each step has to do, by its name.
    done
        How many shards of each step are finished.
    measured
        How far each step is.
    workers
        How many workers declare each resource; under "" those that there are in all.

    Notes
    -----
    Steps are taken one after the other, and a step takes no less than one of its shards: so steps that run
    side by side, or shard by shard behind each other, end a little sooner than is said. Of shards that are
    being made, half is taken to be done.
    """
    rates = rates_of(steps, measured)
    total, unknown = 0.0, []
    for name, step in steps.items():
        shards = step.shards - done.get(name, 0)
        if shards <= 0:
            continue
        rate = rates.get(step.kind)
        if rate is None:
            unknown.append(name)
            continue
        each = rate * step.work / step.shards
        able = max(1, _able(step, workers))
        begun = 0.5 * min(measured.get(name, Measured()).running, shards)
        total += each * max((shards - begun) / able, 0.5 if begun else 1.0)
    return Left(total, tuple(unknown))


def left_text(left: Left) -> str:
    """Return a time that is left in a few words.

    Examples
    --------
    >>> left_text(Left(200.0))
    'about 3 min left'
    >>> left_text(Left(200.0, ("verify",)))
    'more than 3 min left'
    >>> left_text(Left(0.0, ("verify",)))
    'time left not known yet'
    """
    if left.unknown and not left.seconds:
        return "time left not known yet"
    return f"{'more than' if left.unknown else 'about'} {span_text(left.seconds)} left"


def span_text(seconds: float) -> str:
    """Return a length of time as short as a line of progress wants it.

    Examples
    --------
    >>> [span_text(seconds) for seconds in (0.2, 99, 100, 3600, 7500, 270000)]
    ['1 s', '99 s', '2 min', '1 h 00 min', '2 h 05 min', '3 d 3 h']
    """
    if seconds < 99.5:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _able(step: StepWork, workers: Mapping[str, int]) -> int:
    """Return how many workers may make a step's shards; a resource that nobody declares is not asked for."""
    declared = [workers[name] for name in step.resources if name in workers]
    return min([*declared, workers.get("", 1)])
