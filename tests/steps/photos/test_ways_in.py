"""Photos come in by folders, lists, archives and single files; what is wrong is told at once."""

import gzip
import io
import os
import subprocess
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.steps.photos.listing import list_photos
from lmr.storage import outside
from tests.features.test_decode import file, scene
from tests.steps.photos.test_names import ingested

PHOTO = file(scene())


def folder_of(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PHOTO)
    return root


def listed(url):
    return list_photos("gallery", str(url))


def archive(path, members):
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                made.addfile(info)
            else:
                info.size, info.mtime = len(content), 1_600_000_000
                made.addfile(info, io.BytesIO(content))
    return path


def test_one_file_is_a_set_of_one_photo(tmp_path):
    folder_of(tmp_path, "my photo?.jpg", "other.jpg")
    found = listed(tmp_path / "my photo?.jpg")
    assert found.paths == ("my photo?.jpg",)
    assert found.ids == ("my%20photo?.jpg",)
    assert [row["image"] for row in ingested(found, tmp_path / "run")] == [PHOTO]
    (tmp_path / "notes").write_text("no photo")  # told by its row, as in a folder
    assert ingested(listed(tmp_path / "notes"), tmp_path / "run")[0]["reason"] == "not an image"


def test_a_list_gives_ids_and_labels_and_names_photos_anywhere(tmp_path):
    folder_of(tmp_path / "a", "1.jpg", "2.jpg")
    folder_of(tmp_path / "b", "1.jpg")
    rows = [("../b/1.jpg", "b1", "tower"), ("./1.jpg", "a1", ""), (str(tmp_path / "a/2.jpg"), "a2", "bridge")]
    text = "id,label,PATH\r\n" + "".join(f"{i},{label},{path}\r\n" for path, i, label in rows)
    (tmp_path / "a" / "list.csv").write_text(text)
    table = pa.table(
        {"path": [r[0] for r in rows], "id": [r[1] for r in rows], "label": [r[2] for r in rows]}
    )
    pq.write_table(table, tmp_path / "a" / "list.parquet")
    for name in ("list.csv", "list.parquet"):
        found = listed(tmp_path / "a" / name)
        by_id = dict(zip(found.ids, zip(found.paths, found.labels, strict=True), strict=True))
        assert by_id == {
            "b1": ("../b/1.jpg", "tower"),
            "a1": ("1.jpg", ""),
            "a2": (str(tmp_path / "a/2.jpg"), "bridge"),
        }
        assert {row["reason"] for row in ingested(found, tmp_path / name)} == {""}
        assert found.named().rows.column("label").to_pylist() == list(found.labels)
    # Other ids and labels make no photo anew.
    (tmp_path / "a" / "plain.txt").write_text("\n".join(path for path, _, _ in rows))
    plain = listed(tmp_path / "a" / "plain.txt")
    assert plain.given().fingerprint == found.given().fingerprint
    assert plain.named().fingerprint != found.named().fingerprint


def test_photos_of_a_list_are_those_of_the_folder(tmp_path):
    folder_of(tmp_path / "photos", "a.jpg", "d/b.jpg")
    (tmp_path / "photos" / "list.txt").write_text("d/b.jpg\na.jpg\na.jpg\n\n")
    by_list, by_folder = listed(tmp_path / "photos" / "list.txt"), listed(tmp_path / "photos")
    assert by_list.given().fingerprint == by_folder.given().fingerprint
    assert by_list.left_out == "1 line of the list names a photo once more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n" + "".join(f"gone{i}.jpg\n" for i in range(7)), "7 photos of the list .* are not there"),
        ("path\n", "lists no photo"),
        ("", "list.csv is empty\ngot: 0 lines"),
        ("path;id\na.jpg;1\n", "separate columns by commas, and not by semicolons"),
        ("path\tid\na.jpg\t1\n", "separate columns by commas, and not by tabs"),
        ("path\na\0.jpg\n", "1 photo of the list .* is not there\n.*embedded null"),
        ("path,id\na.jpg\n", "1 line of .* does not have 2 columns"),
        ("photo,id\na.jpg,1\n", r"no column of paths\ngot: columns photo, id"),
        ("path,id\na.jpg,1\nb.jpg\nc,d,e.jpg,2\n", r"2 lines of .* do not have 2 columns\ngot: lines 3, 4"),
        ("path,id\na.jpg,x 1\nb.jpg,\n", r"2 ids of .* cannot stand in Kaggle's files\ngot: 'x 1', ''"),
        ("path,id\na.jpg,7\nb.jpg,7\n", r"1 id of .* is that of several photos\ngot: 7"),
        ('path\n"a.jpg\n', "is no CSV file"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_at_once(tmp_path, text, message):
    folder_of(tmp_path, "a.jpg", "b.jpg", "c,d,e.jpg")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(LmrError, match=message) as caught:
        listed(tmp_path / "list.csv")
    assert caught.value.fix
    # With what the errors ask for it is read: names with commas in quotes, ids of their own, photos there.
    (tmp_path / "list.csv").write_text('path,id\na.jpg,1\n"c,d,e.jpg",2\n')
    assert listed(tmp_path / "list.csv").ids == ("1", "2")


def test_a_list_of_a_spreadsheet_says_how_to_save_it(tmp_path):
    folder_of(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text("path\na.jpg\n", "utf-16")
    with pytest.raises(LmrError, match="UTF-16") as caught:
        listed(tmp_path / "list.csv")
    old, new = tmp_path / "list.csv", tmp_path / "new.csv"
    command = (
        caught.value.fix.partition("iconv ")[2].replace("OLD.csv", f"{old}").replace("NEW.csv", f"{new}")
    )
    subprocess.run(f"iconv {command}", shell=True, check=True)
    assert listed(new).ids == ("a",)


def test_a_web_address_is_told_to_be_no_folder(tmp_path):
    with pytest.raises(LmrError, match="is no folder of the gallery") as caught:
        listed("http://127.0.0.1:1/photos")
    assert "a line of a text file" in caught.value.fix


def test_the_first_five_of_many_are_named(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"gone{i}.jpg\n" for i in range(7)))
    with pytest.raises(StorageError) as caught:
        listed(tmp_path / "list.txt")
    assert caught.value.got.count("gone") == 5
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(LmrError, match="no Parquet file"):
        listed(tmp_path / "list.parquet")


def test_archives_are_read_by_range(tmp_path, monkeypatch):
    members = [
        ("./a.jpg", PHOTO),
        ("deep/" * 30 + "a.jpg", PHOTO),
        ("twice.jpg", b"the first of two"),
        ("twice.jpg", PHOTO),
        ("no suffix", PHOTO),
        ("empty.jpg", b""),
        ("notes.txt", b"notes"),
        ("._a.jpg", b"of a Mac"),
        ("link.jpg", "a.jpg"),
        ("../outside.jpg", PHOTO),
    ]
    folder = tmp_path / "photos"
    folder_of(folder, "alone.jpg")
    archive(folder / "one.tar", members)
    archive(folder / "two.TAR", [("a.jpg", PHOTO), ("padding.bin", bytes(5_000_000))])
    found = listed(folder)
    assert found.paths[found.ids.index("alone")] == "alone.jpg"
    assert set(found.ids) >= {"alone", "one.tar/a.jpg", "two.TAR/a.jpg", "twice", "one.tar/no%20suffix"}
    assert found.left_out == "4 files left out: 1 .bin, 1 .txt, 1 hidden, 1 link in an archive"
    read, pieces = storage.read_outside, []

    def counted(wanted, **more):
        pieces.extend(wanted)
        return read(wanted, **more)

    monkeypatch.setattr(storage, "read_outside", counted)
    rows = ingested(found, tmp_path / "run")
    monkeypatch.undo()
    empty = found.paths.index("one.tar/empty.jpg")
    assert [row["image"] == PHOTO for row in rows] == [row != empty for row in range(len(rows))]
    assert rows[empty]["reason"] == "empty file"
    assert sum(piece.size or 0 for piece in pieces) == len(PHOTO) * 6
    # One archive alone holds the same photos, named as below its folder.
    assert set(listed(folder / "one.tar").paths) == {p for p in found.paths if p.startswith("one.tar/")}


def test_archives_that_cannot_be_read_are_all_told(tmp_path):
    whole = archive(tmp_path / "whole.tar", [("a.jpg", PHOTO)]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:700])
    (tmp_path / "text.tar").write_bytes(b"this is no archive" * 100)
    with pytest.raises(LmrError, match="2 archives cannot be read") as caught:
        listed(tmp_path)
    assert "cut.tar" in caught.value.got
    assert "text.tar" in caught.value.got
    (tmp_path / "cut.tar").unlink()
    (tmp_path / "text.tar").unlink()
    assert listed(tmp_path).ids == ("a",)
    (tmp_path / "whole.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(LmrError, match="packed archive") as caught:
        listed(tmp_path / "whole.tar.gz")
    os.system(f"cd {tmp_path} && gunzip -kf whole.tar.gz")  # the fix
    assert listed(tmp_path / "whole.tar").ids == ("a",)


def test_an_archive_that_has_become_shorter_is_no_fact(tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    path = archive(tmp_path / "a.tar", [("a.jpg", PHOTO)])
    found = listed(tmp_path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(StorageError, match="ends after 600 bytes"):
        ingested(found, tmp_path / "run")


def test_members_above_the_limit_are_not_read():
    (found,) = outside.read_outside([storage.Piece("/nowhere", 0, 2000)], most_bytes=1000)
    assert str(found.what) == "too large: 2,000 bytes; at most 1,000 are read"


def test_on_s3_files_lists_and_archives(moto_s3, tmp_path):
    root = moto_s3
    data = archive(tmp_path / "a.tar", [("x.jpg", PHOTO), ("padding.bin", bytes(6_000_000))]).read_bytes()
    for name, content in {"one [1].jpg": PHOTO, "tars/a.tar": data}.items():
        storage.put(f"{root}/{name}", content)
    storage.put(f"{root}/list.csv", b'path,id\n"one [1].jpg",p1\ns3://photos/run/one%201.jpg,p2\n')
    storage.put(f"{root}/one%201.jpg", PHOTO)
    for url, ids in (
        (f"{root}/one [1].jpg", ["one%20[1].jpg"]),
        (f"{root}/tars", ["x"]),
        (f"{root}/tars/a.tar", ["x"]),
        (f"{root}/list.csv", ["p1", "p2"]),
    ):
        found = list_photos("gallery", url)
        assert sorted(found.ids) == ids
        assert all(row["image"] == PHOTO for row in ingested(found, tmp_path / "run"))
    with pytest.raises(StorageError, match="does not exist"):
        list_photos("gallery", f"{root}/nothing.csv")
