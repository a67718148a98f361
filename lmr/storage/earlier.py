"""What a step has made before, of other inputs: the datasets that lie beside the one that it makes now."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmr.errors import ShardError
from lmr.storage import objects
from lmr.storage.datasets import Dataset

__all__ = ["Earlier"]


@dataclass(frozen=True)
class Earlier:
    """The datasets of one step in a run's folder, but for the one that is being made.

    Attributes
    ----------
    url
        The folder that holds them, each under its fingerprint.
    step
        The step's name.
    now
        Fingerprint of the dataset that is being made.
    """

    url: str
    step: str
    now: str

    @classmethod
    def of(cls, output: Dataset) -> "Earlier":
        """Return what lies beside a dataset."""
        folder, _, fingerprint = output.url.rpartition("/")
        return cls(folder, output.step, fingerprint)

    def shards(self, shard: int) -> Iterator[tuple[Dataset, dict[str, Any]]]:
        """Yield each dataset that has a shard of this number whole, with the facts of the shard.

        One that is missing, damaged, or of another step that shares the folder, is passed over: whoever asks
        makes anew what is not there.
        """
        for fingerprint in objects.folders(self.url):
            if fingerprint == self.now:
                continue
            dataset = Dataset(objects.join(self.url, fingerprint), self.step, fingerprint, shard + 1)
            try:
                facts = dataset.facts(shard)
            except ShardError:
                continue
            yield dataset, facts
