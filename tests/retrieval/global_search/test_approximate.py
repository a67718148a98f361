"""Approximate neighbours: the recall said is the recall had, the similarities are exact."""

import numpy as np
import pytest

from lmr.errors import LmrError
from lmr.retrieval.global_search.approximate import (
    build_ann_index,
    choose_index,
    choose_probes,
    search_ann_index,
)
from lmr.retrieval.global_search.exact import top_k
from tests.support.descriptor_clusters import clusters

GALLERY = clusters(4000, 16, seed=20, size=40)
GALLERY[5] = 0


def test_size_and_memory_choose_the_index() -> None:
    gib = 2**30
    assert choose_index(2_000, 128, gib) == "IVF32,Flat"
    assert choose_index(1_000_000, 512, gib) == "IVF4096,Flat"
    assert choose_index(2_000, 128, 500_000) == "IVF32,PQ128x4fs"
    assert choose_index(2_000_000, 512, gib) == "IVF4096,PQ512x4fs"
    assert choose_index(10_000_000, 512, gib) == "IVF16384,PQ128x4fs"
    assert choose_index(10_000_000, 7, 1) == "IVF16384,PQ7x4fs"  # what cannot fit is as small as it can be


@pytest.mark.parametrize("name", ["IVF64,Flat", "IVF64_HNSW32,PQ16x4fs", "IVF64,PQ4x4fs"])
def test_recall_is_measured_and_similarities_are_exact(name: str) -> None:
    index = build_ann_index(GALLERY, name)
    _, recall = choose_probes(index, GALLERY, 10, recall=0.9, sample=200)
    sims, ids = search_ann_index(index, GALLERY[:600], 10, GALLERY, exclude_self_start=0)
    true_sims, true_ids = top_k(GALLERY[:600], [(0, GALLERY)], 10, exclude_self_start=0)
    had = np.mean([len(set(a) & set(b) - {-1}) for a, b in zip(ids, true_ids, strict=True) if b[0] >= 0]) / 10
    assert had == pytest.approx(recall, abs=0.05)
    assert recall >= 0.9 or "PQ4" in name  # codes of two bytes cannot tell these neighbours apart
    assert not (ids == np.arange(600)[:, None]).any()
    assert not (ids == 5).any()  # without descriptor: never found
    assert (ids[5] == -1).all()  # ... and finds nothing
    for row in range(600):
        exact = dict(zip(true_ids[row].tolist(), true_sims[row].tolist(), strict=True))
        assert all(exact.get(i, s) == s for i, s in zip(ids[row].tolist(), sims[row].tolist(), strict=True))
    assert (np.diff(sims[np.isfinite(sims).all(axis=1)]) <= 0).all()


def test_a_higher_target_looks_into_more_lists() -> None:
    index = build_ann_index(GALLERY, "IVF64,Flat")
    low, high = (choose_probes(index, GALLERY, 10, recall=target, sample=200) for target in (0.5, 1.0))
    assert low[0] < high[0]
    assert high[1] == 1.0


def test_a_target_out_of_reach_does_not_end_in_a_search_of_everything() -> None:
    index = build_ann_index(GALLERY, "IVF64,PQ1x4fs")
    probes, recall = choose_probes(index, GALLERY, 10, recall=1.0, sample=200)
    assert recall < 1.0
    assert probes < 64


def test_neighbours_that_mean_nothing_do_not_take_all_lists() -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    index = build_ann_index(noise, "IVF64,PQ64x4fs")
    probes, recall = choose_probes(index, noise, 10, recall=0.98, sample=200)
    assert probes == 16
    assert 0.2 < recall < 0.98  # measured, and said
    # Rows whose neighbours do mean something are asked where there are some.
    mixed = np.concatenate([noise[:3600], clusters(400, 64, seed=1, size=40, noise=0.05)])
    index = build_ann_index(mixed, "IVF64,PQ64x4fs")
    probes, recall = choose_probes(index, mixed, 10, recall=0.9, sample=400)
    assert probes <= 8
    assert recall >= 0.9


@pytest.mark.parametrize("memory_bytes", [1, 2**30])
@pytest.mark.parametrize("rows", [1, 2, 3, 12, 40])
def test_a_handful_of_photos_can_be_indexed_without_a_word_of_faiss(
    rows: int, memory_bytes: int, capfd
) -> None:
    few = clusters(rows, 64, seed=3, size=4)
    few[1:2] *= -1  # the least similar of all is found too
    index = build_ann_index(few, choose_index(rows, 64, memory_bytes))
    assert choose_probes(index, few, 100, recall=0.98)[1] == 1
    sims, ids = search_ann_index(index, few, 100, few)
    true_sims, true_ids = top_k(few, [(0, few)], 100)
    np.testing.assert_array_equal(ids, true_ids)
    np.testing.assert_array_equal(sims, true_sims)
    assert capfd.readouterr().err == ""


def test_a_recall_above_one_is_refused() -> None:
    with pytest.raises(LmrError, match="recall target"):
        choose_probes(None, GALLERY, 5, recall=95)
