"""Photos are known by what is in them; all that is left out is counted, by kind."""

import os
import socket
import subprocess

import pytest

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.steps.photos.found import find_photos, left_out_as, left_out_text
from lmr.steps.photos.listing import list_photos
from lmr.storage.walk import walk
from tests.features.test_decode import file, scene


def test_content_decides_not_the_suffix(tmp_path):
    (tmp_path / "a.jpg").write_bytes(file(scene()))
    (tmp_path / "b.JFIF").write_bytes(file(scene()))
    (tmp_path / "camera").write_bytes(file(scene(), "PNG"))
    (tmp_path / "photo.dat").write_bytes(file(scene(), "WEBP"))
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "more.TXT").write_text("BM and P6 are no bitmaps")
    (tmp_path / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (tmp_path / "README").write_text("read me")
    (tmp_path / ".hidden.jpg").write_bytes(file(scene()))
    (tmp_path / "empty").write_bytes(b"")
    found = find_photos(str(tmp_path))
    # What is named as a photo and is none gets a row with its reason.
    assert sorted(found.photos) == ["a.jpg", "b.JFIF", "camera", "page.jpg", "photo.dat"]
    assert found.left_out == {".txt": 2, ".mov": 1, "without suffix": 2, "hidden": 1}
    assert left_out_text(found.left_out) == "6 files left out: 1 .mov, 2 .txt, 1 hidden, 2 without suffix"


def test_what_is_no_file_is_told_and_links_are_followed_once(tmp_path):
    gallery, real = tmp_path / "gallery", tmp_path / "real"
    (gallery / "inner").mkdir(parents=True)
    real.mkdir()
    (real / "a.jpg").write_bytes(file(scene()))
    os.utime(real / "a.jpg", (1_000_000_000, 1_000_000_000))
    (gallery / "inner" / "b.jpg").write_bytes(file(scene()))
    (gallery / "linked").symlink_to("../real")
    (gallery / "loop").symlink_to(".")
    (gallery / "again").symlink_to("inner")
    (gallery / "itself").symlink_to("itself")
    (gallery / "gone.jpg").symlink_to("nowhere")
    (gallery / "link.jpg").symlink_to("../real/a.jpg")
    (gallery / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(gallery / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(gallery / "socket.jpg"))
        found = find_photos(str(gallery))
    assert sorted(found.photos) == ["inner/b.jpg", "link.jpg", "linked/a.jpg"]
    assert found.photos["link.jpg"] == found.photos["linked/a.jpg"]
    assert found.photos["link.jpg"].endswith(" 1000000000.0")
    assert found.left_out == {
        "link to a folder that is listed already": 2,
        "broken link": 2,
        "device": 1,
        "pipe": 1,
        "socket": 1,
    }


@pytest.fixture
def deep(tmp_path):
    """A folder that is removed here: pytest removes folders by recursion."""
    folder = tmp_path / "deep"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_folders_nested_deeper_than_python_recurses(deep):
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    with open(os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as photo:
        photo.write(file(scene()))
    os.close(here)
    assert list(find_photos(str(deep)).photos) == ["d/" * 1500 + "a.jpg"]


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def forbidden(path):
        if str(path).endswith(("closed", "lost+found")):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)  # root may list everything
    with pytest.raises(StorageError, match=r"1 folders .*\ngot: closed: Permission denied"):
        list(walk(str(tmp_path)))


def test_a_folder_without_photos_says_what_is_there(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(LmrError, match=r"1 file left out: 1 \.txt") as caught:
        list_photos("gallery", str(tmp_path))
    assert "HEIC" in caught.value.fix


def test_on_s3_too(moto_s3):
    root = moto_s3
    for name, data in {"a[1].jpg": b"x", "b": file(scene()), "c.txt": b"notes", "d": b""}.items():
        storage.put(storage.join(root, name), data)
    found = find_photos(root)
    assert sorted(found.photos) == ["a[1].jpg", "b"]
    assert sum(found.left_out.values()) == 2


def test_kinds_are_named_without_control_characters():
    assert left_out_as("a.t\x1b[31mxt", b"text") == ".t\\x1b[31mxt"
    assert left_out_as("a", OSError()) == "file that cannot be read"
    assert left_out_text({}) == ""
    many = {f".{i:02d}": i + 1 for i in range(12)}
    assert left_out_text(many).endswith("and 2 more kinds")
