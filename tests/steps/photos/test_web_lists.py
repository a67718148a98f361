"""Lists of web addresses and of digests: a photo or a row with a reason, and which reasons may pass."""

import hashlib
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import parse_submission, submission_csv
from lmr.steps.photos.digests import check_digests
from lmr.steps.photos.ingest import MAY_PASS, IngestSettings, ingest, ingest_shard
from lmr.steps.photos.listing import list_photos
from lmr.steps.photos.web import WebSettings
from lmr.storage.arrow import note_of
from tests.features.test_decode import file, noise, scene
from tests.support.odd_names import ODD_NAMES
from tests.support.photo_host import PhotoHost

PHOTOS = {"a.jpg": file(scene()), "b c.png": file(scene(), "PNG"), "large.jpg": file(noise(900, 900))}
HERE = WebSettings(private=True, tries=1, timeout_seconds=2)


@pytest.fixture(scope="module")
def host():
    with PhotoHost(PHOTOS) as started:
        yield started


def listed(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return list_photos("gallery", str(path))


def ingested(photos, root, settings=None, web=HERE):
    settings = settings or IngestSettings(photos_per_shard=len(photos))
    given = photos.given()
    given.store(str(root))
    rows = ingest_shard(0, settings, photos=given.dataset(str(root)), url=photos.url, web=web)
    return rows, dict(zip(photos.paths, rows.to_pylist(), strict=True))


def test_a_list_of_addresses_and_of_files_beside_each_other(host, tmp_path):
    (tmp_path / "own.jpg").write_bytes(PHOTOS["a.jpg"])
    outcomes = {
        "own.jpg": ("", ""),
        f"{host.url}/a.jpg": ("", ""),
        f"{host.url}/b c.png": ("", ""),
        f"{host.url}/b%20c.png?as=another": ("", ""),
        f"{host.url}/large.jpg": (
            f"too large: {len(PHOTOS['large.jpg']):,} bytes; at most 100,000 are read of a web address",
            "",
        ),
        f"{host.url}/gone.jpg": ("web: 404 Not Found", ""),
        f"{host.url}/fault/page": ("not an image", ""),
        f"{host.url}/fault/empty": ("empty file", ""),
        f"{host.url}/fault/busy": ("web: 503 Service Unavailable", MAY_PASS),
        f"{host.url}/fault/drop": ("web: the connection was dropped", MAY_PASS),
    }
    photos = listed(tmp_path / "list.txt", outcomes)
    assert len(photos) == len(outcomes)
    settings = IngestSettings(photos_per_shard=20, web_max_bytes=100_000)
    web = WebSettings(private=True, tries=1)
    rows, found = ingested(photos, tmp_path / "run", settings, web)
    assert {path: (row["reason"], row["note"]) for path, row in found.items()} == outcomes
    assert found[f"{host.url}/a.jpg"]["image"] == found["own.jpg"]["image"] == PHOTOS["a.jpg"]
    assert "lmr retry RUN" in note_of(rows)
    # Without the setting, this machine is none that a list may lead to.
    _, found = ingested(photos, tmp_path / "run", settings, WebSettings())
    assert found[f"{host.url}/a.jpg"]["reason"] == "web: 127.0.0.1 is a private address"
    assert found["own.jpg"]["reason"] == ""


def test_a_task_states_its_memory_and_keeps_it(host, tmp_path, monkeypatch):
    photos = listed(tmp_path / "list.txt", [f"{host.url}/large.jpg?{i}" for i in range(10)])
    (step,) = ingest(photos, IngestSettings(), HERE).parts
    assert step.placement["web"] == HERE
    assert step.check is None
    assert step.cost.task_bytes >= 10 * 16_000_000
    size = len(PHOTOS["large.jpg"])
    monkeypatch.setattr("lmr.steps.photos.ingest.WEB_SHARD_BYTES", 4 * size + 10)
    _, found = ingested(photos, tmp_path / "run")
    reasons = [row["reason"] for row in found.values()]
    assert reasons[:4] == [""] * 4
    assert all(one.startswith("no room in its shard") for one in reasons[4:])


def test_lists_on_the_web_are_not_looked_at_when_they_are_read(host, tmp_path):
    before = sum(host.asked.values())
    photos = listed(tmp_path / "list.txt", [f"{host.url}/{i}.jpg" for i in range(1000)])
    assert sum(host.asked.values()) == before
    assert len(set(photos.stamps)) == 1000
    assert photos.ids[0] == "0"


def test_photos_of_odd_names_on_the_web(tmp_path):
    names = [name for name in ODD_NAMES if "?" not in name]  # in an address it begins a question
    data = {name: file(noise(20 + number, 24)) for number, name in enumerate(names)}
    with PhotoHost(data) as host:
        photos = listed(tmp_path / "list.txt", [f"{host.url}/{quote(name)}" for name in names])
        web = WebSettings(private=True)
        _, found = ingested(photos, tmp_path / "run", web=web)
        for name in names:
            row = found[f"{host.url}/{quote(name)}"]
            assert (row["reason"], row["image"]) == ("", data[name])
    assert len(set(photos.ids)) == len(names) >= 60
    lists = {query: list(photos.ids[:50]) for query in photos.ids}
    assert dict(parse_submission(submission_csv(lists))) == lists


def digest_list(folder, rows):
    (folder / "list.csv").write_text("path,sha256,md5\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return list_photos("gallery", str(folder / "list.csv"))


def test_photos_of_other_bytes_than_the_list_tells_are_rows_with_a_reason(host, tmp_path):
    data = PHOTOS["a.jpg"]
    sha, md5 = hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()
    for name in ("right.jpg", "wrong.jpg", "none.jpg"):
        (tmp_path / name).write_bytes(data)
    photos = digest_list(
        tmp_path,
        [
            ("right.jpg", sha.upper(), md5),
            ("wrong.jpg", "", "0" * 32),
            ("none.jpg", "", ""),
            (f"{host.url}/a.jpg", sha, ""),
            (f"{host.url}/b%20c.png", sha, ""),
        ],
    )
    _, found = ingested(photos, tmp_path / "run")
    png = hashlib.sha256(PHOTOS["b c.png"]).hexdigest()
    assert {path.rpartition("/")[2]: (row["reason"], row["note"]) for path, row in found.items()} == {
        "right.jpg": ("", ""),
        "none.jpg": ("", ""),
        "a.jpg": ("", ""),
        "wrong.jpg": (f"other bytes than its list tells of: md5 {md5[:12]}…, not 000000000000…", MAY_PASS),
        "b%20c.png": (f"other bytes than its list tells of: sha256 {png[:12]}…, not {sha[:12]}…", MAY_PASS),
    }
    # A digest belongs to what a photo is; where none is given, the list is that of a folder.
    names = ["right.jpg", "wrong.jpg", "none.jpg"]
    plain = listed(tmp_path / "list.txt", names).given().fingerprint
    assert digest_list(tmp_path, [(name, "", "") for name in names]).given().fingerprint == plain
    assert digest_list(tmp_path, [(name, sha, "") for name in names]).given().fingerprint != plain


def test_parquet_lists_hold_digests_too_and_wrong_ones_are_all_told(tmp_path):
    data = PHOTOS["a.jpg"]
    (tmp_path / "a.jpg").write_bytes(data)
    pq.write_table(
        pa.table({"path": ["a.jpg"], "SHA256": [hashlib.sha256(data).hexdigest()]}), tmp_path / "list.parquet"
    )
    photos = list_photos("gallery", str(tmp_path / "list.parquet"))
    assert photos.stamps[0].endswith(f"sha256:{hashlib.sha256(data).hexdigest()}")
    check_digests(data, photos.stamps[0])
    with pytest.raises(LmrError, match=r"2 digests of .* are none") as caught:
        digest_list(tmp_path, [("a.jpg", "ab", "x" * 32)])
    assert "a.jpg: sha256 ab, a.jpg: md5 xxx" in caught.value.got
    assert digest_list(tmp_path, [("a.jpg", "a" * 64, "")]).paths == ("a.jpg",)  # the fix
