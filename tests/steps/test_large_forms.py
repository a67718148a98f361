"""What steps do differently where a gallery is large, made to happen on small ones: the answers stay."""

import numpy as np
import pytest

from lmr.cluster.client import Where
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.global_search.approximate import build_ann_index, look_into, search_ann_indexes
from lmr.retrieval.global_search.exact import top_k
from lmr.retrieval.local_search.codebook import train_centroids
from lmr.retrieval.local_search.inverted_file import open_index, train_quantiser
from lmr.runtime.settings import layer
from lmr.scheduler.run import run
from lmr.steps.local_search.index import descriptors_of, sample_descriptors
from lmr.storage.arrow import column
from tests.steps.test_global_steps import declare
from tests.support.descriptor_clusters import clusters
from tests.support.synthetic_inputs import inputs_of, write_inputs
from tests.support.toys import Quiet
from workflows.retrieval import PRESETS, build

GIVEN = ("ingest", "ingest_queries", "extract_local", "extract_local_queries")
STORED = (512 * np.abs(clusters(9000, 32, seed=3))).astype(np.uint8)


def mean_distance(sample, centroids):
    rows = to_float(sample)
    nearest = (rows @ centroids.T * 2 - (centroids**2).sum(axis=1)).max(axis=1)
    return float(np.mean(1 - nearest))


def test_a_sample_that_is_not_held_whole_trains_as_good_centroids(monkeypatch):
    whole = train_centroids(to_float(STORED), 300, seed=1)
    np.testing.assert_array_equal(
        train_centroids(STORED, 300, seed=1), whole
    )  # stored rows are the same rows
    monkeypatch.setattr("lmr.retrieval.local_search.codebook.SAMPLE_HELD", 2000)
    streamed = train_centroids(STORED, 300, seed=1)
    assert streamed.shape == whole.shape
    assert not np.array_equal(streamed, whole)
    assert mean_distance(STORED, streamed) < 1.03 * mean_distance(STORED, whole)
    for code_bytes in (None, 8):
        index = open_index(train_quantiser(STORED, lists=300, code_bytes=code_bytes, seed=1))
        assert (index.nlist, index.d, index.is_trained) == (300, 32, True)


def test_an_index_in_parts_finds_what_one_would():
    gallery = clusters(4000, 16, seed=20, size=40)
    gallery[5] = 0
    spans = [(0, 1300), (1300, 2700), (2700, 4000)]

    def opened():
        for first, end in spans:
            index = build_ann_index(gallery[first:end], "IVF16,Flat")
            look_into(index, 16)
            yield first, index

    sims, ids = search_ann_indexes(opened(), gallery[1000:1600], 10, gallery, exclude_self_start=1000)
    # Every list is looked into, and nothing is coded: the search is exact.
    true = top_k(gallery[1000:1600], [(0, gallery)], 10, exclude_self_start=1000)
    np.testing.assert_array_equal(ids, true[1])
    np.testing.assert_array_equal(sims, true[0])


def test_steps_cut_a_large_index_into_shards_and_search_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    flows = {"exact": declare(gallery_shard=50), "whole": declare(gallery_shard=50, exact_below=100)}
    monkeypatch.setattr("lmr.steps.global_search.search.PART_BYTES", 1000)
    flows["parts"] = declare(gallery_shard=50, exact_below=100)
    found = {}
    for name, flow in flows.items():
        root = str(tmp_path / name)
        step = flow["neighbours"]
        run([step], root, Where(), Quiet())
        data = step.dataset(root)
        found[name] = np.concatenate([column(data.read(i), "ids") for i in range(step.shards)])
    index = flows["parts"]["neighbours"].inputs["index"].step
    assert index.shards > 1
    whole = flows["whole"]["neighbours"].inputs["index"].step
    assert (whole.shards, index.fingerprint != whole.fingerprint) == (1, True)
    hits = [len(set(a) & set(b)) / len(b) for a, b in zip(found["parts"], found["exact"], strict=True)]
    assert np.mean(hits) >= 0.9


@pytest.mark.parametrize("method", ["votes", "asmk"])
def test_queries_in_blocks_find_what_all_at_once_find(tmp_path, monkeypatch, method):
    monkeypatch.setenv("LMR_CACHE", str(tmp_path / "cache"))
    changes = {
        "local": {"max_features": 60},
        "ingest": {"photos_per_shard": 12},
        "search": {"method": method, "candidates": 5},
    }

    def made(root):
        flow = build(inputs_of(24, 12), layer(PRESETS["vlad"], changes))
        step = flow.rankings["search"].step
        write_inputs(flow, [step], GIVEN, root)
        run([step], root, Where(), Quiet())
        return flow, step.dataset(root).read(0)

    flow, whole = made(str(tmp_path / "whole"))
    local = flow.local.gallery.source.dataset(str(tmp_path / "whole"))
    for module in ("index", "votes", "asmk"):
        monkeypatch.setattr(f"lmr.steps.local_search.{module}.FEATURES_AT_ONCE", 130)
    assert [len(set(photos)) for _, photos in descriptors_of(local, 0, 1)] == [2] * 6
    _, blocks = made(str(tmp_path / "blocks"))
    assert blocks.equals(whole)
    sample = sample_descriptors(local, 500, 24 * 60, 0)
    assert sample.dtype == np.uint8
    assert 500 <= len(sample) <= 502
