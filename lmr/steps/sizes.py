"""Sizes that steps state of what they read, for the plan."""

from collections.abc import Mapping
from typing import Any

from lmr.runtime.steps import Given, Source

__all__ = ["dimension_of", "opening_bytes", "rows_per_shard"]


def dimension_of(source: Source) -> int:
    """Return the dimension of the descriptors that a step makes or passes on, for the plan; 256 if unsaid."""
    step = source.parts[0]
    if (own := getattr(step.settings, "dimension", None)) is not None:
        return int(own)
    above = step.inputs.get("described")
    return 256 if above is None or isinstance(above, Given) else dimension_of(above.step)


def opening_bytes(inputs: Mapping[str, Any]) -> float:
    """Return what the first task of a machine holds while it unpacks the index; for the plan."""
    index = inputs.get("index")
    return 0.0 if index is None else 4.0 * index.step.rows * index.step.bytes_per_row


def rows_per_shard(source: Source) -> int:
    """Return how many rows a shard of a step has at most, for the plan."""
    return -(-source.rows // max(source.shards, 1))
