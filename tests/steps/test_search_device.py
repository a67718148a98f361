"""Exact searches on a GPU: steps prefer a worker that has one, and make the same shards without."""

from dataclasses import replace

import numpy as np
import pytest
from distributed import Client, LocalCluster

from lmr.errors import SettingsError
from lmr.runtime.graph import make_plan, unmet_notes
from lmr.runtime.placement import may_use_gpu
from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.scheduler.run import run
from lmr.steps.global_search import device
from lmr.steps.global_search.search import indexed_notes
from tests.support.synthetic_inputs import inputs_of
from tests.support.vectors import VectorSettings, described, steps
from workflows.retrieval import PRESETS, build

SEARCHES = {"neighbours", "rank", "expand", "link_regions", "diffuse"}


def declared(search_device, **more):
    inputs = replace(inputs_of(30, 8), search_device=search_device)
    return {step.name: step for step in closure(build(inputs, layer(PRESETS["vlad"], more)).targets)}


def test_every_exact_search_prefers_a_gpu_and_nothing_else_changes():
    plain, on_gpu = declared("cpu"), declared("cuda")
    assert {name for name, step in on_gpu.items() if step.prefers} == SEARCHES
    assert not any(step.prefers for step in plain.values())
    assert [step.fingerprint for step in on_gpu.values()] == [step.fingerprint for step in plain.values()]


def test_a_local_search_without_an_index_prefers_a_gpu_too():
    exactly = {"search": {"exact_below": 10**9}}
    plain, on_gpu = declared("cpu", **exactly), declared("cuda", **exactly)
    assert {name for name, step in on_gpu.items() if step.prefers} == SEARCHES | {"search"}
    assert on_gpu["search"].fingerprint == plain["search"].fingerprint
    assert plain["search"].fingerprint != declared("cpu")["search"].fingerprint
    assert on_gpu["search"].cost.mapped_bytes > declared("cuda")["search"].cost.mapped_bytes
    # As large as photos times features: then the index is asked.
    bound = {"search": {"exact_below": 30 * 1000}}
    assert not declared("cuda", **bound)["search"].prefers


def test_what_is_searched_through_an_index_stays_with_cpus_and_is_named():
    small = {group: {"exact_below": 10} for group in ("neighbours", "rank")}
    found = declared("cuda", **small)
    assert {name for name, step in found.items() if step.prefers} == {"link_regions"}
    (note,) = indexed_notes(found.values())
    assert "index_global, index_augmented" in note
    assert indexed_notes(declared("cuda").values()) == []


@pytest.mark.parametrize(
    ("workers", "expected"),
    [({"CPU", "GPU"}, {"GPU": 1}), ({"GPU"}, {"GPU": 1}), ({"CPU"}, {"CPU": 1}), (set(), {})],
)
def test_a_gpu_is_asked_for_where_a_worker_declares_one(workers, expected):
    assert declared("cuda")["neighbours"].asked(workers) == expected


def test_a_run_without_a_gpu_worker_tells_what_becomes_of_one_that_joins(tmp_path):
    def notes(search_device, workers):
        plan = make_plan(declared(search_device).values(), str(tmp_path))
        return unmet_notes(plan, workers)

    (note,) = notes("cuda", frozenset({"CPU"}))
    assert note.startswith("no worker has a GPU, so others make neighbours, ")
    assert "cancel the run and submit it again" in note
    assert notes("cuda", frozenset({"CPU", "GPU"})) == notes("cpu", frozenset({"CPU"})) == ()
    # No worker is there yet: each search asks what it needs, and whoever comes may make it.
    assert notes("cuda", None) == ()


def test_no_other_device_searches():
    from lmr.api.choices import Choices
    from lmr.api.prepare import prepare

    with pytest.raises(SettingsError, match="there is no such device"):
        prepare("retrieval", Choices(out="/nowhere", gallery="a", queries="b", search_device="cuda:1"))


def shards_of(root, searched_on):
    gallery, queries = (
        replace(described(VectorSettings(photos=n, per_shard=30, seed=1), name), searched_on=searched_on)
        for name, n in (("gallery", 60), ("queries", 12))
    )
    made = closure([steps(gallery, queries)["final"]])
    report = run(made, str(root))
    rows = {step.name: [step.dataset(str(root)).read(i) for i in range(step.shards)] for step in made}
    return rows, {one.step: one.notes for one in report.summaries}


@pytest.fixture
def gpu_of_torch(monkeypatch):
    """torch's engine, on the CPU; it counts what it is asked."""
    _gpu_torch = pytest.importorskip("lmr.retrieval.global_search._gpu_torch", reason="no torch")
    loads = []

    class Engine(_gpu_torch.TorchEngine):
        def load(self, rows):
            loads.append(rows.shape)
            return super().load(rows)

    monkeypatch.setattr(device, "gpu_engine", lambda: (Engine("cpu"), "here"))
    return loads


def same(ours, theirs):
    for name, shards in theirs.items():
        for a, b in zip(ours[name], shards, strict=True):
            assert a.num_rows
            assert a.equals(b, check_metadata=False), name


def test_shards_are_the_same_wherever_searches_run(tmp_path, monkeypatch, gpu_of_torch):
    plain, notes = shards_of(tmp_path / "cpu", "cpu")
    assert not any(notes.values())
    there, notes = shards_of(tmp_path / "gpu", "cuda")
    # Photos, regions and augmented photos; what is searched by several steps stays on the device.
    assert sorted(gpu_of_torch) == [(58, 16), (58, 16), (174, 16)]
    assert not any(notes.values())
    same(there, plain)
    monkeypatch.setattr(device, "gpu_engine", lambda: (None, "torch sees none"))
    without, notes = shards_of(tmp_path / "none", "cuda")
    same(without, plain)
    told = "searched on CPUs, with the same result, since no GPU could be used: torch sees none"
    assert {name for name, some in notes.items() if some == (told,)} == SEARCHES


def test_a_gpu_without_room_leaves_the_search_to_the_cpu(monkeypatch):
    class Full:
        name, gallery_bytes = "full", 1 << 30

        def load(self, rows):
            raise MemoryError("3 GiB are asked for, 1 GiB is free")

    rows = np.eye(9, 4, dtype=np.float32)
    monkeypatch.setattr(device, "gpu_engine", lambda: (Full(), "full"))
    search = device.ExactSearch("cuda")
    for a, b in zip(search(rows, rows, 3), device.ExactSearch()(rows, rows, 3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert search.note.endswith("3 GiB are asked for, 1 GiB is free")


@pytest.mark.cluster
def test_only_a_worker_that_declares_a_gpu_uses_one():
    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": ":0"}
    answers = []
    for resources in ({"CPU": 1}, {"CPU": 1, "GPU": 1}):
        with LocalCluster(**options, resources=resources) as cluster, Client(cluster) as client:
            answers.append(client.submit(may_use_gpu).result())
    assert answers == [False, True]
    assert may_use_gpu()  # in this process


def test_faiss_for_gpus_counts_as_faiss_when_machines_are_compared(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from lmr import versions

    plain = versions.installed()
    real = versions.version

    def exchanged(name):
        if name == "faiss-cpu":
            raise PackageNotFoundError(name)
        return real("faiss-cpu" if name == "faiss-gpu" else name)

    monkeypatch.setattr(versions, "version", exchanged)
    assert versions.installed() == plain
    assert plain["faiss-cpu"]
