"""One file from a web server: drops, truncation, refusals, wrong digests, full disks, and going on."""

import hashlib
import os

import numpy as np
import pytest

from lmr.collections import download as module
from lmr.collections.download import Digest, download
from lmr.errors import LmrError, StorageError
from lmr.storage.locks import locked
from tests.support.published import hosted

CONTENT = np.random.default_rng(0).bytes(1000)
MD5 = Digest("md5", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "5")


@pytest.fixture
def host():
    with hosted({"a.tar": CONTENT}) as found:
        yield found


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_through_drops_truncation_and_busy_answers(host, tmp_path):
    host.faults["a.tar"] = ["drop", "half", 503, 500, 429]
    counted = []
    got = download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5, told=counted.append)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert (got.size, got.digest) == (1000, MD5)
    assert sum(counted) == 1000
    assert not host.faults["a.tar"]
    assert left(tmp_path) == ["a.tar"]


def test_without_a_published_digest_sha256_is_returned(host, tmp_path):
    got = download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert got.digest == Digest("sha256", hashlib.sha256(CONTENT).hexdigest())


def test_a_broken_download_goes_on_where_it_stopped(host, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    host.faults["a.tar"] = [None] * 4 + ["half"]
    with pytest.raises(StorageError, match="cannot fetch") as caught:
        download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5)
    assert "it goes on where it stopped" in caught.value.fix
    assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:400]
    host.sent.clear()
    download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5)
    assert host.sent["a.tar"] == 600
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_part_of_another_version_is_not_used(host, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    host.faults["a.tar"] = [None] * 4 + ["half"]
    with pytest.raises(StorageError):
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    host.files["a.tar"] = bytes(1000)
    download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == bytes(1000)


def test_a_file_that_changes_while_it_is_read_is_refused(host, tmp_path):
    def change(count):
        host.files["a.tar"] = bytes(1000)

    with pytest.raises(StorageError, match="changed while it was read"):
        download(f"{host.url}/a.tar", tmp_path / "a.tar", told=change)
    assert left(tmp_path) == []


def test_a_wrong_digest_is_refused_and_the_file_deleted(host, tmp_path):
    host.files["a.tar"] = CONTENT[:900]  # a file that its host has cut
    with pytest.raises(LmrError, match="not the file that its publisher describes") as caught:
        download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5)
    assert "of 900 bytes" in caught.value.got
    assert left(tmp_path) == []


def test_refusals_are_told_with_their_status(host, tmp_path):
    host.faults["a.tar"] = [403]
    with pytest.raises(StorageError, match="cannot fetch") as caught:
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert "403" in caught.value.got
    assert "the host refuses" in caught.value.fix
    with pytest.raises(StorageError) as caught:
        download(f"{host.url}/gone.tar", tmp_path / "gone.tar")
    assert "moved" in caught.value.fix


def test_a_host_that_is_away_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    with hosted({}) as away:
        url = away.url
    with pytest.raises(StorageError, match="cannot fetch") as caught:
        download(f"{url}/a.tar", tmp_path / "a.tar")
    assert "check the network" in caught.value.fix


def test_a_server_without_ranges_gives_the_file_whole(tmp_path):
    with hosted({"a.tar": CONTENT}, ranges=False) as host:
        got = download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5)
    assert got.digest == MD5
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_server_that_lost_its_ranges_begins_anew(host, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    host.faults["a.tar"] = [None] * 4 + ["half"]
    with pytest.raises(StorageError):
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    host.ranges = False
    counted = []
    download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5, told=counted.append)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert sum(counted) == 1000


def test_a_full_disk_keeps_the_part_and_is_told(host, tmp_path):
    (tmp_path / "a.tar.part").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="cannot write") as caught:
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert "No space left" in caught.value.got
    assert "free some space" in caught.value.fix
    # The fix: with room again, the same command goes on.
    (tmp_path / "a.tar.part").unlink()
    download(f"{host.url}/a.tar", tmp_path / "a.tar", digest=MD5)
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_a_file_larger_than_the_disk_is_refused_before_it_is_asked_for(host, tmp_path):
    class Huge(bytes):
        def __len__(self):
            return 10**18

    host.files["a.tar"] = Huge(CONTENT)
    with pytest.raises(StorageError, match="no room"):
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert not host.asked


def test_two_processes_do_not_fetch_the_same_file(host, tmp_path):
    with (
        locked(tmp_path / ".a.tar.lock"),
        pytest.raises(LmrError, match="another process fetches"),
    ):
        download(f"{host.url}/a.tar", tmp_path / "a.tar")
    assert not os.path.exists(tmp_path / "a.tar")
