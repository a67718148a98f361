"""Candidates by voting: each feature of a query votes for the photos of its nearest gallery features."""

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["vote", "inverse_frequency"]


def vote(
    query_of_feature: NDArray[np.int64],
    distances: NDArray[np.float32],
    photo_rows: NDArray[np.int32],
    *,
    n_queries: int,
    candidates: int = 100,
    words: NDArray[np.int32] | None = None,
    burst: float = 0.5,
    idf: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank gallery photos by the votes of the query's features.

    A vote weighs as much as the neighbour is nearer than the feature's last one: distance to the k-th
    neighbour minus distance, both L2. A feature whose k neighbours are equally far (grass, bricks) therefore
    says little without any threshold. A feature votes once for a photo, by its nearest neighbour there.

    Repeated structures (windows) fire many features at once. With `words`, the n features of a query that
    share a visual word and vote for the same photo count as their sum divided by n ** burst (Jégou, Douze,
    Schmid, *On the burstiness of visual elements*, CVPR 2009, whose intra-image form this follows with the
    index's lists as elements).

    Parameters
    ----------
    query_of_feature
        (q,) the query of each feature, ascending; queries without features are allowed.
    distances
        (q, k) squared L2 of each feature's neighbours, ascending, inf where there is none.
    photo_rows
        (q, k) the neighbours' photos, -1 where there is none.
    n_queries
        Number of queries, more than any of `query_of_feature`.
    candidates
        Photos kept for each query.
    words
        (q,) visual word of each feature, from `lmr.retrieval.index.nearest_lists`; None leaves bursts alone.
    burst
        0 adds the votes of a burst, 1 takes their mean, 0.5 lies between.
    idf
        (words,) weight of each word, see `inverse_frequency`; needs `words`.

    Returns
    -------
    photo_rows
        (n_queries, candidates) int32, most votes first, ties by row, -1 where fewer photos got a vote.
    votes
        (n_queries, candidates) float32, 0 where there is no photo.

    Raises
    ------
    LmrError
        Arrays whose lengths differ, features not grouped by query, or idf without words.
    """
    _check(query_of_feature, distances, photo_rows, n_queries, words, idf)
    best_rows = np.full((n_queries, candidates), -1, np.int32)
    best_votes = np.zeros((n_queries, candidates), np.float32)
    feature, rows, weights = _votes(distances, photo_rows)
    if not len(rows):
        return best_rows, best_votes
    queries = query_of_feature[feature]
    visual_words = np.zeros(len(rows), np.int32) if words is None else words[feature]
    if idf is not None:
        weights *= idf[visual_words]

    # Sum each burst, damp it, then sum the bursts of each (query, photo).
    order = np.lexsort((visual_words, rows, queries))
    queries, rows, visual_words, weights = queries[order], rows[order], visual_words[order], weights[order]
    bursts = _starts(queries, rows, visual_words)
    sizes = np.diff(bursts, append=len(rows))
    damped = np.add.reduceat(weights, bursts)
    if words is not None:
        damped /= sizes.astype(np.float64) ** burst
    queries, rows = queries[bursts], rows[bursts]
    pairs = _starts(queries, rows)
    votes = np.add.reduceat(damped, pairs).astype(np.float32)
    queries, rows = queries[pairs], rows[pairs]

    order = np.lexsort((rows, -votes, queries))
    queries, rows, votes = queries[order], rows[order], votes[order]
    position = np.arange(len(queries)) - np.searchsorted(queries, queries)
    kept = position < candidates
    best_rows[queries[kept], position[kept]] = rows[kept]
    best_votes[queries[kept], position[kept]] = votes[kept]
    return best_rows, best_votes


def inverse_frequency(entries: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weigh each word by log(all entries / its entries); a word without entries gets that of one entry.

    `entries` are the features (or photos) of each word over the whole gallery: the sum of
    `lmr.retrieval.index.list_sizes` over the sub-indexes.
    """
    weights: NDArray[np.float32] = np.log(max(entries.sum(), 1) / np.maximum(entries, 1)).astype(np.float32)
    return weights


def _votes(
    distances: NDArray[np.float32], photo_rows: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return feature, photo row and weight of every vote: the nearest of each (feature, photo)."""
    # A stable sort keeps the nearest of a photo's several neighbours first among them.
    order = np.argsort(photo_rows, axis=1, kind="stable")
    rows = np.take_along_axis(photo_rows, order, axis=1)
    counted = rows >= 0
    counted[:, 1:] &= rows[:, 1:] != rows[:, :-1]
    found = photo_rows >= 0
    length = np.sqrt(np.where(found, np.maximum(distances, 0), 0), dtype=np.float64)
    weights = np.take_along_axis(length.max(axis=1, keepdims=True, initial=0) - length, order, axis=1)
    feature, column = np.nonzero(counted)
    return feature, rows[feature, column], weights[feature, column]


def _starts(*keys: NDArray[np.int64] | NDArray[np.int32]) -> NDArray[np.int64]:
    """Return where a new combination of the sorted keys begins."""
    new = np.ones(len(keys[0]), bool)
    new[1:] = False
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def _check(
    query_of_feature: NDArray[np.int64],
    distances: NDArray[np.float32],
    photo_rows: NDArray[np.int32],
    n_queries: int,
    words: NDArray[np.int32] | None,
    idf: NDArray[np.float32] | None,
) -> None:
    n = len(query_of_feature)
    if distances.ndim != 2 or distances.shape != photo_rows.shape or len(distances) != n:
        raise LmrError(
            "votes need one list of neighbours for each feature",
            got=f"{n} features, distances {distances.shape}, photo rows {photo_rows.shape}",
            fix="pass the two arrays of search_index for the same features",
        )
    if n and (
        query_of_feature[0] < 0 or query_of_feature[-1] >= n_queries or (np.diff(query_of_feature) < 0).any()
    ):
        raise LmrError(
            f"features must be grouped by query, in order, below {n_queries}",
            got=f"query numbers from {query_of_feature.min()} to {query_of_feature.max()}",
            fix="concatenate the features of query 0, 1, 2, ... in this order",
        )
    if words is not None and words.shape != (n,):
        raise LmrError(
            "every feature needs a word",
            got=f"{n} features, words {words.shape}",
            fix="pass one word per feature",
        )
    if idf is not None and words is None:
        raise LmrError("idf weights words, and no words were given", fix="pass words, or no idf")
