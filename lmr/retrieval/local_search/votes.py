"""Candidates by voting: each feature of a query votes for the photos of its nearest gallery features."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["chance_votes", "inverse_frequency", "vote"]

STRONGEST_OF_CHANCE = 2.0  # times the mean: candidates are the luckiest of many
PRIOR_VOTES = 20  # votes of the gallery's usual weight that a query's own are joined with


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
    background: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank gallery photos by the votes of the query's features.

    A vote weighs as much as the neighbour is nearer than the feature's background: the distance to the k-th
    neighbour, or `background` where that is farther, minus the distance, all L2. A feature whose k neighbours
    are equally far (grass, bricks) therefore says little without any threshold. A feature votes once for a
    photo, by its nearest neighbour there.

    Repeated structures (windows) fire many features at once. With `words`, the features of a query that
    share a visual word and vote for the same photo count as the p-norm of their votes, p = 1 / (1 - burst):
    n equal votes count as their sum divided by n ** burst (Jégou, Douze, Schmid, *On the burstiness of
    visual elements*, CVPR 2009, whose intra-image form this follows with the index's lists as elements).
    Unlike their sum divided by n ** burst, a norm never falls when a vote is added.

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
        (q,) visual word of each feature, from `lmr.retrieval.local_search.inverted_file.nearest_lists`; None
        leaves bursts alone.
    burst
        0 adds the votes of a burst, 1 takes the largest of them, 0.5 the root of the sum of their squares.
    idf
        (words,) weight of each word, see `inverse_frequency`; needs `words`.
    background
        (q,) L2 distance at which a neighbour of each feature says nothing, from
        `lmr.retrieval.local_search.background.Background`; None: that of its k-th neighbour. When a landmark
        has more than k photos, that one shows the landmark too, and without a background of its own the
        feature says nothing.

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
    _check(query_of_feature, distances, photo_rows, n_queries, words, idf, background)
    if not 0 <= burst <= 1:
        raise LmrError(
            "burst lies between 0 and 1", got=str(burst), fix="0 adds a burst's votes; 0.5 is usual"
        )
    best_rows = np.full((n_queries, candidates), -1, np.int32)
    best_votes = np.zeros((n_queries, candidates), np.float32)
    visual_words = np.zeros(len(distances), np.int32) if words is None else words
    weights = np.ones(1, np.float32) if idf is None else idf
    damping = 0.0 if words is None else float(burst)
    floors = np.zeros(len(distances), np.float32) if background is None else background
    bounds = np.searchsorted(query_of_feature, np.arange(n_queries + 1))
    _vote(
        *(bounds, distances, photo_rows, floors, visual_words, weights, idf is not None, damping),
        *(best_rows, best_votes),
    )
    return best_rows, best_votes


def chance_votes(
    query_of_feature: NDArray[np.int64],
    distances: NDArray[np.float32],
    photo_rows: NDArray[np.int32],
    *,
    n_queries: int,
    n_photos: int,
    usual: float,
    background: NDArray[np.float32] | None = None,
    words: NDArray[np.int32] | None = None,
    idf: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return the votes that a photo of each query gets by chance, (n_queries,) float32, above 0.

    It is twice what a single vote weighs and an average photo of the gallery gets of all votes. The first is
    what chance gives in a large gallery, the second in a small one; neither depends on how many
    candidates are kept, nor on which photo is the weakest of them.

    Parameters
    ----------
    query_of_feature, distances, photo_rows, n_queries, background, words, idf
        As for `vote`.
    n_photos
        Photos of the gallery.
    usual
        What a vote weighs in this gallery as a rule; the mean of a query with few votes is drawn to it.
    """
    _check(query_of_feature, distances, photo_rows, n_queries, words, idf, background)
    lengths = np.sqrt(np.maximum(np.where(photo_rows >= 0, distances, 0), 0), dtype=np.float64)
    farthest = lengths.max(axis=1, initial=0.0)
    if background is not None:
        farthest = np.maximum(farthest, background)
    votes = np.where(photo_rows >= 0, farthest[:, None] - lengths, 0)
    cast = np.count_nonzero(votes, axis=1).astype(np.float64)
    if idf is not None and words is not None:
        votes = votes * idf[words][:, None]
    total = np.bincount(query_of_feature, votes.sum(axis=1), n_queries)
    count = np.bincount(query_of_feature, cast, n_queries)
    single = (total + PRIOR_VOTES * usual) / (count + PRIOR_VOTES)
    return np.asarray(STRONGEST_OF_CHANCE * (single + total / max(n_photos, 1)), np.float32)


def inverse_frequency(entries: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weigh each word by log(all entries / its entries); a word without entries gets that of one entry.

    `entries` are the features (or photos) of each word over the whole gallery: the sum of
    `lmr.retrieval.local_search.inverted_file.list_sizes` over the sub-indexes.
    """
    weights: NDArray[np.float32] = np.log(max(entries.sum(), 1) / np.maximum(entries, 1)).astype(np.float32)
    return weights


@njit(nogil=True, cache=True)
def _vote(
    bounds: Any,
    distances: Any,
    photo_rows: Any,
    floors: Any,
    words: Any,
    weights: Any,
    weighted: Any,
    burst: Any,
    best_rows: Any,
    best_votes: Any,
) -> None:
    """Fill the best photos of each query; a query's sums run in the order of its own features.

    Two hash tables per query, of its photos and of its bursts (photo, word): sorting all votes instead took
    most of the time of a search.
    """
    n_queries, k, most = len(best_rows), distances.shape[1], 0
    for query in range(n_queries):
        most = max(most, bounds[query + 1] - bounds[query])
    size = 16
    while size < 2 * most * k:
        size *= 2
    photo_slots, photos, voters = _table(size)
    burst_slots, burst_photos, burst_words = _table(size)
    votes, largest, sums = np.empty(size), np.empty(size), np.empty(size)
    power = 1 / max(1 - burst, 1e-9)
    for query in range(n_queries):
        n_photos, n_bursts = 0, 0
        for feature in range(bounds[query], bounds[query + 1]):
            word = words[feature]
            weight = np.float64(weights[word]) if weighted else 1.0
            farthest = np.float64(floors[feature])
            for j in range(k):
                if photo_rows[feature, j] >= 0:
                    farthest = max(farthest, _length(distances[feature, j]))
            for j in range(k):
                row = photo_rows[feature, j]
                if row < 0:
                    continue
                slot = _slot(photo_slots, photos, photos, row, row)
                if photo_slots[slot] < 0:
                    photo_slots[slot], photos[n_photos], voters[n_photos] = n_photos, row, -1
                    votes[n_photos] = 0.0
                    n_photos += 1
                photo = photo_slots[slot]
                if voters[photo] == feature:  # its nearest neighbour there has voted
                    continue
                voters[photo] = feature
                slot = _slot(burst_slots, burst_photos, burst_words, photo, word)
                if burst_slots[slot] < 0:
                    burst_slots[slot], burst_photos[n_bursts], burst_words[n_bursts] = n_bursts, photo, word
                    largest[n_bursts], sums[n_bursts] = 0.0, 0.0
                    n_bursts += 1
                at, one = burst_slots[slot], (farthest - _length(distances[feature, j])) * weight
                # The sum of powers is kept over the largest vote, which no power can then overflow.
                if one > largest[at]:
                    sums[at] = sums[at] * (largest[at] / one) ** power + 1.0
                    largest[at] = one
                elif one > 0:
                    sums[at] += (one / largest[at]) ** power
        for i in range(n_bursts):
            if largest[i] > 0:
                votes[burst_photos[i]] += largest[i] * sums[i] ** (1 - burst)
        for i in range(n_photos):
            _keep(best_rows[query], best_votes[query], photos[i], np.float32(votes[i]))
        photo_slots[:], burst_slots[:] = -1, -1


@njit(nogil=True, cache=True)
def _length(square: Any) -> Any:
    return np.sqrt(max(np.float64(square), 0.0))


@njit(nogil=True, cache=True)
def _table(size: Any) -> Any:
    """Return an empty hash table: the entry of each slot, and two columns of entries."""
    return np.full(size, -1, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)


@njit(nogil=True, cache=True)
def _slot(slots: Any, firsts: Any, seconds: Any, first: Any, second: Any) -> Any:
    """Return the slot of the entry (first, second), or the free one for it; `slots` is half empty."""
    last = len(slots) - 1
    key = (np.uint64(first) << np.uint64(32)) ^ np.uint64(second)
    slot = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last
    while slots[slot] >= 0 and (firsts[slots[slot]] != first or seconds[slots[slot]] != second):
        slot = (slot + 1) & last
    return slot


@njit(nogil=True, cache=True)
def _keep(rows: Any, votes: Any, row: Any, vote: Any) -> None:
    """Insert a photo into a query's best: more votes first, then the lower row."""
    at = len(rows)
    while at > 0 and (
        rows[at - 1] < 0 or votes[at - 1] < vote or (votes[at - 1] == vote and rows[at - 1] > row)
    ):
        if at < len(rows):
            rows[at], votes[at] = rows[at - 1], votes[at - 1]
        at -= 1
    if at < len(rows):
        rows[at], votes[at] = row, vote


def _check(
    query_of_feature: NDArray[np.int64],
    distances: NDArray[np.float32],
    photo_rows: NDArray[np.int32],
    n_queries: int,
    words: NDArray[np.int32] | None,
    idf: NDArray[np.float32] | None,
    background: NDArray[np.float32] | None,
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
    if background is not None and (background.shape != (n,) or not np.isfinite(background).all()):
        raise LmrError(
            "every feature needs a finite background",
            got=f"{n} features, a background of shape {background.shape}",
            fix="pass what Background.lengths returns for the same features",
        )
    if idf is not None and words is None:
        raise LmrError("idf weights words, and no words were given", fix="pass words, or no idf")
