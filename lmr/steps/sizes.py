"""Sizes of what steps read, for the costs that they state."""

from lmr.runtime.steps import Source

__all__ = ["rows_per_shard"]


def rows_per_shard(source: Source) -> int:
    """Return how many rows a shard of a source has, as the mean of its shards rounded up."""
    return -(-source.rows // max(source.shards, 1))
