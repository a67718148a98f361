"""Weights of generalised max pooling: some photos at a time, as all at once, and in bounded memory."""

import numpy as np

from lmr.retrieval.descriptors import to_float
from lmr.retrieval.diffusion import online as numerics
from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.diffusion import online as steps
from lmr.steps.inputs import Inputs
from lmr.storage.arrow import Ragged
from tests.steps.test_fingerprints import photos
from workflows.retrieval import PRESETS, build


def test_weights_of_blocks_are_those_of_the_whole_gallery(monkeypatch):
    counts = np.array([3, 0, 5, 1, 4, 2, 6])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.random.default_rng(0).normal(size=(int(offsets[-1]), 8)).astype(np.float16)
    monkeypatch.setattr(steps, "POOLED_AT_ONCE", 3)
    blocks = list(steps.pooling_weights(Ragged(rows, offsets)))
    assert len(blocks) == 3
    whole = numerics.generalised_max_weights(to_float(rows), np.repeat(np.arange(7), counts))
    np.testing.assert_allclose(np.concatenate(blocks), whole, rtol=1e-12)


def test_what_a_task_holds_for_them_does_not_grow_with_the_gallery():
    def stated(gallery, pooling):
        inputs = Inputs(photos=Both(photos("gallery", gallery), photos("queries", 40)))
        flow = build(inputs, layer(PRESETS["vlad"], {"diffuse": {"pooling": pooling}}))
        return next(step for step in closure(flow.targets) if step.name == "diffuse").cost.task_bytes

    small, large = (stated(count, "gmp") - stated(count, "sum") for count in (10_000, 40_000))
    assert 0 < small == large
