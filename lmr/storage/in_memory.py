"""Datasets that lie in memory: what is made of one photo that is asked for, and kept nowhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lmr.storage.datasets import Dataset

__all__ = ["MemoryDataset"]


@dataclass(frozen=True)
class MemoryDataset(Dataset):
    """A dataset whose shards are tables in memory; shard functions read it as any other.

    Attributes
    ----------
    tables
        The rows of each shard.
    """

    tables: tuple[pa.Table, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, step: str, fingerprint: str, *tables: pa.Table) -> "MemoryDataset":
        """Return tables as the dataset of a step."""
        return cls("memory", step, fingerprint, len(tables), tables)

    def read(
        self, shard: int, columns: Sequence[str] | None = None, *, rows: range | None = None
    ) -> pa.Table:
        """Return a shard, or some of its columns, or a range of its rows."""
        found = self.tables[shard] if columns is None else self.tables[shard].select(list(columns))
        return found if rows is None else found.slice(rows.start, len(rows))

    def read_groups(self, shard: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Return a shard as one group."""
        yield self.read(shard, columns)

    def facts(self, shard: int) -> dict[str, Any]:
        """Return what a stored shard's metadata would say: how many rows it has."""
        return {"rows": self.tables[shard].num_rows}

    def present(self) -> dict[int, int]:
        """Return all shards, with their sizes in bytes."""
        return {shard: max(int(rows.nbytes), 1) for shard, rows in enumerate(self.tables)}

    def has(self, shard: int) -> bool:
        """Tell whether a shard is there: all are."""
        return 0 <= shard < len(self.tables)
