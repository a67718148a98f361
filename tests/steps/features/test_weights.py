"""Weights on their way to workers."""

import hashlib
import threading

import pytest

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.steps.features import weights as module
from lmr.steps.features.weights import Weights

CONTENT = {
    "net.pth": b"tensors" * 1000,
    "delf/model/variables.index": b"names",
    "delf/pca/mean.datum": b"mean",
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path / "weights"))
    module._here.cache_clear()
    yield tmp_path / "weights"
    module._here.cache_clear()


@pytest.fixture
def published(tmp_path):
    for name, content in CONTENT.items():
        path = tmp_path / "published" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "published"


@pytest.fixture
def bucket(moto_s3):
    for name, content in CONTENT.items():
        storage.put(f"s3://photos/weights/{name}", content)
    return "s3://photos/weights"


def in_a_new_process():
    """Forget what this process has checked."""
    module._here.cache_clear()


def test_a_path_is_used_where_it_is(published, cache):
    weights = Weights.of(str(published / "net.pth"))
    assert weights.digest == hashlib.sha256(CONTENT["net.pth"]).hexdigest()
    assert weights.here() == published / "net.pth"
    assert Weights.of(str(published / "delf")).here() == published / "delf"
    assert not cache.exists()


def test_a_machine_with_other_weights_at_the_path_refuses_them(published):
    file, folder = Weights.of(str(published / "net.pth")), Weights.of(str(published / "delf"))
    (published / "net.pth").write_bytes(b"other")
    (published / "delf" / "pca" / "mean.datum").rename(published / "delf" / "pca" / "average.datum")
    for weights in (file, folder):
        with pytest.raises(LmrError, match="not those that the run was started with"):
            weights.here()
    (published / "net.pth").unlink()
    with pytest.raises(LmrError, match=r"no weights at .*net\.pth on this machine\nfix: .*s3://"):
        file.here()


def test_weights_at_a_url_have_the_digest_of_those_at_a_path(published, bucket):
    for name in ("net.pth", "delf"):
        assert Weights.of(f"{bucket}/{name}").digest == Weights.of(str(published / name)).digest


def test_weights_at_a_url_are_fetched_once_however_many_ask(bucket, cache, monkeypatch):
    file, folder = Weights.of(f"{bucket}/net.pth"), Weights.of(f"{bucket}/delf/")
    reads, paths = [], []
    read = storage.read

    def counted(url):
        if url.startswith("s3://"):
            reads.append(url)
        return read(url)

    monkeypatch.setattr(storage, "read", counted)
    start = threading.Barrier(6)

    def ask(weights):
        start.wait()
        paths.append(weights.here())

    # The lock is one of open files: it holds threads apart as it does processes.
    threads = [threading.Thread(target=ask, args=(w,)) for w in (file, folder) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reads) == sorted(f"{bucket}/{name}" for name in CONTENT)
    assert {path.name for path in paths} == {"net.pth", "delf"}
    assert all(path.is_relative_to(cache) for path in paths)
    for name, content in CONTENT.items():
        (found,) = cache.rglob(name)
        assert found.read_bytes() == content
    in_a_new_process()
    assert file.here() == next(path for path in paths if path.name == "net.pth")
    assert len(reads) == len(CONTENT)


def test_a_damaged_copy_is_fetched_again_and_another_file_at_the_url_is_refused(bucket, cache):
    weights = Weights.of(f"{bucket}/net.pth")
    path = weights.here()
    path.write_bytes(b"damaged")
    in_a_new_process()
    assert weights.here().read_bytes() == CONTENT["net.pth"]
    in_a_new_process()
    path.unlink()
    storage.put(f"{bucket}/net.pth", b"a newer one")
    with pytest.raises(LmrError, match="not those that the run was started with"):
        weights.here()
    assert {file.name for file in cache.rglob("*") if file.is_file()} == {".lock", "CACHEDIR.TAG"}


def test_what_is_not_there_or_cannot_be_kept_is_told(bucket, tmp_path, monkeypatch):
    with pytest.raises(StorageError, match=r"cannot read s3://photos/weights/none\.pth"):
        Weights.of(f"{bucket}/none.pth")
    with pytest.raises(StorageError, match=r"cannot read .*none\.pth"):
        Weights.of(str(tmp_path / "none.pth"))
    weights = Weights.of(f"{bucket}/net.pth")
    (tmp_path / "file").touch()
    monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(LmrError, match="set LMR_WEIGHTS to another folder"):
        weights.here()
