"""Putative matches of many pairs: what is made of a photo for one pair is kept for the next."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.retrieval.verification import _whole_numbers as whole_numbers
from lmr.retrieval.verification.features import Features
from lmr.retrieval.verification.match import nearest_features, nearest_in_table, product_size, table_of

__all__ = ["Matcher"]


class Matcher:
    """Matches one pair of photos after another.

    Descriptors that are kept in bytes, of one type on both sides, are multiplied as whole numbers where the
    processor does that exactly; all others as float32. The matches are the same.

    Parameters
    ----------
    query, gallery
        The photos; of all features the descriptors can be matched (`Features.usable`).
    sizes
        (n1, n2) of each pair that will be asked for, or of the largest.
    max_distance, max_ratio, mutual
        As for `lmr.retrieval.verification.match.match`.
    """

    def __init__(
        self,
        query: Features,
        gallery: Features,
        sizes: tuple[NDArray[np.int64], NDArray[np.int64]],
        *,
        max_distance: float | None,
        max_ratio: float | None,
        mutual: bool,
    ) -> None:
        self.query, self.gallery = query, gallery
        self.tests: dict[str, Any] = {"max_distance": max_distance, "max_ratio": max_ratio, "mutual": mutual}
        largest = max((product_size(int(n1), int(n2)) for n1, n2 in zip(*sizes, strict=True)), default=0)
        self.product = np.empty(largest, np.float32)
        kinds = {query.descriptors.dtype, gallery.descriptors.dtype}
        self.in_bytes = len(kinds) == 1 and query.in_bytes and whole_numbers.supported()
        # Pairs come by query or by gallery photo: one of each is all that is worth keeping.
        self._floats_of_query = lru_cache(1)(lambda first, last: _floats(query, slice(first, last)))
        self._floats_of_gallery = lru_cache(1)(lambda first, last: _floats(gallery, slice(first, last)))
        self._columns = lru_cache(1)(lambda first, last: whole_numbers.columns(query.descriptors[first:last]))

    def __call__(
        self, query: tuple[int, int], gallery: tuple[int, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Match a pair, given the first row of each photo and that behind its last.

        Returns
        -------
        As `lmr.retrieval.verification.match.nearest_features`.
        """
        if not self.in_bytes:
            sides = self._floats_of_query(*query), self._floats_of_gallery(*gallery)
            return nearest_features(*sides, self.product, **self.tests)
        asked, answering = slice(*query), slice(*gallery)
        rows = self.gallery.descriptors[answering]
        table = table_of(self.product.view(np.int32), query[1] - query[0], len(rows))
        whole_numbers.multiply(
            whole_numbers.rows(rows), self._columns(*query), table[: len(rows)], rows.dtype
        )
        return nearest_in_table(
            table,
            (self.query.descriptors[asked], self.query.lengths[asked]),
            (rows, self.gallery.lengths[answering]),
            # The product is exact. Its float32, the two lengths and the unit rows are rounded: ten times.
            12 * 2.0**-24,
            **self.tests,
        )


def _floats(photos: Features, rows: slice) -> NDArray[np.float32]:
    """Return the unit rows of a photo, as `lmr.retrieval.descriptors.to_float` makes them of bytes."""
    if not photos.in_bytes:
        return photos.descriptors[rows]
    unit: NDArray[np.float32] = photos.descriptors[rows].astype(np.float32)
    unit /= photos.lengths[rows][:, None]
    return unit
