"""ASMK: photos compared by the residuals of their local features, aggregated per visual word.

Tolias, Avrithis, Jégou, *Image search with selective match kernels: aggregation across single and multiple
images*, IJCV 2016; with binary codes and several words per query feature as in Tolias, Jenicek, Chum,
*Learning and aggregating deep local descriptors for instance-level recognition* (HOW), ECCV 2020.

A photo is a set of (word, code) pairs: the code of a word is the sum of (descriptor - centroid) over the
photo's descriptors of that word, of unit length or reduced to its signs. Two photos score

    sum over common words of idf(word) * selectivity(code · code') / sqrt(mass * mass'),

where selectivity(s) = s ** alpha if s >= threshold, else 0, and mass is the number (with idf: the sum of idf)
of a photo's words. This module makes the pairs; `lmr.retrieval.local_search.asmk_index` compares them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.descriptors import check_descriptors
from lmr.retrieval.local_search.codebook import Codebook, faiss_threads

__all__ = ["AsmkPart", "Codes", "aggregate", "random_rotation"]

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


def aggregate(
    descriptors: NDArray[np.float32],
    photo_of_descriptor: NDArray[np.int64],
    codebook: Codebook,
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
    codebook
        Of `words` centroids, from `lmr.retrieval.local_search.codebook`.
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
    check_descriptors(descriptors, dimension=codebook.d, unit=True)
    if photo_of_descriptor.shape != (len(descriptors),):
        raise LmrError(
            "every descriptor needs its photo",
            got=f"{len(descriptors)} descriptors, photos of shape {photo_of_descriptor.shape}",
            fix="repeat each photo's row once per feature",
        )
    if rotation is not None:
        check_descriptors(rotation.T, dimension=codebook.d)
    kept = descriptors.any(axis=1)  # a row of zeros is no descriptor
    descriptors, photo_of_descriptor = descriptors[kept], photo_of_descriptor[kept]
    with faiss_threads(threads):
        nearest = codebook.search(descriptors, min(words_per_descriptor, codebook.ntotal))[1]
    which, column = np.nonzero(nearest >= 0)  # a cell may hold fewer words than asked for
    flat, photos = nearest[which, column], photo_of_descriptor[which]
    order = np.lexsort((flat, photos))
    flat, photos, which = flat[order], photos[order], which[order]
    first = np.ones(len(flat), bool)
    first[1:] = (flat[1:] != flat[:-1]) | (photos[1:] != photos[:-1])
    starts = np.flatnonzero(first)
    if len(starts):
        centroids = codebook.reconstruct_n(0, codebook.ntotal)
        sums = np.add.reduceat(descriptors[which] - centroids[flat], starts, axis=0)
    else:
        sums = np.zeros((0, codebook.d), np.float32)
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


def _signs(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Pack (e, d) > 0 into (e, ceil(d / 32)) uint32, the first component in the highest bit."""
    width = -(-values.shape[1] // 32) * 4
    packed = np.zeros((len(values), width), np.uint8)
    bits = np.packbits(values > 0, axis=1)
    packed[:, : bits.shape[1]] = bits
    return packed.view(">u4").astype(np.uint32)
