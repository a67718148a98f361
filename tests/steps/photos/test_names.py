"""Every name that a file system or S3 allows is that of a photo, however it is handed in, and comes back."""

import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import is_plain_id, parse_submission, submission_csv
from lmr.steps.both import Both
from lmr.steps.photos.ingest import IngestSettings, ingest_shard
from lmr.steps.photos.listing import Photos, list_photos
from lmr.steps.photos.names import PhotoNames, encoded, ids_of_paths, known_path, told, url_of
from lmr.steps.results.scores import solution_for
from tests.support.odd_names import NO_UTF8, ODD_NAMES

FOLDER = "[g]*? a::b #%41"
"""The folder's own name is odd too."""


def photo(number):
    """Return a small photo that tells its number by its size."""
    out = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (24, 20 + number, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


PHOTOS = {name: photo(number) for number, name in enumerate((*ODD_NAMES, *NO_UTF8))}


def folder(tmp_path, names):
    root = tmp_path / FOLDER
    for name in names:
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(PHOTOS[name])
    return str(root)


def as_text_list(tmp_path, names):
    names = [name for name in names if "\n" not in name and not name.endswith("\r")]
    url = os.path.join(folder(tmp_path, names), "my list.txt")
    with open(url, "wb") as file:
        file.write(b"".join(os.fsencode(name) + b"\r\n" for name in names))
    return url, names


def as_csv_list(tmp_path, names):
    url = os.path.join(folder(tmp_path, names), "list.csv")
    with open(url, "wb") as file:
        cells = [os.fsencode(name).replace(b'"', b'""') for name in names]
        file.write(b"\xef\xbb\xbfpath,note\r\n" + b"".join(b'"%s",x\r\n' % cell for cell in cells))
    return url, names


def as_parquet_list(tmp_path, names):
    url = os.path.join(folder(tmp_path, names), "list.parquet")
    pq.write_table(pa.table({"path": [os.fsencode(name) for name in names]}), url)
    return url, names


def as_folder(tmp_path, names):
    return folder(tmp_path, names), names


def as_tar(tmp_path, names):
    url = os.path.join(tmp_path, "[t]* ?.tar")
    with tarfile.open(url, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PHOTOS[name])
            archive.addfile(info, io.BytesIO(PHOTOS[name]))
    return url, names


def ingested(listed, root):
    given = listed.given()
    given.store(str(root))
    rows = ingest_shard(
        0, IngestSettings(photos_per_shard=len(listed)), photos=given.dataset(str(root)), url=listed.url
    )
    return rows.to_pylist()


@pytest.mark.parametrize("way", [as_folder, as_text_list, as_csv_list, as_parquet_list, as_tar])
def test_photos_of_every_name_are_read_and_named(tmp_path, way):
    url, names = way(tmp_path, [*ODD_NAMES, *NO_UTF8])
    assert len(names) > 60
    check_all(list_photos("gallery", url), names, tmp_path, prefix="[t]* ?.tar/" if way is as_tar else "")


ON_S3 = [name for name in ODD_NAMES if "\n" not in name]
"""S3 allows line ends in keys; the server of these tests knows no such key."""


def test_on_s3_too(moto_s3, tmp_path):
    url = f"s3://photos/{FOLDER}"
    for name in ON_S3:
        storage.put(f"{url}/{name}", PHOTOS[name])
    storage.put(f"{url}2/other.jpg", PHOTOS["plain.jpg"])
    check_all(list_photos("gallery", url), ON_S3, tmp_path)
    # A list on S3 names the same photos, some by whole URLs; an archive holds them too.
    names = [name for name in ON_S3 if not name.endswith("\r")]
    text = "".join(f"{url}/{name}\n" if row % 2 else f"{name}\n" for row, name in enumerate(names))
    storage.put(f"{url}/list.txt", text.encode())
    listed = list_photos("gallery", f"{url}/list.txt")
    assert sorted(listed.piece(row).url for row in range(len(listed))) == sorted(f"{url}/{n}" for n in names)
    assert {row["reason"] for row in ingested(listed, tmp_path / "list")} == {""}
    local, _ = as_tar(tmp_path, ODD_NAMES)
    with open(local, "rb") as file:
        storage.put("s3://photos/t ars/a[1].tar", file.read())
    check_all(list_photos("gallery", "s3://photos/t ars"), ODD_NAMES, tmp_path / "tar", prefix="a[1].tar/")
    storage.delete(url)
    assert not storage.find(url)
    assert storage.exists(f"{url}2/other.jpg")


def check_all(listed, names, tmp_path, prefix=""):
    assert set(listed.paths) == {known_path(prefix + name) for name in names}
    rows = ingested(listed, tmp_path / "run")
    for row, path in zip(rows, listed.paths, strict=True):
        (name,) = [name for name in names if known_path(prefix + name) == path]
        assert row["image"] == PHOTOS[name]
        assert row["reason"] == ""
    # Ids are those of Kaggle's file: read back by the strict parser they are the same.
    assert len(set(listed.ids)) == len(names)
    assert all(map(is_plain_id, listed.ids))
    lists = {query: list(listed.ids[:50]) for query in listed.ids}
    assert dict(parse_submission(submission_csv(lists))) == lists
    # A solution finds each by its id, by its path as an id holds it, and by its path.
    found = PhotoNames(listed.ids, listed.paths)
    longs = [encoded(path.removeprefix("./")) if path[:2] != "./" else path[2:] for path in listed.paths]
    for row, (photo_id, long, path) in enumerate(zip(listed.ids, longs, listed.paths, strict=True)):
        assert found.find(photo_id) == found.find(long) == row
        # What is one's path may be how another's is encoded: `a%20b.jpg` beside `a b.jpg`.
        assert found.find(path) == (longs.index(path) if path in longs else row)


def test_ordinary_names_are_ids_and_others_are_encoded_paths(tmp_path):
    listed = list_photos("gallery", folder(tmp_path, [*ODD_NAMES, *NO_UTF8]))
    ids = dict(zip(listed.paths, listed.ids, strict=True))
    assert ids["plain.jpg"] == "plain"
    assert ids["photo[1].jpg"] == "photo[1]"
    assert ids["[1].jpg"] == "%5B1].jpg"
    assert ids["two words.jpg"] == "two%20words.jpg"
    assert ids["eiffel/001.jpg"] == "eiffel/001.jpg"
    assert ids["a.jpg"] == "a.jpg"
    assert ids["a.jpg.png"] == "a.jpg.png"
    assert ids["None.jpg"] == "None.jpg"
    assert ids["nan"] == "%6Ean"
    assert ids["東京タワー.jpg"] == "東京タワー"
    assert ids[known_path("caf\udce9.jpg")] == "caf%E9.jpg"
    assert ids["caf%E9.jpg"] == "caf%25E9.jpg"


def test_a_path_is_known_and_leads_back():
    odd = ["/a", "./a", "a//b", "s3://b/c", "a/", *NO_UTF8, *ODD_NAMES]
    assert len({known_path(path) for path in odd}) == len(odd)
    for path in odd:
        if path != "s3://b/c/":
            assert url_of("s3://x/y", known_path(path)) == f"s3://x/y/{path}"
    assert url_of("/list", "/abs/a.jpg") == "/abs/a.jpg"
    assert url_of("/list", "s3://b/a.jpg") == "s3://b/a.jpg"


def photos(role, paths):
    stamps = tuple("10 1" for _ in paths)
    return Photos(role, "/x", ids_of_paths(paths), tuple(paths), stamps)


def solved(solution, gallery, queries, **more):
    both = Both(photos("gallery", gallery), photos("queries", queries))
    rows = solution_for(solution, both, **more).rows.to_pydict()
    return dict(zip(rows["id"], rows["images"], strict=True))


@pytest.mark.parametrize(
    ("called", "path"),
    [
        ("0042", "x/0042.jpg"),
        ("42", "x/0042.jpg"),
        ("000042", "x/0042.jpg"),
        ("0042.jpg", "x/0042.jpg"),
        ("x/0042", "x/0042.jpg"),
        ("x/42", "x/0042.jpg"),
        ("x/0042.jpg", "x/0042.jpg"),
        ("caf\u00e9", "cafe\u0301.jpg"),
        ("cafe\u0301", "caf\u00e9.jpg"),
        ("y/cafe\u0301.jpg", "y/caf\u00e9.jpg"),
        ("a%20b", "a b.jpg"),
        ("d/a%20b.jpg", "d/a b.jpg"),
        ("0", "000.jpg"),
    ],
)
def test_a_solution_finds_photos_by_what_people_call_them(called, path):
    (image,) = solved({"q.png": [called, called]}, [path, "other.jpg"], ["q.png"])["q"]
    assert image == ids_of_paths([path, "other.jpg"])[0]


def test_the_exact_name_comes_first_and_a_name_of_several_finds_none():
    gallery = ["caf\u00e9.jpg", "cafe\u0301.jpg", "1.jpg", "01.jpg", "a/x.jpg", "b/x.jpg"]
    exact = ["caf\u00e9", "cafe\u0301", "1", "01", "a/x", "b/x.jpg"]
    assert solved({"q": exact}, gallery, ["q.jpg"])["q"] == list(ids_of_paths(gallery))
    with pytest.raises(LmrError, match=r"names 2 photos that are not in the gallery\ngot: gallery: x, 001\n"):
        solved({"q": ["x", "001"]}, gallery, ["q.jpg"])


def test_all_that_a_solution_names_in_vain_is_told_at_once_and_look_alikes_differ():
    names = ["n\u00f6", "no\u0308", *(f"g{i}" for i in range(9))]
    solution = {"q": names, "r1": ["a"], "r2": ["a"]}
    with pytest.raises(LmrError) as caught:
        solved(solution, ["a.jpg"], ["q.jpg"])
    assert "2 queries that are not there and 11 photos that are not in the" in caught.value.what
    assert "queries: r1, r2" in caught.value.got
    assert "n\u00f6 ('n\\xf6'), no\u0308 ('no\\u0308'), g0, g1, g2 …" in caught.value.got
    with pytest.raises(LmrError, match="names 1 queries twice"):
        solved({"q": ["a"], "q.jpg": ["a"]}, ["a.jpg"], ["q.jpg"])
    # The fix of the error: the path that it shows is found.
    assert solved({"q": ["d/1.jpg"]}, ["d/1.jpg", "e/1.jpg"], ["q.jpg"]) == {"q": ["d/1.jpg"]}


def test_look_alikes_are_told_apart():
    alike = ["a b", "a\u00a0b", "a\u202fb", "\u0430 b", "caf\u00e9", "cafe\u0301"]
    assert len({told(name) for name in alike}) == len(alike)
