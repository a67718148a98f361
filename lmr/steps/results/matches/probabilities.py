"""The probabilities of a run's answers, looked up by query and photo."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.steps.ranking import pair_keys
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.arrow import column

__all__ = ["PairProbabilities"]


class PairProbabilities:
    """The probability of every pair of a run that has a calibration.

    Twelve bytes for each photo of each list: those of a hundred thousand queries take 240 MB.

    Parameters
    ----------
    run
        The run; shards that are not there are left out.
    """

    def __init__(self, run: RunDatasets) -> None:
        keys: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        said: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
        dataset = run.probable
        for rows in map(dataset.read, sorted(dataset.present())) if dataset else ():
            photos = column(rows, "photos")
            row, place = np.nonzero(photos >= 0)
            keys.append(pair_keys(column(rows, "query")[row], photos[row, place]))
            said.append(column(rows, "probability")[row, place])
        joined = np.concatenate(keys)
        order = np.argsort(joined, kind="stable")
        self._keys, self._said = joined[order], np.concatenate(said)[order]

    def of(self, query: NDArray[np.integer[Any]], photo: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Return the probability of pairs, given by row; NaN for one that has none."""
        wanted = pair_keys(query, photo)
        if not len(self._keys):
            return np.full(wanted.shape, np.nan, np.float32)
        at = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._said[at], np.float32(np.nan))
