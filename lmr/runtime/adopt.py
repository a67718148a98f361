"""Shards that stay as they are when some shards of an input change: kept under the new fingerprints.

A fingerprint stands for a whole dataset, so a single changed photo gives every dataset that is made of it a
new name. What is made shard by shard need not be made again: a shard whose inputs are the same is copied.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from lmr.errors import ShardError
from lmr.runtime.steps import Each, Given, Step, closure
from lmr.storage.datasets import Dataset, locate

__all__ = ["Adopted", "adopt", "changed_shards", "copy_shard"]

_IDENTITY = frozenset({"schema", "step", "fingerprint", "shard", "shards", "rows", "footer"})
"""What a shard says of itself that belongs to its name; the rest is how it was made."""


@dataclass(frozen=True)
class Adopted:
    """What was kept, and what has to be made again.

    Attributes
    ----------
    kept, changed
        Step name to shards.
    """

    kept: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)


def changed_shards(
    before: Iterable[Step], after: Iterable[Step], changed: Mapping[str, Collection[int]]
) -> list[tuple[Step, Step, frozenset[int]]]:
    """Return the steps whose fingerprint is another, with the shards that hold something else.

    Parameters
    ----------
    before, after
        The same steps, as they were and as they are to be: the targets of a workflow.
    changed
        Fingerprint of a step of `before` to the shards that are known to change, and no others do.

    Returns
    -------
    Pairs of steps, inputs before users, and of each the shards that change.
    """
    dirty: dict[str, frozenset[int]] = {}
    pairs = []
    for old, new in zip(closure(before), closure(after), strict=True):
        if old.fingerprint in changed:
            dirty[old.fingerprint] = frozenset(changed[old.fingerprint])
        elif old.fingerprint != new.fingerprint:
            dirty[old.fingerprint] = _dirty(old, new, dirty)
        if old.fingerprint != new.fingerprint:
            pairs.append((old, new, dirty[old.fingerprint]))
    return pairs


def _dirty(old: Step, new: Step, dirty: Mapping[str, frozenset[int]]) -> frozenset[int]:
    found: set[int] = set()
    everything = frozenset(range(old.shards))
    for name, source in old.inputs.items():
        if isinstance(source, Given):
            if source.fingerprint != new.inputs[name].fingerprint:
                return everything
        elif isinstance(source, Each):
            placed = ((i, *locate(source.step.parts, i)) for i in range(old.shards))
            found.update(i for i, part, inside in placed if inside in dirty.get(part.fingerprint, ()))
        elif any(dirty.get(part.fingerprint) for part in source.step.parts):
            return everything
    return frozenset(found)


def adopt(
    before: Iterable[Step], after: Iterable[Step], changed: Mapping[str, Collection[int]], root: str
) -> Adopted:
    """Copy the shards that stay as they are to the names of the new steps; parameters as `changed_shards`.

    Nothing is deleted, and what is there already is not copied again.
    """
    kept: dict[str, int] = {}
    made: dict[str, int] = {}
    for old, new, dirty in changed_shards(before, after, changed):
        source, target = old.dataset(root), new.dataset(root)
        there = target.present()
        whole = source.present().keys() - dirty
        copied = sum(copy_shard(source, shard, target, shard) for shard in sorted(whole - there.keys()))
        kept[old.name] = kept.get(old.name, 0) + copied + len(whole & there.keys())
        made[old.name] = made.get(old.name, 0) + len(dirty)
    return Adopted(kept, made)


def copy_shard(source: Dataset, shard: int, target: Dataset, number: int) -> bool:
    """Copy a shard, with what is known of how it was made; tell whether it could be read."""
    try:
        rows, facts = source.read(shard), source.facts(shard)
    except ShardError:
        return False  # damaged: it is made again, as it would be anyway
    target.write(number, rows, **{name: fact for name, fact in facts.items() if name not in _IDENTITY})
    return True
