"""What a feature's neighbours are like where the query's landmark is not: the background of its votes.

The k-th neighbour stands for the background as long as a landmark has fewer than k photos. Of a larger one it
shows the landmark too. The centroids of the index do not: one landmark has few of them, however many photos
it has. So the distance to a centroid some ranks away, times what the distance to the k-th neighbour is of it
elsewhere in the gallery, is a background that does not depend on the landmark's size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.local_search.inverted_file import first_descriptors, list_distances, search_sub_index

__all__ = ["Background", "gallery_background"]

CENTROID_RANK = 16
SAMPLE = 1024  # features of the gallery: as many as one query has
LOW = 0.25
PRIOR_VOTE = 0.05  # distances of unit descriptors are between 0 and 2; RootSIFT's vote is 0.04 on the average
PRIOR_VOTES = 20


@dataclass(frozen=True)
class Background:
    """What neighbours are like in a gallery.

    Attributes
    ----------
    ratio
        Distance of a feature's k-th neighbour over that of its 16th nearest centroid; smaller in a quarter
        of the gallery's own features.
    vote
        What a vote weighs as a rule.
    """

    ratio: float
    vote: float

    def lengths(self, index: Any, queries: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Return the distance, (q,) float32 L2, at which a neighbour of each descriptor says nothing."""
        squares = list_distances(index, queries, CENTROID_RANK, threads=threads)
        return np.asarray(np.float32(self.ratio) * np.sqrt(squares), np.float32)


def gallery_background(
    indexes: Callable[[], Iterable[Any]], *, k: int, probes: int, threads: int = 1
) -> Background:
    """Learn the background from about a thousand of the gallery's own features.

    Parameters
    ----------
    indexes
        Opens the sub-indexes of the gallery, as `search_sub_index` takes them; called twice.
    k, probes, threads
        As for `search_sub_index`, of the search whose votes are weighed.

    Returns
    -------
    Background
        The same for every division of the gallery into sub-indexes. Of a gallery without features the ratio
        is 0: the k-th neighbour alone counts.
    """
    sample = first_descriptors(indexes(), SAMPLE)
    if not len(sample):
        return Background(0.0, PRIOR_VOTE)
    squares, rows = search_sub_index(indexes(), sample, k=k + 1, probes=probes, threads=threads)
    # The nearest is the feature itself.
    lengths = np.sqrt(np.where(rows >= 0, np.maximum(squares, 0), 0), dtype=np.float64)[:, 1:]
    last = lengths.max(axis=1)
    apart = np.sqrt(
        list_distances(next(iter(indexes())), sample, CENTROID_RANK, threads=threads), dtype=float
    )
    full = (rows[:, -1] >= 0) & (apart > 0)
    ratio = float(np.quantile(last[full] / apart[full], LOW)) if full.any() else 0.0
    votes = np.where(rows[:, 1:] >= 0, np.maximum(last, ratio * apart)[:, None] - lengths, 0)
    cast = np.count_nonzero(votes)
    return Background(ratio, float((votes.sum() + PRIOR_VOTES * PRIOR_VOTE) / (cast + PRIOR_VOTES)))
