"""Whole data sets from a web server and from S3: what a run takes is there, and nothing is fetched twice."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from lmr.collections import fetch, find_collection, open_collection
from lmr.collections.fetch import LEDGER
from lmr.errors import LmrError, StorageError
from lmr.evaluation.protocols.table import evaluate, find_protocol
from lmr.steps.both import Both
from lmr.steps.photos.listing import list_photos
from lmr.steps.results.scores import read_solution, solution_for
from tests.support.published import google_landmarks, hosted, ilias, photo, revisited, tar_of, truth

GLD, OXFORD = find_collection("google-landmarks-v2"), find_collection("revisited-oxford")
ZEROS = "0" * 13


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0.5")


def usable(ready):
    """The photos and the solution as `lmr run retrieval` reads them; ids of both sides, right photos."""
    photos = Both(list_photos("gallery", ready.gallery), list_photos("queries", ready.queries))
    given = solution_for(read_solution(ready.solution), photos)
    rows = given.rows.to_pydict()
    right = dict(zip(rows["id"], rows["images"], strict=True))
    return sorted(photos.gallery.ids), sorted(photos.queries.ids), right


@pytest.fixture
def host():
    with hosted(google_landmarks()) as found:
        yield found


def test_google_landmarks_arrive_as_archives_that_a_run_reads(host, tmp_path):
    fetched = fetch(GLD, tmp_path, prune=2, mirror=host.url)
    gallery, queries, right = usable(fetched.ready)
    assert gallery == sorted(f"i{i}{k}{ZEROS}" for i in range(2) for k in range(3))
    assert len(queries) == 6
    assert right[f"t00{ZEROS}"] == [f"i00{ZEROS}", f"i10{ZEROS}"]
    assert right[f"t02{ZEROS}"] == []
    assert (fetched.loaded, fetched.there) == (6, 0)
    assert "3 of the contest's 3 queries" in fetched.news[0]
    assert fetched.ready == open_collection("google-landmarks-v2", str(tmp_path))


def test_a_small_part_has_a_solution_of_its_own_and_grows(host, tmp_path):
    fetched = fetch(GLD, tmp_path, prune=1, mirror=host.url)
    _, queries, right = usable(fetched.ready)
    assert queries == [f"t0{k}{ZEROS}" for k in range(3)]
    assert right == {f"t00{ZEROS}": [f"i00{ZEROS}"], f"t01{ZEROS}": [], f"t02{ZEROS}": []}
    assert "1 of the contest's 3 queries" in fetched.news[0]
    host.asked.clear()
    grown = fetch(GLD, tmp_path, prune=2, mirror=host.url)
    # Of the parts only what is new: the second archives, their digests, and the second solution.
    assert sorted(path for path in host.asked if path.endswith((".tar", ".csv"))) == [
        "ground_truth/recognition_solution_v2.1.csv",
        "index/images_001.tar",
        "test/images_001.tar",
    ]
    assert usable(grown.ready)[2][f"t01{ZEROS}"] == [f"i11{ZEROS}"]


def test_a_damaged_archive_of_ones_own_is_told_and_stays(host, tmp_path):
    fetch(GLD, tmp_path, prune=2, mirror=host.url)
    own = tmp_path / "google-landmarks-v2/gallery/holiday.tar"
    own.write_bytes(b"no archive" * 100)
    with pytest.raises(LmrError, match=r"holiday\.tar is damaged") as told:
        fetch(GLD, tmp_path, prune=1, mirror=host.url)
    assert f"delete {own}" in str(told.value)
    own.unlink()
    fetch(GLD, tmp_path, prune=1, mirror=host.url)


def test_what_is_there_and_right_is_not_asked_for_and_what_was_changed_is(host, tmp_path):
    fetch(GLD, tmp_path, prune=2, mirror=host.url)
    host.asked.clear()
    again = fetch(GLD, tmp_path, prune=2, mirror=host.url)
    assert (again.loaded, again.there) == (0, 6)
    assert not host.asked
    damaged = tmp_path / "google-landmarks-v2/gallery/images_001.tar"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert fetch(GLD, tmp_path, prune=2, mirror=host.url).loaded == 1
    assert damaged.read_bytes() == host.files["index/images_001.tar"]
    # A file that somebody has copied there is compared with its digest, and not fetched.
    (tmp_path / "google-landmarks-v2" / LEDGER).unlink()
    host.asked.clear()
    fetch(GLD, tmp_path, prune=2, mirror=host.url)
    assert not [path for path in host.asked if path.endswith(".tar")]


def test_one_wrong_file_does_not_keep_the_others(host, tmp_path):
    right = host.files["index/images_000.tar"]
    host.files["index/images_000.tar"] = right[:-512] + b"x" * 512
    with pytest.raises(LmrError, match="is not the file that its publisher describes"):
        fetch(GLD, tmp_path, prune=2, mirror=host.url)
    folder = tmp_path / "google-landmarks-v2"
    assert not (folder / "gallery/images_000.tar").exists()
    host.files["index/images_000.tar"] = right
    host.asked.clear()
    fetch(GLD, tmp_path, prune=2, mirror=host.url)
    assert host.asked["index/images_000.tar"] == 1
    assert sum(host.asked[path] for path in host.asked if path.endswith(".tar")) < 4


def test_several_faults_are_told_at_once(host, tmp_path):
    for path in ("index/images_000.tar", "test/images_001.tar"):
        host.faults[path] = [403] * 9
    with pytest.raises(StorageError, match="2 files of google-landmarks-v2 could not be fetched") as caught:
        fetch(GLD, tmp_path, prune=2, mirror=host.url)
    assert "the host refuses" in caught.value.fix
    host.faults.clear()
    assert fetch(GLD, tmp_path, prune=2, mirror=host.url).ready


def test_digests_that_do_not_name_the_file_are_told(host, tmp_path):
    host.files["md5sum/index/md5.images_000.txt"] = b"<html>gone</html>"
    with pytest.raises(LmrError, match="digests do not name images_000"):
        fetch(GLD, tmp_path, prune=1, mirror=host.url)


def test_from_s3_and_from_a_public_bucket_without_credentials(moto_s3, tmp_path, monkeypatch):
    import s3fs

    prefix = moto_s3.removeprefix("s3://photos/")
    for path, data in google_landmarks().items():
        s3fs.S3FileSystem().call_s3(
            "put_object", Bucket="photos", Key=f"{prefix}/{path}", Body=data, ACL="public-read"
        )
    first = fetch(GLD, tmp_path / "s3", prune=2, mirror=moto_s3)
    assert len(usable(first.ready)[0]) == 6
    # The address that the publisher gives is the bucket's by the web: nothing is signed there.
    address = f"{os.environ['AWS_ENDPOINT_URL']}/{moto_s3.removeprefix('s3://')}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    second = fetch(GLD, tmp_path / "web", prune=2, mirror=address)
    assert usable(second.ready) == usable(first.ready)


def test_revisited_oxford_is_unpacked_and_its_queries_are_cut(tmp_path):
    with hosted(revisited(protocol=2)) as host:
        fetched = fetch(OXFORD, tmp_path, mirror=host.url)
        folder = tmp_path / "revisited-oxford"
        gallery, queries, right = usable(fetched.ready)
        assert gallery == sorted(truth()["imlist"])  # neither queries nor photos that are in no list
        assert queries == ["all_souls_000013", "keble_000245"]
        assert right == {
            "all_souls_000013": ["all_souls_000001", "all_souls_000002"],
            "keble_000245": ["keble_000003"],
        }
        whole = Image.open(io.BytesIO(photo(4))).convert("RGB")
        cut = Image.open(folder / "queries/all_souls_000013.png")
        assert np.array_equal(np.asarray(cut), np.asarray(whole)[1:16, 2:22])
        assert not list(folder.glob("archives/*.tgz"))
        host.asked.clear()
        assert fetch(OXFORD, tmp_path, mirror=host.url).loaded == 0
        (folder / "gallery/keble_000003.jpg").unlink()
        assert fetch(OXFORD, tmp_path, mirror=host.url).loaded == 1
        assert (folder / "gallery/keble_000003.jpg").is_file()
    scores = {}
    submission = b"id,images\nall_souls_000013,oxford_000004 all_souls_000002\nkeble_000245,keble_000003\n"
    for name in ("revisited-medium", "revisited-hard"):
        found = evaluate(find_protocol(name), submission, (folder / "truth.csv").read_bytes())
        scores[name] = found.scores["map"].per_query.tolist()
    # Junk before the right photo is taken out: the first place is a hit, of two right photos or of one.
    assert scores == {"revisited-medium": [0.5, 1.0], "revisited-hard": [1.0, 1.0]}


def test_distractors_come_as_archives_that_single_photos_are_read_from(tmp_path):
    with hosted(revisited()) as host:
        fetch(OXFORD, tmp_path, mirror=host.url)
        with_more = fetch(OXFORD, tmp_path, mirror=host.url, parts=("distractors",), prune=2)
        assert len(usable(with_more.ready)[0]) == 6
        assert not list((tmp_path / "revisited-oxford").rglob("*.gz"))
        assert fetch(OXFORD, tmp_path, mirror=host.url, parts=("distractors",), prune=2).loaded == 0


def test_an_archive_that_somebody_has_put_there_is_used_and_never_deleted(tmp_path):
    folder = tmp_path / OXFORD.name / "archives"
    folder.mkdir(parents=True)
    own = folder / "oxbuild_images-v1.tgz"
    files = revisited()
    own.write_bytes(files["oxbuild_images-v1.tgz"][:-40])
    with hosted(files) as host:
        with pytest.raises(LmrError, match="is damaged") as told:
            fetch(OXFORD, tmp_path, mirror=host.url)
        assert "it was not fetched by lmr, and stays" in told.value.fix
        assert own.read_bytes() == files["oxbuild_images-v1.tgz"][:-40]
        own.write_bytes(files["oxbuild_images-v1.tgz"])
        assert fetch(OXFORD, tmp_path, mirror=host.url).ready
        assert own.read_bytes() == files["oxbuild_images-v1.tgz"]
        assert not host.asked["oxbuild_images-v1.tgz"]
        # Gone, and photos with it: now it is fetched, and goes once it is unpacked.
        own.unlink()
        (tmp_path / OXFORD.name / "gallery/keble_000003.jpg").unlink()
        assert fetch(OXFORD, tmp_path, mirror=host.url).ready
        assert host.asked["oxbuild_images-v1.tgz"] == 1
        assert not own.exists()


def test_a_file_of_ones_own_under_a_publishers_name_is_not_replaced(host, tmp_path):
    own = tmp_path / "google-landmarks-v2/gallery/images_000.tar"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"my holiday")
    with pytest.raises(LmrError, match="lmr has not fetched it") as told:
        fetch(GLD, tmp_path, prune=1, mirror=host.url)
    assert "move it away" in told.value.fix
    assert own.read_bytes() == b"my holiday"


def test_a_damaged_archive_is_told_deleted_and_fetched_again(tmp_path):
    files = revisited()
    whole = dict(files)
    files["oxbuild_images-v1.tgz"] = files["oxbuild_images-v1.tgz"][:-300]
    files["revisitop1m.1.tar.gz"] = files["revisitop1m.1.tar.gz"][:-20]
    with hosted(files) as host:
        with pytest.raises(LmrError, match=r"oxbuild_images-v1.tgz is damaged"):
            fetch(OXFORD, tmp_path, mirror=host.url)
        with pytest.raises(LmrError, match=r"revisitop1m.1.tar.gz is damaged"):
            fetch(OXFORD, tmp_path, mirror=host.url, parts=("distractors",), prune=1)
        host.files.update(whole)
        assert len(usable(fetch(OXFORD, tmp_path, mirror=host.url).ready)[0]) == 4


def test_a_hostile_ground_truth_and_archive_do_nothing(tmp_path):
    files = revisited()
    outside = {"../../evil.jpg": photo(1), "/evil.jpg": photo(1), "../keble_000003.jpg": photo(2)}
    outside["../../../all_souls_000013.jpg"] = photo(3)
    files["oxbuild_images-v1.tgz"] = tar_of(outside, "w:gz")
    with hosted(files) as host:
        fetched = fetch(OXFORD, tmp_path, mirror=host.url)
        assert "4 photos of the ground truth are not in the archives" in fetched.news[0]
    assert not list(tmp_path.rglob("evil*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["revisited-oxford"]
    files["gnd_roxford5k.pkl"] = pickle.dumps({**truth(), "x": json.loads}, 2)
    with hosted(files) as host, pytest.raises(LmrError, match="it was not run"):
        fetch(OXFORD, tmp_path / "other", mirror=host.url)


def test_ilias_is_sorted_into_queries_and_gallery(tmp_path):
    with hosted(ilias()) as host:
        fetched = fetch(find_collection("ilias"), tmp_path, mirror=host.url)
    _, queries, right = usable(fetched.ready)
    assert queries == ["Q000_00", "Q999_00"]
    assert right == {"Q000_00": ["P000_00", "P000_01"], "Q999_00": ["P999_00"]}
    assert (tmp_path / "ilias/annotations/bold_bimp_000/Q000_00_bbox.txt").read_text() == "1 2 3 4\n"


def test_a_part_alone_says_what_a_run_still_needs_and_unknown_parts_are_told(host, tmp_path):
    alone = fetch(GLD, tmp_path, parts=("index",), prune=1, mirror=host.url)
    assert alone.ready is None
    assert alone.news[0].endswith("--part solution --part test")
    assert (tmp_path / "google-landmarks-v2/gallery/images_000.tar").is_file()
    assert fetch(GLD, tmp_path, parts=("solution", "test"), prune=1, mirror=host.url).ready
    with pytest.raises(LmrError, match="no such part") as caught:
        fetch(GLD, tmp_path, parts=("tset",))
    assert "did you mean test?" in caught.value.fix


def test_a_full_disk_while_unpacking_is_told(tmp_path):
    folder = tmp_path / "revisited-oxford/gallery"
    folder.mkdir(parents=True)
    (folder / "keble_000003.jpg").symlink_to("/dev/full")
    with hosted(revisited()) as host:
        with pytest.raises(StorageError, match="cannot unpack") as caught:
            fetch(OXFORD, tmp_path, mirror=host.url)
        assert "free some space" in caught.value.fix
        (folder / "keble_000003.jpg").unlink()
        host.asked.clear()
        assert fetch(OXFORD, tmp_path, mirror=host.url).ready
        assert not host.asked["oxbuild_images-v1.tgz"]  # it was whole


def test_a_data_set_that_nobody_offers_is_taken_from_its_folder(tmp_path):
    first = find_collection("google-landmarks-v1")
    with pytest.raises(LmrError, match="no longer offers it") as caught:
        fetch(first, tmp_path)
    assert f"{tmp_path}/google-landmarks-v1" in caught.value.fix
    for side, name in (("gallery", "a"), ("queries", "q")):
        (tmp_path / first.name / side).mkdir(parents=True)
        (tmp_path / first.name / side / f"{name}.jpg").write_bytes(photo(1))
    (tmp_path / first.name / "solution.csv").write_text("id,images\nq,a\n")
    assert usable(fetch(first, tmp_path).ready) == (["a"], ["q"], {"q": ["a"]})


def test_folders_of_ones_own_are_data_sets_too(tmp_path):
    with pytest.raises(LmrError, match="no such data set, and no such folder") as caught:
        open_collection("revisited-oxfrod", str(tmp_path))
    assert "did you mean revisited-oxford?" in caught.value.fix
    (tmp_path / "mine/gallery").mkdir(parents=True)
    with pytest.raises(StorageError, match="no data set") as caught:
        open_collection(str(tmp_path / "mine"))
    assert caught.value.got == "it has no queries"
    (tmp_path / "mine/queries").mkdir()
    ready = open_collection(str(tmp_path / "mine"))
    assert ready.solution is None
    mine = f"{tmp_path}/mine"
    assert ready.command() == (
        f"lmr run retrieval --gallery {mine}/gallery --queries {mine}/queries --out runs/mine"
    )
    with pytest.raises(StorageError, match="revisited-oxford is not there") as caught:
        open_collection("revisited-oxford", str(tmp_path))
    assert caught.value.fix == f"lmr dataset fetch revisited-oxford --data {tmp_path}"
