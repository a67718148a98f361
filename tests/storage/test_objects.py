import errno

import boto3
import pytest

from lmr import storage
from lmr.errors import StorageError
from lmr.storage import objects


def fails_halfway(file):
    file.write(b"123")
    raise RuntimeError


def check_objects(root):
    url = objects.join(root, "a", "b.bin")
    assert not objects.exists(url)
    objects.put(url, b"12345")
    assert objects.exists(url)
    assert objects.read(url) == b"12345"
    for expected in (5, objects.IN_MEMORY_BYTES + 1):  # in memory, and by way of a file
        assert objects.put_written(url, lambda file: file.write(b"54321"), expected) == 5
        assert objects.read(url) == b"54321"
        with pytest.raises(RuntimeError):
            objects.put_written(objects.join(root, "a", "half"), fails_halfway, expected)
    objects.put(url, b"1")
    assert objects.folder_sizes(objects.join(root, "a")) == {"b.bin": 1}
    assert objects.folder_sizes(objects.join(root, "none")) == {}
    assert objects.folders(root) == ["a"]
    assert objects.folders(objects.join(root, "a")) == objects.folders(objects.join(root, "none")) == []
    assert {path: about["size"] for path, about in objects.find(root).items()} == {"a/b.bin": 1}
    assert objects.find(objects.join(root, "none")) == {}
    with objects.open_read(url) as file:
        assert file.read() == b"1"
    objects.delete(objects.join(root, "a"))
    objects.delete(objects.join(root, "a"))
    assert not objects.exists(url)
    with pytest.raises(StorageError, match=r"cannot read .*b\.bin(.|\n)*check the path"):
        objects.read(url)


def test_objects_in_a_folder(tmp_path):
    check_objects(str(tmp_path / "run"))


# moto and botocore leave sockets and warn of their own habits; what is tested here is ours.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_objects_on_s3(moto_s3):
    check_objects(moto_s3)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    objects.put(str(tmp_path / "x"), b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(objects.os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write(.|\n)*No space left(.|\n)*free some space"):
        objects.put(str(tmp_path / "x"), b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_an_s3_server_that_is_not_there_is_named_within_a_minute(monkeypatch):
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError, match=r"cannot look for s3://nope/x(.|\n)*check that the storage is reachable"
    ):
        objects.exists("s3://nope/x")
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_unknown_scheme_is_named():
    with pytest.raises(StorageError, match=r"cannot read nowhere://x(.|\n)*check the URL's scheme"):
        objects.read("nowhere://x")


def test_what_others_write_after_a_listing_is_read(moto_s3):
    storage.put(f"{moto_s3}/shards/part-0", b"0")
    # The listing of a folder that is not there makes s3fs list the folder above it, and keep that.
    assert storage.folder_sizes(f"{moto_s3}/failures") == {}
    assert storage.folder_sizes(f"{moto_s3}/shards") == {"part-0": 1}
    for key in ("run/landmark", "run/shards/part-1"):
        boto3.client("s3").put_object(Bucket="photos", Key=key, Body=b"new")
        assert storage.read(f"s3://photos/{key}") == b"new"
        with storage.open_read(f"s3://photos/{key}") as file:
            assert file.read() == b"new"


@pytest.mark.parametrize("verb", ["read", "put"])
def test_a_folder_in_the_place_of_a_file_is_told(tmp_path, verb):
    with pytest.raises(StorageError, match="name a file: this is a folder"):
        objects.read(str(tmp_path)) if verb == "read" else objects.put(str(tmp_path), b"")


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for path in ("photo.jpg/started.json", "photo.jpg/run/started.json"):
        with pytest.raises(StorageError, match="a part of this one is a file and no folder"):
            objects.put(str(tmp_path / path), b"")


def test_a_package_that_a_scheme_needs_is_named():
    with pytest.raises(StorageError, match=r"gcsfs(.|\n)*pip install PACKAGE"):
        objects.read("gs://bucket/x")
