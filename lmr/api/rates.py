"""How long a unit of each step's work takes: measured in a run, kept in a file, used by plans."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt
from pydantic import BaseModel

from lmr import storage
from lmr.errors import LmrError
from lmr.runtime.forecast import work_of_step
from lmr.runtime.steps import Step
from lmr.storage.json_files import read_json, write_json
from lmr.versions import line

__all__ = ["Rate", "Rates", "measured_rates", "read_rates", "write_rates"]


class Rate(BaseModel):
    """What one step took.

    Attributes
    ----------
    seconds_per_unit
        Of one worker.
    unit
        What a unit is: "photo", "pair", "feature".
    work
        Units that were worked through.
    tasks
        Shards that were measured.
    """

    seconds_per_unit: Annotated[float, Gt(0)]
    unit: str
    work: Annotated[float, Gt(0)]
    tasks: int


class Rates(BaseModel):
    """Rates of steps, and where they were measured.

    Attributes
    ----------
    measured
        Date, versions, photos and workers, for people.
    steps
        By the name of the step.
    """

    measured: dict[str, str | int]
    steps: dict[str, Rate]

    @property
    def seconds_per_unit(self) -> dict[str, float]:
        """Seconds per unit of work by the name of the step."""
        return {name: rate.seconds_per_unit for name, rate in self.steps.items()}


@dataclass
class _Sum:
    seconds: float = 0.0
    work: float = 0.0
    tasks: int = 0
    unit: str = ""


def measured_rates(steps: Iterable[Step], root: str, **about: str | int) -> Rates:
    """Return the rates of the steps of a run, by what its shards say they took.

    Parameters
    ----------
    steps
        The steps, as they were declared.
    root
        The run's folder.
    **about
        What people want to know of the measurement: photos, workers.
    """
    sums: dict[str, _Sum] = {}
    for step in steps:
        dataset, total = step.dataset(root), sums.setdefault(step.name, _Sum(unit=step.cost.unit))
        for shard in sorted(dataset.present()):
            facts = dataset.facts(shard)
            # What was taken over from an earlier run says nothing of how long it takes to make.
            if "seconds" in facts and not facts.get("taken_over"):
                total.seconds += float(facts["seconds"])
                total.work += work_of_step(step) / step.shards
                total.tasks += 1
    rates = {
        name: Rate(seconds_per_unit=one.seconds / one.work, unit=one.unit, work=one.work, tasks=one.tasks)
        for name, one in sums.items()
        if one.work > 0 and one.seconds > 0
    }
    when = time.strftime("%Y-%m-%d")
    return Rates(measured={"date": when, "versions": line(), **about}, steps=rates)


def write_rates(path: str, rates: Rates) -> None:
    """Write rates as a JSON file, at a path or URL."""
    write_json(storage.absolute(path), rates.model_dump())


def read_rates(path: str) -> Rates:
    """Read what `write_rates` has written.

    Raises
    ------
    LmrError
        If it is not there, or no such file.
    """
    url = storage.absolute(path)
    if not storage.exists(url):
        raise LmrError("there is no such file of rates", got=path, fix=f"make it: lmr measure {path}")
    found: Any = read_json(url, Rates, fix=f"make it anew: lmr measure {path}")
    rates: Rates = found
    return rates
