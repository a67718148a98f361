"""ASMK: photos compared by the residuals of their local features, aggregated per visual word.

Tolias, Avrithis, Jégou, *Image search with selective match kernels: aggregation across single and multiple
images*, IJCV 2016; with binary codes and several words per query feature as in Tolias, Jenicek, Chum,
*Learning and aggregating deep local descriptors for instance-level recognition* (HOW), ECCV 2020.

A photo is a set of (word, code) pairs: the code of a word is the sum of (descriptor - centroid) over the
photo's descriptors of that word, of unit length or reduced to its signs. Two photos score

    sum over common words of idf(word) * selectivity(code · code') / sqrt(mass * mass'),

where selectivity(s) = s ** alpha if s >= threshold, else 0, and mass is the number (with idf: the sum of idf)
of a photo's words. The gallery is an inverted file by word for each group of shards, 20 bytes per (photo,
word) of 128-d signs; the groups are searched one after the other and the best kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numba import njit
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.index import check_descriptors

__all__ = [
    "AsmkPart",
    "AsmkIndex",
    "aggregate",
    "random_rotation",
    "build_asmk",
    "merge_asmk",
    "entries_per_word",
    "asmk_idf",
    "search_asmk",
]

Codes = NDArray[np.uint32] | NDArray[np.float32]


@dataclass(frozen=True)
class AsmkPart:
    """The aggregated words of some photos, by photo, then word.

    Attributes
    ----------
    words
        (e,) int32.
    photos
        (e,) int64, as given to `aggregate`.
    codes
        (e, ceil(d / 32)) uint32 signs, the first component in the highest bit and zeros after the last, or
        (e, d) float32 of unit length.
    """

    words: NDArray[np.int32]
    photos: NDArray[np.int64]
    codes: Codes


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
    """

    starts: NDArray[np.int64]
    photos: NDArray[np.int32]
    codes: Codes
    photo_rows: NDArray[np.int64]


def aggregate(
    descriptors: NDArray[np.float32],
    photo_of_descriptor: NDArray[np.int64],
    centroids: NDArray[np.float32],
    *,
    words_per_descriptor: int = 1,
    binary: bool = True,
    rotation: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> AsmkPart:
    """Aggregate the descriptors of photos per visual word.

    Parameters
    ----------
    descriptors
        (n, d) float32 unit rows; rows of zeros are left out.
    photo_of_descriptor
        (n,) photo of each, in any order: gallery rows, or the numbers of queries. Photos without descriptors
        simply do not occur.
    centroids
        (words, d) float32 codebook, from `lmr.retrieval.index.train_centroids`.
    words_per_descriptor
        Nearest words that each descriptor enters: 1 for the gallery, 5 for queries.
    binary
        Reduce residuals to signs; False keeps them as unit float32.
    rotation
        (d, bits) applied to residuals before their signs are taken, see `random_rotation`; None takes the
        signs of the residuals themselves, as published for whitened descriptors.
    threads
        Threads of faiss for the nearest words.

    Raises
    ------
    LmrError
        Descriptors not finite, not unit, or not of the codebook's or rotation's dimension; lengths that
        differ.
    """
    check_descriptors(centroids)
    check_descriptors(descriptors, dimension=centroids.shape[1], unit=True)
    if photo_of_descriptor.shape != (len(descriptors),):
        raise LmrError(
            "every descriptor needs its photo",
            got=f"{len(descriptors)} descriptors, photos of shape {photo_of_descriptor.shape}",
            fix="repeat each photo's row once per feature",
        )
    if rotation is not None:
        check_descriptors(rotation.T, dimension=centroids.shape[1])
    kept = descriptors.any(axis=1)  # a row of zeros is no descriptor
    descriptors, photo_of_descriptor = descriptors[kept], photo_of_descriptor[kept]
    words = _nearest(descriptors, centroids, min(words_per_descriptor, len(centroids)), threads)
    which = np.repeat(np.arange(len(descriptors)), words.shape[1])
    flat, photos = words.ravel(), photo_of_descriptor[which]
    order = np.lexsort((flat, photos))
    flat, photos, which = flat[order], photos[order], which[order]
    first = np.ones(len(flat), bool)
    first[1:] = (flat[1:] != flat[:-1]) | (photos[1:] != photos[:-1])
    starts = np.flatnonzero(first)
    if len(starts):
        sums = np.add.reduceat(descriptors[which] - centroids[flat], starts, axis=0)
    else:
        sums = np.zeros((0, centroids.shape[1]), np.float32)
    if rotation is not None:
        sums = sums @ rotation
    codes = (
        _signs(sums) if binary else sums / (np.linalg.norm(sums, axis=1, keepdims=True) + np.float32(1e-6))
    )
    return AsmkPart(flat[starts].astype(np.int32), photos[starts].astype(np.int64), codes)


def random_rotation(dimension: int, *, seed: int, bits: int | None = None) -> NDArray[np.float32]:
    """Return a random rotation, (dimension, bits) float32; `bits` is the dimension unless given.

    Signs keep the angle between residuals best when no component dominates. Those of RootSIFT, sparse and
    never negative, do dominate; a rotation mends it and changes no angle. More bits than dimensions stack
    rotations.
    """
    bits = dimension if bits is None else bits
    rng = np.random.default_rng(seed)
    squares = [np.linalg.qr(rng.normal(size=(dimension, dimension)))[0] for _ in range(-(-bits // dimension))]
    rotation: NDArray[np.float32] = np.concatenate(squares, axis=1)[:, :bits].astype(np.float32)
    return rotation


def _nearest(
    descriptors: NDArray[np.float32], centroids: NDArray[np.float32], count: int, threads: int
) -> NDArray[np.int64]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        nearest: NDArray[np.int64] = faiss.knn(descriptors, centroids, count)[1]
    finally:
        faiss.omp_set_num_threads(before)
    return nearest


def _signs(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Pack (e, d) > 0 into (e, ceil(d / 32)) uint32, the first component in the highest bit."""
    width = -(-values.shape[1] // 32) * 4
    packed = np.zeros((len(values), width), np.uint8)
    bits = np.packbits(values > 0, axis=1)
    packed[:, : bits.shape[1]] = bits
    return packed.view(">u4").astype(np.uint32)


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
    if len(counts) > n_words:
        raise LmrError(
            f"aggregated photos have words beyond the codebook of {n_words}",
            got=f"word {len(counts) - 1}",
            fix="aggregate gallery and queries with one codebook",
        )
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    positions = np.searchsorted(rows, part.photos[order]).astype(np.int32)
    return AsmkIndex(starts, positions, part.codes[order], rows)


def merge_asmk(indexes: Sequence[AsmkIndex]) -> AsmkIndex:
    """Merge inverted files over different photos into one, as if built at once."""
    n_words = len(indexes[0].starts) - 1
    words = [np.repeat(np.arange(n_words, dtype=np.int32), np.diff(index.starts)) for index in indexes]
    photos = [index.photo_rows[index.photos] for index in indexes]
    codes = np.concatenate([index.codes for index in indexes])
    rows = np.unique(np.concatenate([index.photo_rows for index in indexes]))
    part = AsmkPart(np.concatenate(words), np.concatenate(photos), codes)
    return build_asmk(part, n_words=n_words, photo_rows=rows)


def entries_per_word(index: AsmkIndex) -> NDArray[np.int64]:
    """Return the number of photos with each word, (words,); summed over groups, the input of `asmk_idf`."""
    return np.diff(index.starts)


def asmk_idf(entries: NDArray[np.int64], n_photos: int) -> NDArray[np.float32]:
    """Return log(photos / photos with the word) ** 2 for each word; 0 for a word that no photo has."""
    logs = np.log(n_photos / np.maximum(entries, 1))
    idf: NDArray[np.float32] = np.where(entries > 0, logs**2, 0).astype(np.float32)
    return idf


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
    for index in indexes:
        _check_match(index, queries, idf)
        n_words = len(index.starts) - 1
        weights = np.ones(n_words) if idf is None else idf.astype(np.float64)
        entry_weights = np.repeat(weights, np.diff(index.starts))
        mass = np.bincount(index.photos, weights=entry_weights, minlength=len(index.photo_rows))
        query_mass = np.bincount(queries.photos, weights=weights[queries.words], minlength=n_queries)
        # A gallery photo or a query without words (or with those of no weight) scores 0, not NaN.
        scale = 1 / np.sqrt(np.maximum(mass, 1e-12))
        query_scale = 1 / np.sqrt(np.maximum(query_mass, 1e-12))
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
            total *= scale * query_scale[query]
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
