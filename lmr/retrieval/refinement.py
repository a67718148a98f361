"""Refinement: one query's candidates are compared with each other, and ranked anew.

Three ways of the field, each from similarities or descriptors of the query and its candidates alone. The step
`lmr.steps.refinement` runs one of them where it is asked for. What each gains and costs on the development
photos is in docs/results/quality.md.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = [
    "embedded_scores",
    "inlier_similarities",
    "k_reciprocal_scores",
    "max_pooled_scores",
    "similarity_embeddings",
    "with_refined",
]

Floats = NDArray[np.floating[Any]]

HALF_INLIERS = 10.0  # of which the similarity is a half: RootSIFT's threshold of a confident match
EMBEDDED = 64  # dimensions of an embedding, at most


def k_reciprocal_scores(
    similarities: Floats, *, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> NDArray[np.float64]:
    """Score candidates by the neighbours that they share with the query.

    Zhong, Zheng, Cao and Li, *Re-ranking person re-identification with k-reciprocal encoding* (CVPR 2017),
    on the query and its candidates in place of the whole gallery.

    Parameters
    ----------
    similarities
        (n + 1, n + 1) cosines of the query, first, and its n candidates.
    k1
        Neighbours of which those are kept that are mutual.
    k2
        Nearest photos whose encodings are averaged; 1 averages none.
    weight
        Of the distance by similarity against that by shared neighbours (Jaccard's), 0 to 1.

    Returns
    -------
    (n,) float64, less the distance: the best has most.
    """
    s = _square(similarities)
    distance = np.maximum(2 - 2 * s, 0)
    scaled = distance / np.maximum(distance.max(axis=0), 1e-12)
    order = np.argsort(scaled, axis=1, kind="stable")
    mutual = _mutual(order, k1 + 1)
    narrow = _mutual(order, round(k1 / 2) + 1)
    # A mutual neighbour brings its own where two thirds of these are the photo's already.
    shared = mutual.astype(np.int64) @ narrow.T.astype(np.int64)  # of [photo, neighbour]
    brings = mutual & (3 * shared > 2 * narrow.sum(axis=1))
    expanded = mutual | (brings.astype(np.int64) @ narrow.astype(np.int64) > 0)
    encoded = np.where(expanded, np.exp(-scaled), 0)
    encoded /= encoded.sum(axis=1, keepdims=True)
    if k2 > 1:
        encoded = encoded[order[:, :k2]].mean(axis=1)
    least = np.minimum(encoded[0], encoded[1:]).sum(axis=1)
    jaccard = 1 - least / (2 - least)
    return np.asarray(-((1 - weight) * jaccard + weight * scaled[0, 1:]), np.float64)


def max_pooled_scores(
    query: Floats, candidates: Floats, *, neighbours: int = 9, beta: float = 0.15
) -> NDArray[np.float64]:
    """Score candidates by descriptors that are refined with each other, and by the maximum of the best.

    Shao, Chen, Karpur, Cui, Araujo and Cao, *Global features are all you need for image retrieval and
    reranking* (ICCV 2023): SuperGlobal's re-ranking, as its published code has it.

    Parameters
    ----------
    query
        (d,) unit.
    candidates
        (n, d) unit rows.
    neighbours
        Candidates that each is averaged with, and of the best that the maximum is taken over.
    beta
        Their weight, times their similarity; a descriptor itself has 1.

    Returns
    -------
    (n,) float64.
    """
    q, g = np.asarray(query, np.float64), np.asarray(candidates, np.float64)
    if g.ndim != 2 or q.shape != g.shape[1:]:
        raise LmrError(
            "query and candidates do not fit",
            got=f"a query of shape {q.shape}, candidates of shape {g.shape}",
            fix="give (d,) and (n, d)",
        )
    if len(g) == 0:
        return np.empty(0)
    similarities = g @ g.T
    np.fill_diagonal(similarities, np.inf)  # itself first, even beside a copy
    near = np.argsort(-similarities, axis=1, kind="stable")[:, : neighbours + 1]
    weights = beta * np.take_along_axis(similarities, near, axis=1)
    weights[:, 0] = 1
    refined = np.einsum("nk,nkd->nd", weights, g[near]) / weights.sum(axis=1, keepdims=True)
    first = refined @ q
    best = np.argsort(-first, kind="stable")[: neighbours + 1]
    return np.asarray((first + refined @ refined[best].max(axis=0)) / 2, np.float64)


def similarity_embeddings(similarities: Floats, dimension: int = 32) -> NDArray[np.float64]:
    """Embed photos so that their distances are those that similarities of another kind speak of.

    Classical multidimensional scaling (Torgerson 1952). Aiger, Cao, Chen and Araujo, *Global-to-local or
    local-to-global? Enhancing image retrieval with efficient local search and effective global re-ranking*
    (2025, arXiv 2509.04351), so embed a query's candidates by similarities of their local features.

    Parameters
    ----------
    similarities
        (n, n) from 0 for nothing in common to 1 for a photo and itself; the mean of both directions counts.
    dimension
        Most dimensions; those that similarities do not fill are left out.

    Returns
    -------
    (n, at most `dimension`) float64. A squared distance is near 2 - 2 * similarity.

    Examples
    --------
    >>> two = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    >>> points = similarity_embeddings(two)
    >>> np.round(((points[0] - points[1:]) ** 2).sum(axis=1), 6).tolist()
    [0.2, 2.0]
    """
    s = _square(similarities)
    s = (s + s.T) / 2
    np.fill_diagonal(s, 1)
    centred = s - s.mean(axis=0) - s.mean(axis=1)[:, None] + s.mean()
    values, vectors = np.linalg.eigh(centred)
    kept = np.flatnonzero(values > 1e-9 * max(float(values[-1]), 1e-30))[::-1][:dimension]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]), np.float64)


def inlier_similarities(inliers: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return similarities, from 0 to 1, of pairs with so many inliers each: n / (n + 10).

    Examples
    --------
    >>> inlier_similarities(np.array([0, 10, 90])).tolist()
    [0.0, 0.5, 0.9]
    """
    n = np.asarray(inliers, np.float64)
    return np.asarray(n / (n + HALF_INLIERS))


def embedded_scores(similarities: Floats, dimension: int = EMBEDDED) -> NDArray[np.float64]:
    """Score candidates by embeddings of their similarities with each other and with the query.

    The embeddings (`similarity_embeddings`) are refined with each other as `max_pooled_scores` does.

    Parameters
    ----------
    similarities
        (n + 1, n + 1) from 0 to 1, of the query, first, and its n candidates; such as
        `inlier_similarities` of verified pairs, 0 where a pair was not verified.
    dimension
        Most dimensions of an embedding.

    Returns
    -------
    (n,) float64.
    """
    points = similarity_embeddings(similarities, dimension)
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    return max_pooled_scores(unit[0], unit[1:])


def with_refined(scores: Floats, refined: Floats, weight: float) -> NDArray[np.float64]:
    """Add refined scores to a list's own scores.

    Parameters
    ----------
    scores
        (n,) of the list.
    refined
        (n,) of the same photos, in any unit: they are brought to mean 0 and standard deviation 1.
    weight
        Of one standard deviation.

    Returns
    -------
    (n,) float64; `scores` where all refined ones are equal.
    """
    more = np.asarray(refined, np.float64)
    spread = float(more.std()) if len(more) else 0.0
    if spread <= 1e-9 * max(1.0, float(np.abs(more).max(initial=0))):
        return np.array(scores, np.float64)
    return np.asarray(scores + weight * (more - more.mean()) / spread, np.float64)


def _square(similarities: Floats) -> NDArray[np.float64]:
    s = np.array(similarities, np.float64)
    if s.ndim != 2 or s.shape[0] != s.shape[1] or not len(s) or not np.isfinite(s).all():
        raise LmrError(
            "similarities are not those of photos with each other",
            got=f"an array of shape {s.shape}",
            fix="give (n, n) finite numbers, n above 0",
        )
    return s


def _mutual(order: NDArray[np.intp], k: int) -> NDArray[np.bool_]:
    """Mark the pairs that are among each other's k nearest."""
    near = np.zeros(order.shape, np.bool_)
    np.put_along_axis(near, order[:, :k], True, axis=1)
    return np.asarray(near & near.T)
