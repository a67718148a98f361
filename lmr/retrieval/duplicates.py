"""Copies among photos: which hashes are near each other, which photo stands for its copies."""

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["first_of_each", "near_pairs", "same_rows", "with_copies"]

_BAND_BITS = 16
_AT_ONCE = 10_000


def same_rows(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return for each row the first row that is equal to it.

    Parameters
    ----------
    digests
        (n, b) uint8.

    Examples
    --------
    >>> same_rows(np.array([[7], [5], [7]], np.uint8)).tolist()
    [0, 1, 0]
    """
    _, first, inverse = np.unique(digests, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()], np.int64)


def near_pairs(
    hashes: NDArray[np.uint8], known: NDArray[np.uint8], max_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs of hashes that differ in few bits; exact, and fast for millions.

    Hashes are cut into bands of 16 bits. Two that differ in few bits differ in very few of at least one band,
    which is looked up (multi-index hashing; Norouzi, Punjani and Fleet, CVPR 2012).

    Parameters
    ----------
    hashes
        (n, b) uint8, of an even number of bytes.
    known
        (m, b) uint8, what they are compared with.
    max_bits
        Most bits in which the hashes of a pair differ.

    Returns
    -------
    (p,) row of `hashes`, (p,) row of `known`, (p,) bits in which they differ; by row, then by bits.
    """
    none = np.empty(0, np.int64)
    if not len(hashes) or not len(known):
        return none, none, none
    n_bits = 8 * hashes.shape[1]
    bands = n_bits // _BAND_BITS
    index = faiss.IndexBinaryMultiHash(n_bits, bands, _BAND_BITS)
    index.nflip = max_bits // bands
    index.add(np.ascontiguousarray(known))
    rows, others, bits = [none], [none], [none]
    for start in range(0, len(hashes), _AT_ONCE):
        some = np.ascontiguousarray(hashes[start : start + _AT_ONCE])
        # faiss leaves out what lies at the radius itself.
        limits, far, near = index.range_search(some, max_bits + 1)
        found = np.searchsorted(limits.astype(np.int64), np.arange(len(near)), side="right") - 1
        rows.append(start + found.astype(np.int64))
        others.append(near.astype(np.int64))
        bits.append(far.astype(np.int64))
    pairs = np.stack([np.concatenate(some) for some in (rows, others, bits)])
    row, other, differing = pairs[:, np.lexsort((pairs[1], pairs[2], pairs[0]))]
    return row, other, differing


def first_of_each(count: int, row: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each photo the photo that stands for it: itself, or an earlier one that it is a copy of.

    A photo joins the earliest photo that it is near to and that stands for itself. So copies of copies do not
    chain photos together that are far from each other, and later photos never change what earlier ones are.

    Parameters
    ----------
    count
        Number of photos.
    row, other
        (p,) pairs of photos that are near each other, in both directions or in one.

    Examples
    --------
    >>> first_of_each(4, np.array([0, 1, 2]), np.array([1, 2, 3])).tolist()
    [0, 0, 2, 2]
    """
    first = np.arange(count)
    early, late = np.minimum(row, other), np.maximum(row, other)
    order = np.lexsort((early, late))
    for before, photo in zip(early[order].tolist(), late[order].tolist(), strict=True):
        if before != photo and first[photo] == photo and first[before] == before:
            first[photo] = before
    return first


def with_copies(
    photos: NDArray[np.int32], scores: NDArray[np.float32], first: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Put the copies of a photo beside it in ranked lists; they take the score of the best of them.

    Copies that a list does not hold are added. A list that gets too long loses its end.

    Parameters
    ----------
    photos
        (q, k) int32 gallery rows, best first; -1 where a list ends early.
    scores
        (q, k) float32.
    first
        (n,) for each photo of the gallery the one that stands for it.

    Returns
    -------
    (q, k) int32 and (q, k) float32.

    Examples
    --------
    >>> photos, scores = np.array([[3, 1, 2]], np.int32), np.array([[0.9, 0.5, 0.4]], np.float32)
    >>> with_copies(photos, scores, np.array([0, 1, 0, 0]))[0].tolist()
    [[3, 2, 0]]
    """
    order = np.argsort(first, kind="stable")
    starts = np.searchsorted(first[order], np.arange(len(first) + 1))
    made, kept = np.full_like(photos, -1), np.zeros_like(scores)
    depth = photos.shape[1]
    for q, listed in enumerate(photos):
        place, seen = 0, set()
        mine = listed[listed >= 0]
        ranks = {int(photo): rank for rank, photo in enumerate(mine)}
        for rank, photo in enumerate(mine.tolist()):
            group = int(first[photo])
            if group in seen or place == depth:
                continue
            seen.add(group)
            members = order[starts[group] : starts[group + 1]].tolist()
            members.sort(key=lambda one: (ranks.get(one, depth), one))
            members = members[: depth - place]
            made[q, place : place + len(members)] = members
            kept[q, place : place + len(members)] = scores[q, rank]
            place += len(members)
    return made, kept
