"""Rankings: what every search step writes and every later step reads.

A row is a query: `query` (its row), `photos` (gallery rows, best first, padded with -1), `scores`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.runtime.shards import Dataset
from lmr.runtime.tables import column, table

__all__ = ["Ranking", "read_ranking"]


@dataclass(frozen=True)
class Ranking:
    """The ranked gallery photos of some queries.

    Attributes
    ----------
    queries
        (q,) int32 rows of the queries.
    photos
        (q, k) int32 gallery rows, best first; -1 where a list ends early.
    scores
        (q, k) float32, not rising; meaning as the step says.
    """

    queries: NDArray[np.int32]
    photos: NDArray[np.int32]
    scores: NDArray[np.float32]

    def table(self, **more: Any) -> pa.Table:
        """Return the rows to write, with further columns if given."""
        return table(
            {
                "query": self.queries.astype(np.int32),
                "photos": self.photos.astype(np.int32),
                "scores": self.scores.astype(np.float32),
                **more,
            }
        )


def read_ranking(dataset: Dataset, shard: int) -> Ranking:
    """Read one shard of a ranking."""
    rows = dataset.read(shard, ["query", "photos", "scores"])
    return Ranking(column(rows, "query"), column(rows, "photos"), column(rows, "scores"))
