"""What a run leaves for people: matches as tables and sentences, copies, a report, its contents."""

import csv
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.steps.results.folder.contents import contents, delete_contents, foreign
from lmr.steps.results.folder.datasets import STARTED, store_datasets
from lmr.steps.results.matches.copies import RECORD, copy_matches
from lmr.steps.results.matches.lists import RunLists, ranks_in
from lmr.steps.results.matches.matches import answers, files_of, store_matches
from lmr.steps.results.report.report import store_report
from lmr.steps.results.results import Results
from lmr.storage.datasets import Dataset
from lmr.storage.json_files import write_json
from tests.support.small_run import GALLERY, small_run


@pytest.fixture
def run(tmp_path):
    return small_run(tmp_path / "run")


def rows_of(run, name="matches.csv"):
    with open(Path(run.root) / name, newline="") as file:
        return list(csv.DictReader(file))


def test_ranks_are_those_of_each_list():
    listed, photos = (
        np.array([[7, 5, -1], [1, 2, 3]], np.int32),
        np.array([[5, 9, -1, 7], [3, 1, 7, -1]], np.int32),
    )
    assert ranks_in(listed, photos).tolist() == [[2, 0, 0, 1], [3, 1, 0, 0]]
    assert ranks_in(np.full((1, 2), -1, np.int32), photos[:1]).tolist() == [[0, 0, 0, 0]]


def test_matches_hold_what_each_stage_and_verification_said(run):
    assert store_matches(run) == ["matches.csv", "matches.parquet"]
    table = pq.read_table(Path(run.root) / "matches.parquet").to_pylist()
    got = [
        (r["query_path"], r["rank"], r["photo_path"], r["inliers"], r["confident"], r["stage"]) for r in table
    ]
    assert got == [
        ("=q0.jpg", 1, "c/g3.jpg", 50, True, "search"),
        ("=q0.jpg", 2, "a/=cmd().jpg", 20, True, "search"),
        ("=q0.jpg", 3, "g0.jpg", 4, False, "search"),
        ("sub/q1.jpg", 1, "g4.jpg", 0, False, "diffuse"),
        ("sub/q1.jpg", 2, "b/<b>g2.jpg", 3, False, "search"),
    ]
    assert Results(run).matches().to_dict("records") == table
    assert list(table[0]) == [
        "query",
        "query_path",
        "rank",
        "photo",
        "photo_path",
        "score",
        "inliers",
        "confident",
        "stage",
    ]


def test_a_spreadsheet_computes_nothing_of_it(run):
    store_matches(run)
    rows = rows_of(run)
    assert [row["query"] for row in rows] == ["'=q0", "'=q0", "'=q0", "q1", "q1"]
    assert rows[1]["photo"] == "'=cmd()"
    assert rows[1]["photo_path"] == "a/=cmd().jpg"
    assert rows[0]["confident"] == "true"
    assert not any(cell.startswith(("=", "+", "@", "\t")) for row in rows for cell in row.values())


def test_files_have_no_more_rows_than_they_may_and_old_ones_go(run):
    assert store_matches(run, most_rows=3) == [
        "matches-00000.csv",
        "matches-00000.parquet",
        "matches-00001.csv",
        "matches-00001.parquet",
    ]
    assert [len(rows_of(run, f"matches-0000{n}.csv")) for n in range(2)] == [3, 2]
    (Path(run.root) / "matches-mine.csv").write_text("mine")
    store_matches(run)
    left = sorted(name for name in os.listdir(run.root) if name.startswith("matches"))
    assert left == ["matches-mine.csv", "matches.csv", "matches.parquet"]
    assert files_of(run) == [storage.join(run.root, "matches.csv")]


def test_a_workflow_without_verification_has_no_columns_of_it(tmp_path):
    run = small_run(tmp_path / "run", verified=False)
    store_matches(run)
    assert list(rows_of(run)[0]) == ["query", "query_path", "rank", "photo", "photo_path", "score", "stage"]
    assert [answer.sentence for answer in answers(run)][:2] == ["=q0.jpg: 3 matches", "sub/q1.jpg: 2 matches"]
    with pytest.raises(LmrError, match="no confident matches to copy"):
        copy_matches(run, str(tmp_path / "copies"))


def test_a_sentence_for_each_query(run):
    assert [answer.sentence for answer in answers(run)] == [
        "=q0.jpg: 3 matches, 2 of them confident",
        "sub/q1.jpg: 2 matches, none of them confident",
        "q2.jpg: could not be read (truncated JPEG)",
    ]


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_copies_lie_in_a_folder_for_each_query(run, tmp_path):
    folder = tmp_path / "copies"
    copied = copy_matches(run, str(folder))
    assert (copied.photos, copied.queries, copied.removed) == (2, 1, 0)
    assert tree(folder) == ["=q0/001_g3.jpg", "=q0/002_=cmd().jpg", RECORD]
    images = run.images.gallery.read(0, ["image"]).column("image")
    assert (folder / "=q0" / "001_g3.jpg").read_bytes() == images[3].as_py()
    # Once more: the same, and what was copied in vain goes.
    (folder / "notes.txt").write_text("mine")
    record = json.loads((folder / RECORD).read_text())
    assert copy_matches(run, str(folder)).photos == 2
    assert json.loads((folder / RECORD).read_text()) == record
    assert "notes.txt" in tree(folder)


def test_queries_of_one_safe_name_have_folders_of_their_own(run, tmp_path):
    """`a/b` and `a_b` are two queries, and so are names that differ in their last of many letters."""
    for ids, folders in (
        (["a/b", "a_b", "c"], ["a_b~0", "a_b~1"]),
        (["x" * 300 + "1", "x" * 300 + "2", "c"], ["x" * 200 + "~0", "x" * 200 + "~1"]),
        (["A", "a", "a~1"], ["A~0", "a~1~"]),
    ):
        rows = run.photos.queries.read(0).set_column(1, "id", [ids])
        run.photos.queries.write(0, rows)
        verified = run.rankings["verify"].read(0)
        at = verified.column_names.index("confident")
        run.rankings["verify"].write(0, verified.set_column(at, "confident", [np.array([2, 1, 0], np.int32)]))
        folder = tmp_path / ids[0][:2].replace("/", "_")
        copied = copy_matches(run, str(folder))
        assert copied.queries == 2
        assert sorted({Path(name).parent.name for name in tree(folder)} - {""}) == sorted(folders)
        assert len(tree(folder)) - 1 == copied.photos == 3


def test_no_file_of_others_is_overwritten(run, tmp_path):
    folder = tmp_path / "copies"
    (folder / "=q0").mkdir(parents=True)
    mine = folder / "=q0" / "001_g3.jpg"
    mine.write_text("mine")
    with pytest.raises(LmrError, match="not copies of matches") as told:
        copy_matches(run, str(folder))
    assert tree(folder) == ["=q0/001_g3.jpg"]
    assert mine.read_text() == "mine"
    assert told.value.fix == "give a new or an empty folder"
    copy_matches(run, str(tmp_path / "new"))  # the fix
    edited = tmp_path / "new" / "=q0" / "001_g3.jpg"
    edited.write_text("edited")
    with pytest.raises(LmrError, match="were changed since"):
        copy_matches(run, str(tmp_path / "new"))
    assert edited.read_text() == "edited"


def test_a_copy_that_was_cut_off_is_made_again_and_what_was_changed_meanwhile_stays(
    run, tmp_path, monkeypatch
):
    folder = tmp_path / "copies"
    put, written = storage.put, []

    def put_and_fail(url, content):
        if url.endswith(".jpg") and written:
            raise KeyboardInterrupt
        written.append(url)
        put(url, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", put_and_fail)
        with pytest.raises(KeyboardInterrupt):
            copy_matches(run, str(folder))
    first, second = folder / "=q0" / "001_g3.jpg", folder / "=q0" / "002_=cmd().jpg"
    assert first.is_file()
    assert not second.exists()
    record = json.loads((folder / RECORD).read_text())["files"]
    assert record["=q0/001_g3.jpg"]
    assert record["=q0/002_=cmd().jpg"] == ""
    # As a killed process leaves it: named, and not told what was written.
    write_json(str(folder / RECORD), {"files": dict.fromkeys(record, "")})
    second.write_bytes(b"a user's own")
    with pytest.raises(LmrError, match=r"holds 1 file\(s\) that are not copies"):
        copy_matches(run, str(folder))
    assert second.read_bytes() == b"a user's own"
    second.unlink()
    assert copy_matches(run, str(folder)).photos == 2
    # What is not wanted any more is removed where it is known to be ours, and only there.
    old, edited = folder / "=q0" / "003_old.jpg", folder / "=q0" / "004_edited.jpg"
    old.write_bytes(b"old")
    edited.write_bytes(b"edited")
    record = json.loads((folder / RECORD).read_text())["files"]
    known = {"=q0/003_old.jpg": hashlib.sha256(b"old").hexdigest(), "=q0/004_edited.jpg": ""}
    write_json(str(folder / RECORD), {"files": {**record, **known}})
    assert copy_matches(run, str(folder)).removed == 1
    assert (old.exists(), edited.exists()) == (False, True)


def test_links_lead_to_the_gallery_or_are_refused(tmp_path):
    gallery = tmp_path / "photos"
    for path in GALLERY:
        (gallery / path).parent.mkdir(parents=True, exist_ok=True)
        (gallery / path).write_text(path)
    run = small_run(tmp_path / "run", about={"gallery": str(gallery)})
    for _ in range(2):
        copy_matches(run, str(tmp_path / "links"), links=True)
    link = tmp_path / "links" / "=q0" / "002_=cmd().jpg"
    assert link.is_symlink()
    assert link.read_text() == "a/=cmd().jpg"
    copy_matches(run, str(tmp_path / "links"))  # copies take the place of links
    assert not link.is_symlink()
    assert (gallery / GALLERY[1]).read_text() == "a/=cmd().jpg"
    far = small_run(tmp_path / "far", about={"gallery": "s3://bucket/photos"})
    with pytest.raises(LmrError, match="links can only lead to photos in a folder of this machine"):
        copy_matches(far, str(tmp_path / "other"), links=True)
    with pytest.raises(LmrError, match="folders of this machine"):
        copy_matches(far, "s3://bucket/copies")


def data_of(page):
    (folder,) = [path for path in page.parent.iterdir() if path.name.startswith("data-")]
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_report_is_made_anew_and_leaves_nothing_behind(run):
    (Path(run.root) / "report").mkdir()
    (Path(run.root) / "report" / "data-mine").mkdir()
    page = Path(store_report(run))
    first = data_of_names(page)
    store_report(run)
    assert data_of_names(page).isdisjoint(first)
    assert len(data_of_names(page)) == 1
    assert (page.parent / "data-mine").is_dir()
    html = page.read_text()
    assert data_of_names(page).pop() + "/report.js" in html
    assert "not known" not in html
    assert "<b>g2" not in html


def data_of_names(page):
    return {
        path.name
        for path in page.parent.iterdir()
        if path.name.startswith("data-") and path.name != "data-mine"
    }


def test_the_report_of_a_run_that_has_not_ended(run):
    shutil.rmtree(run.rankings["diffuse"].url)
    shutil.rmtree(run.unusable.url)
    page = Path(store_report(run))
    html = page.read_text()
    assert "Not finished yet: 5 regional diffusion." in html
    assert "1 local search" in html
    assert '\\"found\\":[3,1,0]' in data_of(page)["index-00000.js"]
    for ranking in run.rankings.values():
        shutil.rmtree(ranking.url, ignore_errors=True)
    page = Path(store_report(run))
    assert "not searched yet" in data_of(page)["index-00000.js"]
    assert RunLists(run).stages == ()


def test_pictures_are_made_of_as_many_queries_as_asked_for(run):
    page = Path(store_report(run, most_pictured=1))
    assert "1 of 3 queries have pictures" in page.read_text()
    assert data_of(page)["index-00000.js"].count("data:image") == 0
    assert "data:image/jpeg" in data_of(page)["queries-00000.js"]
    page = Path(store_report(run, most_pictured=0))
    assert "data:image" not in data_of(page)["queries-00000.js"]


def test_lines_join_the_inliers_of_confident_matches(run):
    files = data_of(Path(store_report(run)))
    assert "[100,100,100,100,900,900,900,900]" in files["queries-00000.js"]
    # A large early dataset may be deleted to make room; the report lacks lines then, and nothing else.
    shutil.rmtree(run.local.queries.url)
    files = data_of(Path(store_report(run)))
    assert "[100,100" not in files["queries-00000.js"]
    assert "data:image/jpeg" in files["queries-00000.js"]
    shutil.rmtree(run.images.gallery.url)
    assert "g3.jpg" in data_of(Path(store_report(run)))["queries-00000.js"]


def test_the_report_on_a_server_that_speaks_s3(moto_s3):
    run = small_run(moto_s3)
    store_report(run)
    store_report(run)
    names = sorted(storage.find(storage.join(run.root, "report")))
    assert names[-1] == "index.html"
    assert len({name.split("/")[0] for name in names}) == 2
    assert store_matches(run) == ["matches.csv", "matches.parquet"]


def test_only_datasets_of_other_settings_that_are_ours_are_deleted(run):
    old = Path(run.root) / "final" / ("0" * 12)
    old.mkdir()
    Dataset(str(old), "diffuse", "0" * 12, 1).write(0, run.rankings["diffuse"].read(0))
    stranger = Path(run.root) / "final" / ("1" * 12)
    shutil.copytree(old, stranger)  # named as if it were ours
    mixed = Path(run.root) / "final" / ("2" * 12)
    mixed.mkdir()
    Dataset(str(mixed), "diffuse", "2" * 12, 1).write(0, run.rankings["diffuse"].read(0))
    (mixed / "notes.txt").write_text("mine")
    earlier = {c.fingerprint: c for c in contents(run.root) if not c.latest and c.folder == "final"}
    assert set(earlier) == {"0" * 12, "1" * 12, "2" * 12}
    assert {name: foreign(content) for name, content in earlier.items()} == {
        "0" * 12: [],
        "1" * 12: ["part-00000.parquet"],
        "2" * 12: ["notes.txt"],
    }
    delete_contents(earlier["0" * 12])
    assert not old.exists()
    assert stranger.exists()
    assert Results(run).datasets.rankings["diffuse"].present()


def test_a_run_that_was_begun_keeps_its_datasets_and_those_of_the_finished_one(run, tmp_path):
    begun = replace(run, steps=run.steps[:1])
    store_datasets(begun, STARTED)
    assert all(c.latest for c in contents(run.root) if c.folder in ("candidates", "final", "verified"))
    with pytest.raises(StorageError, match="no finished run here"):
        contents(str(tmp_path / "empty"))
