"""VLAD: a photo as one vector, the sum of its local features' offsets from their visual words.

Jégou et al., *Aggregating local image descriptors into compact codes* (PAMI 2012). Features are first reduced
by PCA and whitened, and each offset counts with unit length (Delhumeau et al., *Revisiting the VLAD image
representation*, ACM MM 2013); the signed square root of the sums tames words that repeat within a photo.

All of a photo's regions are described at the cost of one: each feature is assigned to its word once, and a
region sums the offsets of the features inside it. The vectors are long and meant for `lmr.features.whiten`.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lmr.errors import LmrError
from lmr.features.unit import unit_rows
from lmr.features.whiten import Whitening, learn_whitening

__all__ = ["Vocabulary", "train_vocabulary", "vlad", "vlad_photos", "vlad_regions"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

ROUNDS = 15  # of k-means
SAMPLE_PER_WORD = 1000  # features; more change the words little
ROWS_AT_ONCE = 1 << 16  # offsets of 64 numbers then take 16 MB


@dataclass(frozen=True)
class Vocabulary:
    """Visual words, and the change of coordinates of local features before them.

    Attributes
    ----------
    words
        (w, k) float32, in the new coordinates.
    mean, projection
        (d,) and (d, k) float32: a feature x becomes (x - mean) @ projection.
    """

    words: Floats
    mean: Floats
    projection: Floats

    @property
    def dimension(self) -> int:
        """Length of a VLAD vector: w * k."""
        return int(self.words.size)

    def offsets(self, descriptors: Floats) -> tuple[Ints, Floats]:
        """Return the nearest word (n,) of each feature (n, d) and the unit offset (n, k) from it.

        The offset of a zero row (a feature without descriptor) is zero.
        """
        features = Whitening(self.mean, self.projection).rotate(descriptors)
        nearest: Ints = faiss.knn(features, self.words, 1)[1][:, 0]
        features -= self.words[nearest]
        features[~np.any(descriptors, axis=1)] = 0
        return nearest, unit_rows(features)


def train_vocabulary(descriptors: Floats, words: int, seed: int, *, dimension: int = 64) -> Vocabulary:
    """Learn visual words from a sample of local features.

    Parameters
    ----------
    descriptors
        (n, d) float32 unit rows; rows of zeros are left out. Of more than 1000 per word, 1000 are drawn.
    words
        Number of words w.
    seed
        Of the draw and of k-means; the same sample and seed give the same words.
    dimension
        Coordinates k kept of a feature, of the largest variance and whitened.

    Raises
    ------
    LmrError
        If there are fewer features than words, or they are not finite.
    """
    sample = descriptors[np.any(descriptors, axis=1)]
    if words < 1 or len(sample) < words:
        raise LmrError(
            f"{words} visual words cannot be learned from {len(sample)} local features",
            got=f"{len(sample)} features that are not zero",
            fix="give at least as many features as words, or ask for fewer words",
        )
    if len(sample) > SAMPLE_PER_WORD * words:
        chosen = np.random.default_rng(seed).choice(len(sample), SAMPLE_PER_WORD * words, replace=False)
        sample = sample[np.sort(chosen)]
    whitening = learn_whitening(sample, dimension, power=0.5)
    rotated = np.ascontiguousarray(whitening.rotate(sample))
    # faiss warns of few features per word, which small galleries have.
    kmeans = faiss.Kmeans(
        rotated.shape[1],
        words,
        niter=ROUNDS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE_PER_WORD,
    )
    kmeans.train(rotated)
    centroids: Floats = np.asarray(kmeans.centroids)
    return Vocabulary(centroids, whitening.mean, whitening.projection)


def vlad(descriptors: Floats, vocabulary: Vocabulary) -> Floats:
    """Return the VLAD vector (w * k,) of one photo's local features (n, d) float32.

    It has unit length; without features it is zero.
    """
    vector: Floats = vlad_photos(descriptors, np.array([len(descriptors)]), vocabulary)[0]
    return vector


def vlad_photos(descriptors: Floats, counts: Ints, vocabulary: Vocabulary) -> Floats:
    """Return the VLAD vectors of many photos.

    Parameters
    ----------
    descriptors
        (n, d) float32 unit rows, the features of all photos one after the other.
    counts
        (p,) int64, how many of them are each photo's; zeros are allowed.
    vocabulary
        The words.

    Returns
    -------
    (p, w * k) float32, unit rows; zero for a photo without features.
    """
    if counts.sum() != len(descriptors):
        raise LmrError(
            "local features and their counts do not agree",
            got=f"{len(descriptors)} features, counts that sum to {counts.sum()}",
            fix="give the number of features of each photo, in the order of the features",
        )
    photo = np.repeat(np.arange(len(counts)), counts)
    sums = np.zeros((len(counts), vocabulary.dimension), np.float32)
    for start in range(0, len(descriptors), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        word, offsets = vocabulary.offsets(descriptors[part])
        first, last = photo[part][0], photo[part][-1] + 1
        features = np.arange(len(word))
        sums[first:last] += _summed(photo[part] - first, features, last - first, word, offsets, vocabulary)
    return _normalised(sums)


def vlad_regions(xy: Floats, descriptors: Floats, vocabulary: Vocabulary, boxes: Floats) -> Floats:
    """Return the VLAD vectors of regions of one photo.

    Parameters
    ----------
    xy
        (n, 2) float32, places of the features in pixels; the centre of the first pixel is 0.
    descriptors
        (n, d) float32 unit rows.
    vocabulary
        The words.
    boxes
        (r, 4) float32, columns left, top, right, bottom in pixels; right and bottom are exclusive.

    Returns
    -------
    (r, w * k) float32, unit rows; zero for a region without features.
    """
    left, top, right, bottom = boxes[:, :, None].transpose(1, 0, 2)
    # The first pixel reaches from 0 to 1 in a box, and from -0.5 to 0.5 among the places.
    x, y = xy.T + 0.5
    region, feature = np.nonzero((left <= x) & (x < right) & (top <= y) & (y < bottom))
    word, offsets = vocabulary.offsets(descriptors)
    return _normalised(_summed(region, feature, len(boxes), word, offsets, vocabulary))


def _summed(
    group: Ints, feature: Ints, groups: int, word: Ints, offsets: Floats, vocabulary: Vocabulary
) -> Floats:
    """Sum offsets by group and word to (groups, w * k); `group` and `feature` list who is in which."""
    rows = group * len(vocabulary.words) + word[feature]
    shape = (groups * len(vocabulary.words), len(offsets))
    members = csr_array((np.ones(len(rows), np.float32), (rows, feature)), shape=shape)
    sums: Floats = (members @ offsets).reshape(groups, vocabulary.dimension)
    return sums


def _normalised(sums: Floats) -> Floats:
    return unit_rows(np.copysign(np.sqrt(np.abs(sums)), sums))
