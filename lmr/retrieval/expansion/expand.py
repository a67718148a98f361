"""Query expansion: a query is averaged with what it has found, and searched again.

Average query expansion: Chum et al., *Total recall* (ICCV 2007); weights by similarity (alpha-QE): Radenovic
et al., *Fine-tuning CNN image retrieval with no human annotation* (PAMI 2019). The NII team's entry adds the
photos that spatial verification has confirmed (global expansion by local guidance).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.retrieval.global_search.augmentation import sum_with_neighbours
from lmr.retrieval.global_search.exact import Descriptors

__all__ = ["expand_queries", "matches_with_verified", "order_with_verified"]


def expand_queries(
    queries: NDArray[np.float32],
    match_ids: NDArray[np.integer[Any]],
    match_weights: NDArray[np.floating[Any]],
    descriptors: Descriptors,
) -> NDArray[np.float32]:
    """Average each query with its matches: query + sum of weight * match, to unit length.

    Weights of 1 give AQE; `lmr.retrieval.global_search.augmentation.weights_of(sims, alpha)` gives alpha-QE.

    Parameters
    ----------
    queries
        (q, d) float32.
    match_ids
        (q, m) gallery row numbers, padded with -1; see `matches_with_verified` for the paper's choice.
    match_weights
        (q, m) weights; those of padding are not looked at.
    descriptors
        (n, d) float16 or float32, possibly a `np.memmap`; augmented or not.

    Returns
    -------
    (q, d) float32, unit rows. A query without matches stays itself; one without descriptor stays zero.
    """
    return sum_with_neighbours(queries, match_ids, match_weights, descriptors)


def matches_with_verified(
    ranked_ids: NDArray[np.integer[Any]],
    ranked_weights: NDArray[np.floating[Any]],
    verified_ids: NDArray[np.integer[Any]],
    *,
    top: int = 5,
    verified_weight: float = 1.0,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Collect a query's matches as in the paper: the first `top` of the global search, and the verified.

    Parameters
    ----------
    ranked_ids, ranked_weights
        (q, k), the global search's order and the weights of its members; -1 for none.
    verified_ids
        (q, m), the photos that spatial verification has confirmed, padded with -1.
    top
        Members of the global search to take.
    verified_weight
        Weight of a verified photo. A photo that is both counts once, with the larger weight.

    Returns
    -------
    ids, weights : (q, top + m) int32, (q, top + m) float32
        Padded with -1 and 0.
    """
    if ranked_ids.shape != ranked_weights.shape or len(ranked_ids) != len(verified_ids):
        raise LmrError(
            "ranked and verified lists do not fit",
            got=f"ranked {ranked_ids.shape}, weights {ranked_weights.shape}, verified {verified_ids.shape}",
            fix="give one list per query",
        )
    ranked, found = ranked_ids[:, :top].astype(np.int32), verified_ids.astype(np.int32)
    weights = np.where(ranked >= 0, ranked_weights[:, :top], 0).astype(np.float32)
    again = (found[:, :, None] == ranked[:, None, :]) & (found >= 0)[:, :, None]
    weights = np.where(again.any(axis=1), np.maximum(weights, np.float32(verified_weight)), weights)
    earlier = np.tril(found[:, :, None] == found[:, None, :], -1).any(axis=2)
    found[again.any(axis=2) | earlier] = -1
    return np.hstack([ranked, found]), np.hstack(
        [weights, np.where(found >= 0, verified_weight, 0)], dtype=np.float32
    )


def order_with_verified(
    ranked_ids: NDArray[np.integer[Any]],
    verified_ids: NDArray[np.integer[Any]],
    inliers: NDArray[np.integer[Any]],
    k: int,
) -> NDArray[np.int32]:
    """Put the verified photos at the head of one query's list; the rest keeps the search's order.

    Parameters
    ----------
    ranked_ids
        (n,) the search's order; -1 is left out.
    verified_ids, inliers
        (m,) the verified photos and their inlier counts; the head is sorted by (-inliers, id).
    k
        Length of the list.

    Returns
    -------
    (at most k,) int32, without repeats.

    Examples
    --------
    >>> order_with_verified(np.array([4, 7, 1, 9]), np.array([9, 3]), np.array([50, 41]), 4).tolist()
    [9, 3, 4, 7]
    """
    if len(verified_ids) != len(inliers):
        raise LmrError(
            "verified photos and inlier counts do not fit",
            got=f"{len(verified_ids)} photos, {len(inliers)} counts",
            fix="give one inlier count per verified photo",
        )
    head = verified_ids[np.lexsort((verified_ids, -np.asarray(inliers, dtype=np.int64)))]
    both = np.concatenate([head, ranked_ids]).astype(np.int32)
    both = both[both >= 0]
    _, first = np.unique(both, return_index=True)
    return both[np.sort(first)][:k]
