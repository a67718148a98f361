"""The search of GPUs: what torch and faiss name, on a CPU here, gives the CPU's neighbours to the bit."""

import os

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.retrieval.global_search import _gpu_faiss
from lmr.retrieval.global_search import nearest as module
from lmr.retrieval.global_search.exact import top_k
from lmr.retrieval.global_search.nearest import gpu_engine, nearest
from tests.support.descriptor_clusters import clusters

torch = pytest.importorskip("torch")
from lmr.retrieval.global_search import _gpu_torch  # noqa: E402


def torch_engine(**limits):
    return _gpu_torch.TorchEngine("cpu", **limits)


@pytest.fixture
def faiss_engine(monkeypatch):
    """faiss's build for CPUs has the same index; only its home differs."""
    monkeypatch.setattr(_gpu_faiss._faiss, "StandardGpuResources", lambda: None, raising=False)
    of_cpus = lambda resources, dimension: faiss.IndexFlatIP(dimension)  # noqa: E731
    monkeypatch.setattr(_gpu_faiss._faiss, "GpuIndexFlatIP", of_cpus, raising=False)
    return _gpu_faiss.FaissEngine(gallery_bytes=900 * 24 * 4)


@pytest.fixture
def never_on_the_cpu(monkeypatch):
    """What is found is found by the engine: nobody asks the CPU."""

    def refuse(*args, **more):
        raise AssertionError("the CPU was asked")

    monkeypatch.setattr(module, "top_k", refuse)


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("limits", [{}, {"gallery_bytes": 700 * 24 * 4, "products": 3000}])
def test_torch_finds_what_the_cpu_finds_in_blocks_of_any_size(never_on_the_cpu, dtype, limits):
    gallery, queries = clusters(5000, 24, seed=1).astype(dtype), clusters(300, 24, seed=2)
    gallery[::7] = 0
    same(nearest(queries, gallery, 20, engine=torch_engine(**limits)), top_k(queries, [(0, gallery)], 20))


def test_faiss_finds_what_the_cpu_finds(never_on_the_cpu, faiss_engine):
    gallery, queries = clusters(5000, 24, seed=1).astype(np.float16), clusters(300, 24, seed=2)
    same(nearest(queries, gallery, 20, engine=faiss_engine), top_k(queries, [(0, gallery)], 20))


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_ties_and_copies_of_a_photo_are_ordered_as_the_cpu_orders_them(data):
    seed = data.draw(st.integers(0, 1000))
    gallery = clusters(120, 7, seed)
    gallery[30:] = gallery[data.draw(st.integers(0, 29))]  # more copies than candidates are named
    gallery = gallery[np.random.default_rng(seed).permutation(120)]
    first, k = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 130))
    queries = gallery[first:][:50].copy()
    queries[3] = 0
    engine = torch_engine(gallery_bytes=data.draw(st.integers(28, 28 * 130)))
    for start in (None, first):
        ours = nearest(queries, gallery, k, engine=engine, exclude_self_start=start)
        same(ours, top_k(queries, [(0, gallery)], k, exclude_self_start=start))


def test_products_that_are_not_whole_float32_are_not_believed():
    """As of a GPU that rounds to TF32: 10 bits of each number."""
    gallery, queries = clusters(3000, 24, seed=3), clusters(40, 24, seed=4)
    exact = torch_engine()

    class Rounding:
        name, gallery_bytes = "rounding", exact.gallery_bytes

        def load(self, rows):
            return exact.load(((rows.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32))

    same(nearest(queries, gallery, 5, engine=Rounding()), top_k(queries, [(0, gallery)], 5))


@pytest.mark.parametrize(("which", "value"), [("queries", np.nan), ("gallery", np.inf), ("gallery", np.nan)])
def test_what_is_not_finite_is_told_as_by_the_cpu(which, value):
    arrays = {"queries": clusters(5, 8, seed=5), "gallery": clusters(60, 8, seed=6)}
    arrays[which][3, 2] = value
    with pytest.raises(LmrError, match="not finite"):
        nearest(arrays["queries"], arrays["gallery"], 4, engine=torch_engine())


def test_descriptors_of_two_kinds_and_no_neighbours_are_told():
    with pytest.raises(LmrError, match="does not fit"):
        nearest(clusters(5, 8, seed=5), clusters(9, 7, seed=6), 4, engine=torch_engine())
    with pytest.raises(LmrError, match="positive"):
        nearest(clusters(5, 8, seed=5), clusters(9, 8, seed=6), 0, engine=torch_engine())


def test_nothing_to_search_finds_nothing():
    empty, some = np.empty((0, 8), np.float32), clusters(4, 8, seed=7)
    for queries, gallery in ((some, empty), (empty, some), (some, np.zeros_like(some))):
        same(nearest(queries, gallery, 3, engine=torch_engine()), top_k(queries, [(0, gallery)], 3))


def test_a_mapped_gallery_stays_on_the_device_until_its_file_is_another(tmp_path):
    queries = clusters(6, 8, seed=8)
    loads = []

    class Counting(_gpu_torch.TorchEngine):
        def load(self, rows):
            loads.append(len(rows))
            return super().load(rows)

    engine = Counting("cpu")

    def search(seed):
        written = tmp_path / "new"
        clusters(50, 8, seed=seed).tofile(written)
        os.replace(written, tmp_path / "values")
        for _ in range(2):
            gallery = np.memmap(tmp_path / "values", np.float32, mode="r", shape=(50, 8))
            same(nearest(queries, gallery, 3, engine=engine), top_k(queries, [(0, gallery)], 3))

    search(9)
    assert loads == [50]
    search(10)
    assert loads == [50, 50]
    # Of a part of the file, and of an array in memory, nothing is kept.
    gallery = np.memmap(tmp_path / "values", np.float32, mode="r", shape=(50, 8))
    for part in (gallery[10:], np.array(gallery)):
        same(nearest(queries, part, 3, engine=engine), top_k(queries, [(0, part)], 3))
    assert loads == [50, 50, 40, 50]


@pytest.mark.parametrize("count", [1, 5, 30])
def test_the_largest_by_groups_are_the_largest(count):
    products = torch.from_numpy(
        np.random.default_rng(0).integers(0, 500, (7, 32 * 200 + 5)).astype(np.float32)
    )
    best, columns = _gpu_torch.largest(products, count)
    np.testing.assert_array_equal(best, products.topk(count).values)
    np.testing.assert_array_equal(products.gather(1, columns), best)
    assert all(len(set(row.tolist())) == count for row in columns)


def test_where_there_is_no_gpu_the_reason_is_told():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu_engine() == (None, f"torch {torch.__version__} sees none")
