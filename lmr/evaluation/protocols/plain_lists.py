"""Ranks of right photos in lists whose ids are compared as numbers, many lists at a time.

Ten million ids as Python's texts take most of the time of scoring: they are cut out, hashed, compared and
freed one by one. Here an id is a number of 64 bits, made of its bytes. Equal ids have equal numbers, so that
different numbers prove different ids. Equal numbers prove nothing: each hit is compared as text once more,
and a list that may repeat a photo, or may name its own query, is left to the caller, id by id.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

__all__ = ["ranks_in_cells"]

LISTS_AT_ONCE = 512  # of a hundred numbers each: they stay in the processor's cache
LONGEST_ID, MOST_RIGHT = 64, 32  # bytes and photos; what is longer is left to the caller

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_KEPT = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # by the bytes of a word that count
_NO_ID = "?"  # in the place of an id that no list of ASCII without spaces can hold


def ranks_in_cells(
    cells: Sequence[str | None], queries: Sequence[str], right: Sequence[Collection[str]]
) -> Iterator[list[int] | None]:
    """Yield the ranks of the right photos in each list, ascending, or None where the caller must look.

    Parameters
    ----------
    cells
        The list of each query: ids in ASCII, best first, separated by nothing but spaces, none at the ends;
        None for no list.
    queries
        The id of each query.
    right
        The ids of the right photos of each query.

    Yields
    ------
    Ranks from 1, of a list of two or more different ids that does not hold its query. None of any other, and
    of lists with doubled spaces, ids above 64 bytes or more than 32 right photos.

    Examples
    --------
    >>> list(ranks_in_cells(["a b c", "a b a", "q b"], ["q", "q", "q"], [["c", "a"], ["a"], ["b"]]))
    [[1, 3], None, None]
    """
    for start in range(0, len(cells), LISTS_AT_ONCE):
        block = slice(start, start + LISTS_AT_ONCE)
        yield from _ranks_of_block(cells[block], queries[block], right[block])


def _ranks_of_block(
    cells: Sequence[str | None], queries: Sequence[str], right: Sequence[Collection[str]]
) -> list[list[int] | None]:
    ranks: list[list[int] | None] = [None] * len(cells)
    rows = [row for row, cell in enumerate(cells) if cell and len(right[row]) <= MOST_RIGHT]
    if not rows:
        return ranks
    lists = [cells[row] or "" for row in rows]
    named = _Ids(" ".join(lists))
    # A query's own id stands before those that are right.
    sought = [(queries[row], *right[row]) for row in rows]
    wanted = _Ids(" ".join(chain.from_iterable(sought)))
    wanted_counts = np.fromiter(map(len, sought), np.int64)
    if len(wanted.starts) != wanted_counts.sum():  # an id that no list can hold: not ASCII, or with a space
        plain = (one if one.isascii() and " " not in one else _NO_ID for one in chain.from_iterable(sought))
        wanted = _Ids(" ".join(plain))
    longest = max(named.longest, wanted.longest)
    if longest > LONGEST_ID or named.lengths.min() == 0:  # between two spaces there is an id of no length
        return ranks
    counts = np.diff(np.searchsorted(named.stops, np.cumsum([len(cell) + 1 for cell in lists])), prepend=0)
    table = _table(named.numbers(longest), counts, 0)
    asked = _table(wanted.numbers(longest), wanted_counts, 1)
    ordered = np.sort(table, axis=1)
    left = (counts < 2) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    left |= (table == asked[:, :1]).any(axis=1)
    first, wanted_first = np.cumsum(counts) - counts, np.cumsum(wanted_counts) - wanted_counts
    found = []
    for k in range(1, asked.shape[1]):
        hits = np.flatnonzero(table == asked[:, k : k + 1])
        row_of, place = np.divmod(hits, table.shape[1])
        ids = (place < counts[row_of]) & (k < wanted_counts[row_of])  # and no filling
        hits, row_of, place = hits[ids], row_of[ids], place[ids]
        found.append(hits[named.equal(first[row_of] + place, wanted, wanted_first[row_of] + k)])
    row_of, place = np.divmod(np.unique(np.concatenate([*found, np.empty(0, np.int64)])), table.shape[1])
    ends, ranks_found = np.searchsorted(row_of, np.arange(1, len(rows) + 1)).tolist(), (place + 1).tolist()
    start = 0
    for row, end, unclear in zip(rows, ends, left.tolist(), strict=True):
        if not unclear:
            ranks[row] = ranks_found[start:end]
        start = end
    return ranks


class _Ids:
    """Ids in ASCII, separated by single spaces: where each stands, and its number.

    Where text is not ASCII, there are more or fewer of them than ids.
    """

    def __init__(self, text: str) -> None:
        data = text.encode("ascii", "replace") + b" " + bytes(LONGEST_ID + 8)
        # The eight bytes from each byte on, as one word.
        self.words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
        self.stops = np.flatnonzero(np.frombuffer(data, np.uint8, len(text) + 1) == ord(" "))
        self.starts = np.concatenate([[0], self.stops[:-1] + 1])
        self.lengths = self.stops - self.starts
        self.longest, self.shortest = int(self.lengths.max()), int(self.lengths.min())

    def numbers(self, longest: int) -> NDArray[np.uint64]:
        """Return the number of each id, of all its bytes; the same of two texts if `longest` is the same."""
        found = np.zeros(len(self.starts), np.uint64)
        for done in range(0, longest, 8):
            found ^= self._word(slice(None), done)
            found *= _FACTOR
            found ^= found >> np.uint64(29)
        return found

    def equal(
        self, which: NDArray[np.int64], other: "_Ids", which_other: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which pairs of ids are the same, byte by byte."""
        same: NDArray[np.bool_] = self.lengths[which] == other.lengths[which_other]
        for done in range(0, self.longest, 8):
            same &= self._word(which, done) == other._word(which_other, done)
        return same

    def _word(self, which: NDArray[np.int64] | slice, done: int) -> NDArray[np.uint64]:
        """Return eight bytes of each id, after so many; zeros behind its end."""
        word: NDArray[np.uint64] = self.words[self.starts[which] + done]
        if self.shortest < done + 8:
            word &= _KEPT[np.clip(self.lengths[which] - done, 0, 8)]
        return word


def _table(numbers: NDArray[np.uint64], counts: NDArray[np.int64], odd: int) -> NDArray[np.uint64]:
    """Return the numbers of each row, filled up to the longest with numbers that differ, odd or even."""
    most = int(counts.max())
    if (counts == most).all():
        return numbers.reshape(len(counts), most)
    table = np.tile(np.arange(odd, 2 * most, 2, dtype=np.uint64)[:most], (len(counts), 1))
    table[np.arange(most) < counts[:, None]] = numbers
    return table
