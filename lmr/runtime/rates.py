"""What a plan's steps have to do, and the rates at which earlier runs did it: read from a few shards each."""

from collections.abc import Iterable, Mapping
from typing import Any

from lmr.errors import LmrError
from lmr.runtime.estimate import StepWork
from lmr.runtime.graph import Plan, StepPlan
from lmr.storage.datasets import Dataset

__all__ = ["work_of"]

_LOOKED_AT = 3
"""How many shards of a step are asked how long they took; reading a footer is a request or two."""


def work_of(plan: Plan, earlier: Iterable[Dataset] = ()) -> dict[str, StepWork]:
    """Return what each step of a plan has to do, by its name; only those that have something to do.

    Parameters
    ----------
    plan
        What is to be made.
    earlier
        Datasets of an earlier run, whose shards say how long they took: the last run's of the same folder.
    """
    before = {dataset.step: dataset for dataset in earlier}
    found: dict[str, list[StepPlan]] = {}
    for need in plan:
        if need.missing:
            found.setdefault(need.step.name, []).append(need)
    return {name: _work(plan.root, needs, before.get(name)) for name, needs in found.items()}


def _work(root: str, needs: list[StepPlan], before: Dataset | None) -> StepWork:
    """Return what the steps of one name have to do, all together."""
    first = needs[0].step
    begun = [need.step.dataset(root) for need in needs if need.present]
    rows = sum(need.step.cost.rows for need in needs)
    work = sum(need.step.cost.work for need in needs)
    shards = sum(len(need.missing) for need in needs)
    # A step that states no work is reckoned by its shards.
    missing = sum(need.step.cost.work * len(need.missing) / need.step.shards for need in needs)
    return StepWork(
        shards=shards,
        work=missing or float(shards),
        kind=f"{first.make.__module__}.{first.make.__qualname__}",
        resources=tuple(first.resources),
        peak_bytes=max(need.step.cost.peak_bytes for need in needs),
        known_rate=_rate([*begun, *([before] if before else [])], work / rows if rows else 0.0),
    )


def _rate(datasets: Iterable[Dataset], work_per_row: float) -> float | None:
    """Return seconds per unit of work by what some shards say of themselves; None where none is there.

    An earlier run's shards may be larger or smaller: their rows tell how much they worked through.
    """
    seconds = work = 0.0
    for dataset in datasets:
        for facts in _sample(dataset):
            seconds += facts["seconds"]
            # A step that states no work is reckoned by its shards; a shard without rows did no work.
            made = facts["rows"] - facts.get("taken_over", 0)
            work += made * work_per_row if work_per_row else 1.0
    return seconds / work if work > 0 else None


def _sample(dataset: Dataset) -> list[Mapping[str, Any]]:
    try:
        present = sorted(dataset.present())
        chosen = present[:: max(1, len(present) // _LOOKED_AT)][:_LOOKED_AT]
        facts = [dataset.facts(shard) for shard in chosen]
    except LmrError:
        return []  # A damaged shard is told of by those who read it.
    return [one for one in facts if "seconds" in one]
