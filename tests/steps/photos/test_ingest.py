"""Ingest takes what a file holds for a fact, and nothing else; unknown files cost bounded bytes and time."""

import dataclasses
import os
import socket
from pathlib import Path

import pytest

from lmr import storage
from lmr.errors import SettingsError, StorageError
from lmr.runtime.settings import digest, layer
from lmr.steps.photos import ingest as module
from lmr.steps.photos.ingest import IngestSettings, ingest_shard, read_usable
from lmr.steps.photos.listing import Photos
from lmr.storage import outside
from lmr.storage.arrow import note_of
from lmr.storage.datasets import Dataset
from tests.features.test_decode import file, noise, scene
from tests.features.test_kinds_of_photos import many_scans
from tests.support.faulty import FaultyProxy

DEFAULT = IngestSettings()


@dataclasses.dataclass(frozen=True)
class Groups:
    ingest: IngestSettings = DEFAULT


def photos_of(url, sizes):
    """Return a list of photos of these names and sizes, as a run stores it."""
    names = tuple(sizes)
    stamps = tuple(f"{size} 1" for size in sizes.values())
    return Photos("gallery", url, tuple(n.partition(".")[0] for n in names), names, stamps)


def made(url, sizes, root, settings=DEFAULT):
    given = photos_of(url, sizes).in_shards_of(settings.photos_per_shard).given()
    given.store(str(root))
    rows = ingest_shard(0, settings, photos=given.dataset(str(root)), url=url)
    return rows, {row["id"]: row for row in rows.to_pylist()}


def folder_of(tmp_path, contents):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder, {name: len(data) for name, data in contents.items()}


def test_rows_hold_the_photo_or_a_reason_and_a_note(tmp_path):
    cut = file(noise(200, 160))[:-2]
    folder, sizes = folder_of(tmp_path, {"a.jpg": file(scene()), "b.jpg": cut, "c.jpg": b"no photo"})
    rows, found = made(str(folder), sizes, tmp_path)
    assert [(found[i]["reason"], found[i]["note"]) for i in "abc"] == [
        ("", ""),
        ("", "cut JPEG: 100% of its rows decode"),
        ("not an image", ""),
    ]
    assert found["b"]["image"] == cut
    assert "see `note`" in note_of(rows)
    dataset = Dataset(str(tmp_path / "images"), "ingest", "f", 1)
    dataset.write(0, rows)
    assert read_usable(dataset, 0).photos.tolist() == [0, 1]


def test_pipes_sockets_devices_and_folders_are_told_and_never_opened(tmp_path):
    folder, sizes = folder_of(tmp_path, {"a.jpg": file(scene())})
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.jpg"))
        (folder / "zero.jpg").symlink_to("/dev/zero")
        (folder / "folder.jpg").mkdir()
        sizes |= {f"{name}.jpg": 0 for name in ("pipe", "socket", "zero", "folder")}
        _, found = made(str(folder), sizes, tmp_path)
    assert found["a"]["reason"] == ""
    for name, kind in (("pipe", "pipe"), ("socket", "socket"), ("zero", "device"), ("folder", "folder")):
        assert found[name]["reason"] == f"not a regular file: a {kind}"


def test_files_above_the_limit_are_not_read(tmp_path, monkeypatch):
    folder, sizes = folder_of(tmp_path, {"a.jpg": file(scene())})
    with open(folder / "large.jpg", "wb") as large:
        large.truncate(300_000_000_000)
    (folder / "endless.jpg").symlink_to("/proc/self/smaps")  # a regular file of size 0 that is not empty
    sizes |= {"large.jpg": 300_000_000_000, "endless.jpg": 0}
    _, found = made(str(folder), sizes, tmp_path, IngestSettings(max_bytes=5000))
    assert found["large"]["reason"] == "too large: 300,000,000,000 bytes; at most 5,000 are read"
    assert found["endless"]["reason"] == "too large: more than 5,000 bytes; at most 5,000 are read"
    assert found["a"]["reason"] == ""


def test_limits_reach_the_decoder(tmp_path):
    photo = file(scene(), progressive=True)
    folder, sizes = folder_of(tmp_path, {"a.jpg": photo, "slow.jpg": many_scans(3000, side=1500)})
    settings = IngestSettings(max_pixels=6000, max_scans=1000)
    _, found = made(str(folder), sizes, tmp_path, settings)
    assert found["a"]["reason"] == "too large: 96 x 64 px, more than 6,000 px"
    assert found["slow"]["reason"] == "JPEG of more than 1000 scans"
    _, found = made(str(folder), sizes, tmp_path, IngestSettings(max_scans=5))
    assert found["a"]["reason"] == "JPEG of more than 5 scans"


@pytest.mark.parametrize("field", ["max_bytes", "max_pixels", "max_scans", "max_seconds"])
def test_limits_have_both_bounds_and_count_in_fingerprints_when_they_are_set(field):
    assert digest(IngestSettings()) == digest({"class": "IngestSettings", "photos_per_shard": 128})
    for value in (0, -1, 10**12, float("inf"), float("nan")):
        with pytest.raises(SettingsError):
            layer(Groups(), {"ingest": {field: value}})
    changed = layer(Groups(), {"ingest": {field: 1000}}).ingest
    assert digest(changed) != digest(IngestSettings())


@pytest.mark.parametrize("state", ["missing", "broken link", "I/O error"])
def test_a_passing_state_is_no_fact(tmp_path, state, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    contents = {f"p{i}.jpg": file(scene()) for i in range(9)}
    folder, sizes = folder_of(tmp_path, contents)
    away = sorted(sizes)[:7]
    for name in away:
        (folder / name).rename(tmp_path / name)
        if state == "broken link":
            (folder / name).symlink_to(tmp_path / "nowhere")
        if state == "I/O error":
            (folder / name).symlink_to("/proc/self/mem")  # reading its first page fails with EIO
    with pytest.raises(StorageError) as caught:
        made(str(folder), sizes, tmp_path)
    assert caught.value.what.startswith("7 of 9 photos of a shard cannot be read")
    assert caught.value.got.count("p") >= 5
    assert "'p4.jpg'" in caught.value.got
    assert "'p5.jpg'" not in caught.value.got
    assert caught.value.fix.startswith("is the folder mounted")
    # The fix: what is back is read at the next run.
    for name in away:
        (folder / name).unlink(missing_ok=True)
        (tmp_path / name).rename(folder / name)
    _, found = made(str(folder), sizes, tmp_path)
    assert {row["reason"] for row in found.values()} == {""}


def test_one_photo_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    folder, sizes = folder_of(tmp_path, {"a.jpg": file(scene()), "b.jpg": file(scene())})

    def forbidden(path, *rest):
        if path.endswith("b.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return read_file(path, *rest)

    read_file = outside._read_file  # root may read everything, so the refusal is made here
    monkeypatch.setattr(outside, "_read_file", forbidden)
    with pytest.raises(StorageError) as caught:
        made(str(folder), sizes, tmp_path)
    assert caught.value.what.startswith("1 of 2 photos")
    assert "'b.jpg': PermissionError" in caught.value.got
    assert caught.value.fix.startswith("make them readable")


@pytest.fixture
def proxied_s3(moto_s3, monkeypatch):
    """An S3 server behind a proxy that fails on command; yields the proxy and the URL of a folder."""
    import s3fs

    host, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0.2")
    with FaultyProxy((host, int(port))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy, moto_s3
        s3fs.S3FileSystem.clear_instance_cache()


def test_objects_of_s3_are_bounded_and_their_failures_are_no_facts(proxied_s3, tmp_path):
    proxy, root = proxied_s3
    contents = {"a[1].jpg": file(scene()), "b*.jpg": b"", "c?.jpg": file(noise())}
    for name, data in contents.items():
        storage.put(storage.join(root, name), data)
    sizes = {name: len(data) for name, data in contents.items()}
    _, found = made(root, sizes, tmp_path)
    assert [row["reason"] for row in found.values()] == ["", "empty file", ""]
    _, found = made(root, sizes, tmp_path, IngestSettings(max_bytes=2000))
    assert found["c?"]["reason"] == "too large: more than 2,000 bytes; at most 2,000 are read"
    for fault in ("forbidden", "slow down", "internal", "reset"):
        proxy.fault = lambda method, path, fault=fault: fault if "/c" in path else None
        with pytest.raises(StorageError) as caught:
            made(root, sizes, tmp_path)
        assert caught.value.what.startswith("1 of 3 photos of a shard cannot be read")
        assert "'c?.jpg'" in caught.value.got
    proxy.fault = lambda method, path: None
    with pytest.raises(StorageError, match="1 of 4 photos"):
        made(root, sizes | {"gone.jpg": 5}, tmp_path)
    _, found = made(root, sizes, tmp_path)
    assert found["c?"]["reason"] == ""


def test_a_shard_is_read_in_blocks_of_bounded_size(tmp_path, monkeypatch):
    photo = file(noise())
    folder, sizes = folder_of(tmp_path, {f"p{i:02d}.jpg": photo for i in range(10)})
    read, calls = storage.read_outside, []

    def counted(urls, **options):
        calls.append(len(urls))
        return read(urls, **options)

    monkeypatch.setattr(storage, "read_outside", counted)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 3 * len(photo) + 10)
    _, found = made(str(folder), sizes, tmp_path)
    assert calls == [3, 3, 3, 1]
    assert [row["photo"] for row in found.values()] == list(range(10))


def test_photos_are_read_through_storage_alone():
    for path in (Path(module.__file__).parent).glob("*.py"):
        assert "open(" not in path.read_text().replace("open_read(", ""), path.name
