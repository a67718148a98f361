"""Refinement beside a plain transcription of the papers, and where it puts landmarks of many photos."""

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.retrieval.refinement import k_reciprocal_scores, max_pooled_scores, similarity_embeddings


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def photos(right=12, wrong=20, dimension=16, seed=0):
    """A query, photos of its landmark that lie on a chain away from it, and others nearer than its end."""
    rng = np.random.default_rng(seed)
    first, last = unit(rng.normal(size=(2, dimension)))
    chain = unit(first + np.linspace(0, 1.6, right + 1)[:, None] * last)
    others = unit(0.6 * first + unit(rng.normal(size=(wrong, dimension))))
    return unit(np.concatenate([chain, others]) + 0.02 * rng.normal(size=(right + wrong + 1, dimension)))


def published(similarities, k1, k2, weight):
    """The steps of k-reciprocal encoding, photo by photo."""
    distance = np.maximum(2 - 2 * similarities, 0)
    scaled = distance / distance.max(axis=0)
    order = np.argsort(scaled, axis=1, kind="stable")

    def mutual(photo, k):
        return [other for other in order[photo, : k + 1] if photo in order[other, : k + 1]]

    encoded = np.zeros_like(scaled)
    for photo in range(len(scaled)):
        near = set(mutual(photo, k1))
        expanded = set(near)
        for other in near:
            more = set(mutual(other, round(k1 / 2)))
            if len(more & near) > 2 / 3 * len(more):
                expanded |= more
        rows = sorted(expanded)
        encoded[photo, rows] = np.exp(-scaled[photo, rows])
        encoded[photo] /= encoded[photo].sum()
    encoded = np.stack([encoded[order[photo, :k2]].mean(axis=0) for photo in range(len(scaled))])
    shared = np.minimum(encoded[0], encoded).sum(axis=1)
    total = (1 - weight) * (1 - shared / (2 - shared)) + weight * scaled[0]
    return -total[1:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (8, 3, 0.0), (5, 1, 0.7), (100, 200, 0.3)])
def test_k_reciprocal_equals_the_published_steps(k1, k2, weight):
    rows = photos()
    similarities = rows @ rows.T
    found = k_reciprocal_scores(similarities, k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(found, published(similarities, k1, k2, weight), atol=1e-12)


def test_photos_that_have_each_other_do_not_stand_before_those_that_have_the_query():
    rng, axes = np.random.default_rng(2), np.eye(16)
    query = unit(axes[0] + 0.5 * axes[1])
    right = unit(axes[0] + 0.02 * rng.normal(size=(8, 16)))
    strangers = unit(query + 0.4 * axes[2:6])
    theirs = unit(query + 0.8 * axes[2:6, None] + 0.02 * rng.normal(size=(4, 15, 16))).reshape(-1, 16)
    rows = np.concatenate([query[None], right, strangers, theirs])
    plain = rows[1:] @ rows[0]
    assert plain[8:12].min() > plain[:8].max()  # the strangers are nearer
    refined = k_reciprocal_scores(rows @ rows.T, k1=12, k2=1)
    assert refined[:8].min() > refined[8:].max()


def test_max_pooled_scores_equal_the_published_steps():
    rows = photos(seed=3)
    query, gallery = rows[0], rows[1:]
    refined = []
    for photo in gallery:
        near = np.argsort(-(gallery @ photo), kind="stable")[:10]
        weights = 0.15 * (gallery[near] @ photo)
        weights[0] = 1
        refined.append((weights[:, None] * gallery[near]).sum(axis=0) / weights.sum())
    first = np.array(refined) @ query
    best = np.array(refined)[np.argsort(-first)[:10]].max(axis=0)
    np.testing.assert_allclose(max_pooled_scores(query, gallery), (first + np.array(refined) @ best) / 2)


def test_embeddings_keep_the_distances_of_similarities_that_points_can_have():
    points = unit(np.random.default_rng(1).normal(size=(9, 5)))
    found = similarity_embeddings(points @ points.T)
    assert found.shape == (9, 5)
    apart = ((found[:, None] - found) ** 2).sum(axis=2)
    np.testing.assert_allclose(apart, 2 - 2 * points @ points.T, atol=1e-9)
    assert similarity_embeddings(points @ points.T, 2).shape == (9, 2)
    # Similarities that no points have still give some, and one photo stands alone.
    strange = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], float)
    assert np.isfinite(similarity_embeddings(strange)).all()
    assert similarity_embeddings(np.ones((1, 1))).shape == (1, 0)


def test_a_query_alone_and_wrong_shapes():
    assert k_reciprocal_scores(np.ones((1, 1))).shape == (0,)
    assert max_pooled_scores(np.ones(4), np.empty((0, 4))).shape == (0,)
    with pytest.raises(LmrError, match="do not fit"):
        max_pooled_scores(np.ones(4), np.ones((2, 3)))
    for wrong in (np.ones((2, 3)), np.empty((0, 0)), np.full((2, 2), np.nan)):
        with pytest.raises(LmrError, match="with each other"):
            similarity_embeddings(wrong)
        with pytest.raises(LmrError, match="with each other"):
            k_reciprocal_scores(wrong)
