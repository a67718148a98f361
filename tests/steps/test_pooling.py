"""Generalised max pooling of a gallery: the weights of all its regions, in bounded memory."""

import tracemalloc

import numpy as np
import pytest

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.diffusion.online import generalised_max_weights
from lmr.steps.diffusion import online
from lmr.steps.diffusion.online import pooling_weights
from lmr.storage.arrow import Ragged


def gallery(photos, dimension=64, seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 8, photos))]).astype(np.int64)
    values = rng.normal(size=(offsets[-1], dimension))
    return Ragged((values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16), offsets)


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_in_blocks_as_in_one(at_once, monkeypatch):
    monkeypatch.setattr(online, "POOLED_AT_ONCE", at_once)
    regions = gallery(50)
    owners = np.repeat(np.arange(50), np.diff(regions.offsets))
    whole = generalised_max_weights(to_float(regions.values), owners)
    np.testing.assert_allclose(np.concatenate(list(pooling_weights(regions))), whole, rtol=1e-5)


def test_a_larger_gallery_takes_no_more_memory():
    def peak(regions):
        tracemalloc.start()
        for _ in pooling_weights(regions):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(gallery(6000)) < 1.5 * peak(gallery(1000))
