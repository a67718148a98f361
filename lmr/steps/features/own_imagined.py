"""Descriptors that are only counted: what a plan of a workflow on own descriptors is made of."""

from dataclasses import dataclass

import numpy as np

from lmr.runtime.settings import digest
from lmr.runtime.steps import Given
from lmr.steps.features.own_files import Vectors
from lmr.steps.photos.listing import Photos
from lmr.storage.arrow import Ragged, table

__all__ = ["imagined_vectors"]


@dataclass(frozen=True, eq=False)
class _Imagined(Vectors):
    numbers: int = 1

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self.numbers

    def given(self, per_shard: int) -> Given:
        """Return a dataset of rows without vectors; steps can be declared on it, and none be run."""
        return Given(
            name=f"vectors_{self.role}",
            folder=f"vectors/{self.role}",
            rows=table({"photo": np.arange(len(self), dtype=np.int32)}),
            fingerprint=digest(["imagined", self.role, len(self), self.numbers]),
            row_group_rows=per_shard,
        )


def imagined_vectors(photos: Photos, dimension: int) -> Vectors:
    """Return a vector for each of some photos that nobody has; no memory is taken for them.

    Parameters
    ----------
    photos
        Photos that are only counted.
    dimension
        Numbers in a vector.
    """
    nothing = Ragged(np.empty((0, dimension), np.float16), np.arange(len(photos) + 1))
    return _Imagined(photos.role, photos.url, photos.ids, nothing, dimension)
