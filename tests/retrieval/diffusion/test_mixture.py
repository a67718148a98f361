"""Fewer regions: what a mixture keeps, whatever else is fitted beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.retrieval.diffusion.mixture import reduce_regions


def regions(counts: list[int], d: int, seed: int, groups: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Regions in `groups` tight groups per photo."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in counts:
        centres = np.linalg.qr(rng.standard_normal((d, groups)))[0].T
        x = centres[np.arange(count) % groups] + 0.05 * rng.standard_normal((count, d))
        parts.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return np.concatenate([np.empty((0, d)), *parts]).astype(np.float32), offsets


def test_each_group_of_regions_gets_a_mean() -> None:
    x, offsets = regions([21, 21], 32, 0)
    means, starts = reduce_regions(x, offsets, 3)
    assert starts.tolist() == [0, 3, 6]
    for photo in range(2):
        own = x[offsets[photo] : offsets[photo + 1]]
        similar = own @ means[starts[photo] : starts[photo + 1]].T
        assert (similar.max(axis=1) > 0.95).all()
        assert len(set(similar.argmax(axis=1)[:3].tolist())) == 3
        for group in range(3):  # the mean of the group, not one of its members
            wanted = own[group::3].mean(axis=0)
            wanted /= np.linalg.norm(wanted)
            assert (means[starts[photo] : starts[photo + 1]] @ wanted).max() > 0.9999


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.integers(1, 6), st.integers(0, 100))
def test_photos_do_not_depend_on_one_another(counts: list[int], components: int, seed: int) -> None:
    x, offsets = regions(counts, 8, seed)
    means, starts = reduce_regions(x, offsets, components)
    assert np.diff(starts).tolist() == [min(count, components) for count in counts]
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1, atol=1e-5)
    for photo, count in enumerate(counts):
        own = x[offsets[photo] : offsets[photo + 1]]
        alone, _ = reduce_regions(own, np.array([0, count]), components)
        np.testing.assert_allclose(alone, means[starts[photo] : starts[photo + 1]], atol=1e-5)
        if count <= components:
            np.testing.assert_array_equal(alone, own)


def test_equal_regions_are_no_trouble() -> None:
    x = np.tile(np.float32([[0, 1, 0]]), (6, 1))
    means, _ = reduce_regions(x, np.array([0, 6]), 4)
    np.testing.assert_allclose(means, x[:4], atol=1e-6)


def test_no_component_is_refused() -> None:
    with pytest.raises(LmrError, match="mixture needs components"):
        reduce_regions(np.ones((1, 2), np.float32), np.array([0, 1]), 0)
