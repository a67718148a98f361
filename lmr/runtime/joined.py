"""Steps of one kind read as one dataset: the generations of a gallery that grows.

What each part holds does not depend on the others, so adding a part leaves the shards of all others valid;
what reads the joined dataset sees one dataset with its shards numbered through.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from lmr.runtime import storage
from lmr.runtime.settings import digest
from lmr.runtime.shards import Dataset, JoinedDataset
from lmr.runtime.steps import Source, Step

__all__ = ["Joined", "by_name", "by_part", "join"]


@dataclass(frozen=True, eq=False)
class Joined:
    """Several steps read as one; a `Source`.

    Attributes
    ----------
    parts
        The steps, in order.
    """

    parts: tuple[Step, ...]

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that stand for the parts in their order."""
        return digest([part.fingerprint for part in self.parts])

    @cached_property
    def shards(self) -> int:
        """How many shards all parts have."""
        return sum(part.shards for part in self.parts)

    @property
    def rows(self) -> int:
        """Expected rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes_per_row(self) -> float:
        """Expected size of a row, over all parts."""
        return sum(part.rows * part.bytes_per_row for part in self.parts) / max(self.rows, 1)

    def dataset(self, root: str) -> Dataset:
        """Return the dataset below a run's folder."""
        first = self.parts[0]
        parts = tuple(part.dataset(root) for part in self.parts)
        url = storage.join(root, first.folder)
        return JoinedDataset(url, first.name, self.fingerprint, self.shards, parts)


def join(steps: Iterable[Step]) -> Source:
    """Return steps as one source; one step alone stays itself."""
    parts = tuple(steps)
    return parts[0] if len(parts) == 1 else Joined(parts)


def by_name(steps: Iterable[Step]) -> list[Source]:
    """Join the steps that have one name, for those who count and show; the order stays."""
    together: dict[str, list[Step]] = {}
    for step in steps:
        together.setdefault(step.name, []).append(step)
    return [join(some) for some in together.values()]


def by_part(declare: Callable[..., Step], *sources: Source) -> Source:
    """Declare a step for each part of some sources, and join them.

    Parameters
    ----------
    declare
        Takes a part of each source and returns the step that reads these.
    *sources
        Sources of the same number of parts.
    """
    return join(declare(*parts) for parts in zip(*(source.parts for source in sources), strict=True))
