"""The inverted file of ASMK: gallery photos by visual word, in sub-indexes that are searched as one.

Each group of gallery shards is a sub-index of plain arrays, mapped from local disk, so that no process needs
the whole. An entry (a photo has the word) costs the code and 4 bytes: 20 bytes with the signs of 128
dimensions, 12 with those of 64. A photo of 1000 descriptors has at most 1000 entries.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.local_search.asmk import AsmkPart, Codes

__all__ = [
    "AsmkIndex",
    "asmk_idf",
    "asmk_norms",
    "build_asmk",
    "entries_per_word",
    "join_asmk",
    "search_asmk",
]


@dataclass(frozen=True)
class AsmkIndex:
    """An inverted file over a group of gallery shards: plain arrays, stored and memory-mapped as they are.

    Attributes
    ----------
    starts
        (words + 1,) int64: entries starts[w] to starts[w + 1] are those of word w.
    photos
        (e,) int32, the photo of each entry, as a position in `photo_rows`.
    codes
        (e, ...) as in `AsmkPart`.
    photo_rows
        (p,) int64, ascending: gallery rows of the photos.
    norms
        (p,) float64, what `asmk_norms` says of the idf that is searched with; None: found at each search.
    """

    starts: NDArray[np.int64]
    photos: NDArray[np.int32]
    codes: Codes
    photo_rows: NDArray[np.int64]
    norms: NDArray[np.float64] | None = None


def build_asmk(part: AsmkPart, *, n_words: int, photo_rows: NDArray[np.int64] | None = None) -> AsmkIndex:
    """Turn aggregated photos into an inverted file.

    Parameters
    ----------
    part
        Aggregated gallery photos, each one once, with gallery rows as `photos`.
    n_words
        Size of the codebook.
    photo_rows
        Gallery rows of the group, ascending, if more than those that `part` has: photos without a feature.
    """
    rows = np.unique(part.photos) if photo_rows is None else photo_rows
    order = np.lexsort((part.photos, part.words))
    counts = np.bincount(part.words, minlength=n_words)
    _check_words(len(counts), n_words)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    positions = np.searchsorted(rows, part.photos[order]).astype(np.int32)
    return AsmkIndex(starts, positions, part.codes[order], rows)


def join_asmk(parts: Sequence[AsmkPart], *, n_words: int) -> AsmkIndex:
    """Turn photos that were aggregated in several parts into the inverted file that `build_asmk` makes.

    Beside the file only one part is held at a time, so that parts may be mapped from a disk. It goes over
    them twice: words are counted first, so that the place of each entry is known.

    Parameters
    ----------
    parts
        Aggregated gallery photos; gallery rows ascend from part to part, and within each. One at least.
    n_words
        Size of the codebook.

    Raises
    ------
    LmrError
        If a part has words beyond the codebook.
    """
    counts, rows = np.zeros(n_words, np.int64), []
    for part in parts:
        found = np.bincount(part.words, minlength=n_words)
        _check_words(len(found), n_words)
        counts += found
        rows.append(np.unique(part.photos))
    photo_rows = np.unique(np.concatenate(rows))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    codes = np.empty((int(starts[-1]), *parts[0].codes.shape[1:]), parts[0].codes.dtype)
    photos, free = np.empty(len(codes), np.int32), starts[:-1].copy()
    for part in parts:
        order = np.argsort(part.words, kind="stable")
        words = part.words[order]
        # Entries of one word stand together now; the first of them goes to the word's first free place.
        places = free[words] + np.arange(len(words)) - np.searchsorted(words, words)
        photos[places] = np.searchsorted(photo_rows, part.photos[order])
        codes[places] = part.codes[order]
        free += np.bincount(words, minlength=n_words)
    return AsmkIndex(starts, photos, codes, photo_rows)


def _check_words(found: int, n_words: int) -> None:
    if found > n_words:
        raise LmrError(
            f"aggregated photos have words beyond the codebook of {n_words}",
            got=f"word {found - 1}",
            fix="aggregate gallery and queries with one codebook",
        )


def entries_per_word(index: AsmkIndex) -> NDArray[np.int64]:
    """Return the number of photos with each word, (words,); summed over groups, the input of `asmk_idf`."""
    return np.diff(index.starts)


def asmk_idf(entries: NDArray[np.int64], n_photos: int) -> NDArray[np.float32]:
    """Return log(photos / photos with the word) ** 2 for each word; 0 for a word that no photo has."""
    logs = np.log(n_photos / np.maximum(entries, 1))
    idf: NDArray[np.float32] = np.where(entries > 0, logs**2, 0).astype(np.float32)
    return idf


def asmk_norms(index: AsmkIndex, idf: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return the square root of each photo's mass, (p,): its words, or the sum of their idf."""
    weights = None if idf is None else np.repeat(idf.astype(np.float64), np.diff(index.starts))
    return _norms(index.photos, weights, len(index.photo_rows))


def _norms(
    photos: NDArray[np.integer[Any]], weights: NDArray[np.float64] | None, count: int
) -> NDArray[np.float64]:
    # A photo without words (or with those of no weight) scores 0, not NaN.
    mass = np.bincount(photos, weights=weights, minlength=count).astype(np.float64)
    return np.sqrt(np.maximum(mass, 1e-12))


def search_asmk(
    indexes: Iterable[AsmkIndex],
    queries: AsmkPart,
    *,
    n_queries: int,
    candidates: int = 100,
    alpha: float = 3.0,
    threshold: float = 0.0,
    idf: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank gallery photos for each query over all inverted files.

    Memory is one score for each photo of one group, besides the results.

    Parameters
    ----------
    indexes
        Inverted files of one codebook, over different photos; an iterable, to be opened one at a time.
    queries
        Aggregated queries, numbered 0 to n_queries - 1 in `photos`; several words per descriptor help here.
    n_queries
        Number of queries, those without features included.
    candidates
        Photos kept for each query.
    alpha, threshold
        Selectivity: larger alpha trusts only similar codes; similarities below the threshold (0 to 1) count
        nothing.
    idf
        (words,) weights over the whole gallery, see `asmk_idf`.

    Returns
    -------
    photo_rows
        (n_queries, candidates) int32, best first, ties by row, -1 where fewer photos score above 0.
    scores
        (n_queries, candidates) float32, at most 1, 0 where there is no photo.

    Raises
    ------
    LmrError
        A threshold out of range, codes of different kinds, codebooks of different sizes, or query numbers out
        of range.
    """
    if not 0 <= threshold <= 1 or alpha <= 0:
        raise LmrError(
            "ASMK needs a threshold from 0 to 1 and a positive alpha",
            got=f"threshold {threshold}, alpha {alpha}",
            fix="the published setting is threshold 0, alpha 3",
        )
    if len(queries.photos) and not 0 <= queries.photos.min() <= queries.photos.max() < n_queries:
        raise LmrError(
            f"queries must be numbered from 0 to {n_queries - 1}",
            got=f"{queries.photos.min()} to {queries.photos.max()}",
            fix="aggregate queries with their position in the block",
        )
    rows = np.full((n_queries, candidates), -1, np.int32)
    scores = np.zeros((n_queries, candidates), np.float64)
    bounds = np.searchsorted(queries.photos, np.arange(n_queries + 1))
    weights = None if idf is None else idf.astype(np.float64)
    for index in indexes:
        _check_match(index, queries, idf)
        if weights is None:
            weights = np.ones(len(index.starts) - 1)
        query_norms = _norms(queries.photos, weights[queries.words], n_queries)
        norms = asmk_norms(index, idf) if index.norms is None else index.norms
        table = _selectivity(queries.codes, alpha, threshold)
        for query in range(n_queries):
            part = slice(bounds[query], bounds[query + 1])
            words, codes = queries.words[part], queries.codes[part]
            total = np.zeros(len(index.photo_rows))
            if table is None:
                _add_float(
                    total, words, codes, index.starts, index.photos, index.codes, weights, alpha, threshold
                )
            else:
                _add_binary(total, words, codes, index.starts, index.photos, index.codes, weights, table)
            total /= norms * query_norms[query]
            _keep_best(rows[query], scores[query], total, index.photo_rows)
    return rows, scores.astype(np.float32)


def _check_match(index: AsmkIndex, queries: AsmkPart, idf: NDArray[np.float32] | None) -> None:
    n_words = len(index.starts) - 1
    if index.codes.dtype != queries.codes.dtype or index.codes.shape[1] != queries.codes.shape[1]:
        raise LmrError(
            "gallery and queries must be aggregated alike",
            got=f"gallery {index.codes.dtype} × {index.codes.shape[1]}, "
            f"queries {queries.codes.dtype} × {queries.codes.shape[1]}",
            fix="use one extractor and one setting of `binary` for both",
        )
    if (len(queries.words) and queries.words.max() >= n_words) or (idf is not None and len(idf) != n_words):
        raise LmrError(
            f"gallery of {n_words} words does not fit the queries or the idf",
            fix="aggregate gallery and queries, and count entries, with one codebook",
        )


def _selectivity(codes: Codes, alpha: float, threshold: float) -> NDArray[np.float64] | None:
    """Return the selectivity of each Hamming distance, or None for float codes."""
    if codes.dtype != np.uint32:
        return None
    bits = 32 * codes.shape[1]  # padding counts, as in the reference implementation
    similarity = 1 - 2 * np.arange(bits + 1) / bits
    return np.where(similarity >= threshold, np.maximum(similarity, 0) ** alpha, 0)


@njit(nogil=True, cache=True)
def _add_binary(  # type: ignore[no-untyped-def]
    total, words, codes, starts, photos, gallery_codes, weights, table
):
    """Add each common word's weighted selectivity to its photos' totals; codes are sign bits."""
    ones, pairs, fours, sum_bytes = (
        np.uint32(0x55555555),
        np.uint32(0x33333333),
        np.uint32(0x0F0F0F0F),
        np.uint32(0x01010101),
    )
    width = codes.shape[1]
    for i in range(len(words)):
        word = words[i]
        weight = weights[word]
        for entry in range(starts[word], starts[word + 1]):
            distance = np.uint32(0)
            for j in range(width):
                # The usual population count, which LLVM turns into the machine's own instruction.
                x = codes[i, j] ^ gallery_codes[entry, j]
                x = np.uint32(x - ((x >> np.uint32(1)) & ones))
                x = np.uint32((x & pairs) + ((x >> np.uint32(2)) & pairs))
                x = np.uint32((x + (x >> np.uint32(4))) & fours)
                distance += np.uint32(np.uint32(x * sum_bytes) >> np.uint32(24))
            total[photos[entry]] += weight * table[distance]


@njit(nogil=True, cache=True)
def _add_float(  # type: ignore[no-untyped-def]
    total, words, codes, starts, photos, gallery_codes, weights, alpha, threshold
):
    """Add each common word's weighted selectivity to its photos' totals; codes are unit vectors."""
    for i in range(len(words)):
        word = words[i]
        weight = weights[word]
        for entry in range(starts[word], starts[word + 1]):
            similarity = 0.0
            for j in range(codes.shape[1]):
                similarity += codes[i, j] * gallery_codes[entry, j]
            if similarity >= threshold:
                total[photos[entry]] += weight * similarity**alpha


@njit(nogil=True, cache=True)
def _keep_best(rows, scores, total, photo_rows):  # type: ignore[no-untyped-def]
    """Insert a group's totals into the sorted best of one query: higher score first, then lower row."""
    last = len(rows) - 1
    for p in range(len(total)):
        score, row = total[p], photo_rows[p]
        if score <= 0 or score < scores[last] or (score == scores[last] and row > rows[last]):
            continue
        at = last
        while at > 0 and (scores[at - 1] < score or (scores[at - 1] == score and rows[at - 1] > row)):
            scores[at], rows[at] = scores[at - 1], rows[at - 1]
            at -= 1
        scores[at], rows[at] = score, row
