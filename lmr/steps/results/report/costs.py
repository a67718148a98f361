"""What the steps of a run took, by what their shards say of themselves."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from lmr.errors import ShardError
from lmr.evaluation.pages.report import StepCost
from lmr.runtime.tasks import sources_note
from lmr.storage.datasets import Dataset

__all__ = ["cost_of", "costs_of", "read_facts"]


def costs_of(datasets: Sequence[Dataset]) -> list[StepCost]:
    """Add up what the shards' own metadata say of each step, whichever run made them."""
    return [cost_of(dataset, facts) for dataset, facts in read_facts(datasets)]


def read_facts(datasets: Sequence[Dataset]) -> list[tuple[Dataset, list[dict[str, Any]]]]:
    """Read what each dataset's shards say of themselves; one that is damaged says nothing."""

    def facts(dataset: Dataset, shard: int) -> dict[str, Any] | None:
        try:
            return dataset.facts(shard)
        except ShardError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = [(d, pool.map(partial(facts, d), sorted(d.present()))) for d in datasets]
        return [(d, [f for f in some if f is not None]) for d, some in found]


def cost_of(dataset: Dataset, facts: Sequence[Mapping[str, Any]]) -> StepCost:
    """Add up what the shards of a step say of themselves, whichever run made them."""
    sizes = dataset.present()
    lost = dataset.shards - len(facts)
    left_out = (
        [f"{lost} of {dataset.shards} shards are not there or damaged, and not counted"] if lost else []
    )
    return StepCost(
        step=dataset.step,
        shards_made=len(facts),
        shards_failed=lost,
        rows=sum(f["rows"] for f in facts),
        n_bytes=sum(sizes.values()),
        seconds=sum(f.get("seconds", 0.0) for f in facts),
        peak_memory_bytes=max((f.get("peak_bytes", 0) for f in facts), default=0),
        notes=(
            *dict.fromkeys(f["note"] for f in facts if "note" in f),
            *sources_note(f.get("source", "") for f in facts),
            *left_out,
        ),
    )
