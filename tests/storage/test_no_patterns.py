"""No name is a pattern, a chain of storages or an option: each storage call means the one object it names."""

import ast
from pathlib import Path

import pytest

from lmr import storage
from lmr.errors import StorageError
from lmr.steps.features.weights import Weights
from lmr.storage.datasets import Dataset
from lmr.storage.urls import absolute, is_local, local_path

NAMES = (
    "[a]*?.bin",
    "a.bin",
    "*",
    "?",
    "{a,b}.bin",
    "x::y.bin",
    "zip::z.bin",
    "file:q.bin",
    "#f %41.bin",
    "~t",
)


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "[ab]*?::c #%20")
    return f"{request.getfixturevalue('moto_s3')}/[ab]*?::c #%20"


def test_objects_are_written_listed_read_and_deleted_one_by_one(root):
    for name in NAMES:
        storage.put(f"{root}/d/{name}", name.encode())
        storage.put(f"{root}/d/{name}d/inner", b"inner")
    assert storage.folder_sizes(f"{root}/d") == {name: len(name) for name in NAMES}
    assert sorted(storage.find(f"{root}/d")) == sorted([*NAMES, *(f"{name}d/inner" for name in NAMES)])
    urls = [f"{root}/d/{name}" for name in NAMES]
    assert storage.read_outside(urls, most_bytes=99) == [name.encode() for name in NAMES]
    gone, there = storage.read_outside([f"{root}/d/[a]?.bin", f"{root}/d/a.bin"], most_bytes=99)
    assert isinstance(gone, StorageError)
    assert there == b"a.bin"
    left = set(NAMES)
    for name in ("*", "[a]*?.bin", "?"):
        storage.delete(f"{root}/d/{name}")
        storage.delete(f"{root}/d/{name}d")
        left.discard(name)
        assert set(storage.folder_sizes(f"{root}/d")) == left
        assert not storage.exists(f"{root}/d/{name}")
    for name in left:
        with storage.open_read(f"{root}/d/{name}") as file:
            assert file.read() == name.encode()
        assert storage.exists(f"{root}/d/{name}d/inner")
    storage.delete(f"{root}/d/no such thing*")


def test_weights_and_datasets_lie_in_such_folders(root, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_WEIGHTS", str(tmp_path / "kept"))
    for name, data in (("net[1]*.pth", b"right"), ("net1x.pth", b"other")):
        storage.put(f"{root}/{name}", data)
    weights = Weights.of(f"{root}/net[1]*.pth")
    assert weights.here().read_bytes() == b"right"
    folder = Weights.of(root)
    assert (folder.here() / "net[1]*.pth").read_bytes() == b"right"
    import pyarrow as pa

    dataset = Dataset(f"{root}/run", "step", "f", 2)
    for shard in range(2):
        dataset.write(shard, pa.table({"n": [shard]}))
    assert sorted(dataset.present()) == [0, 1]
    assert dataset.read(1).to_pydict() == {"n": [1]}


def test_local_paths_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a::b", "file:c", "local:d", "caf\udce9", "x#y", "s3:/z"):
        assert is_local(name)
        assert absolute(name) == local_path(name) == f"{tmp_path}/{name}"
    assert local_path("file:///a/b") == "/a/b"
    assert not is_local("s3://a::b/c")


def test_nothing_else_in_lmr_turns_a_url_into_a_file():
    """Calls of fsspec that expand patterns, or split chains, are not made; URLs are read in one file."""
    expanding = {
        "cat",
        "rm",
        "glob",
        "expand_path",
        "get",
        "download",
        "open_files",
        "url_to_fs",
        "mv",
        "copy",
    }
    users, calls = set(), set()
    for path in sorted(Path("lmr").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import) and any(a.name.split(".")[0] == "fsspec" for a in node.names):
                users.add(path.name)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fs":
                calls.add(node.attr)
    assert users == {"urls.py"}
    assert not calls & expanding
    assert {"find", "rm_file", "cat_file"} <= calls
