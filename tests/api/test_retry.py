"""`lmr retry` tries again what may pass and only that, and makes again only what depends on it."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lmr import storage
from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.api.retry import prepare_again, retry_failed
from lmr.cluster.client import Where
from lmr.errors import LmrError, StorageError
from lmr.steps.results.folder.datasets import open_datasets
from tests.features.test_decode import file, noise
from tests.support.photo_host import PhotoHost
from tests.support.world import lmr, submission

WORKFLOW = str(Path(__file__).parents[1] / "support" / "web_workflow.py")
NAMES = [f"p{i}.jpg" for i in range(10)]
PHOTOS = {name: file(noise(120, 100 + 10 * i)) for i, name in enumerate(NAMES)}


@pytest.fixture
def host():
    with PhotoHost(PHOTOS) as started:
        yield started


@pytest.fixture
def queries(tmp_path):
    folder = tmp_path / "queries"
    folder.mkdir()
    for name in ("p1.jpg", "p5.jpg"):
        (folder / f"q{name}").write_bytes(PHOTOS[name])
    return folder


def run(tmp_path, gallery, queries):
    return lmr(
        *("run", WORKFLOW, "--gallery", str(gallery), "--queries", str(queries)),
        *("--out", str(tmp_path / "run"), "--workers", "0"),
    )


def retry(tmp_path):
    return " ".join(lmr("retry", str(tmp_path / "run"), "--workers", "0").split())


def contents(tmp_path):
    """Path below the run's folder to digest, of all shards of steps that are made shard by shard."""
    root = tmp_path / "run"
    found = [one for part in ("images", "features") for one in (root / part).rglob("*.parquet")]
    return {one.relative_to(root): hashlib.sha256(one.read_bytes()).hexdigest() for one in found}


def features(tmp_path):
    """Return when and how long each shard of features of the gallery was made, and what it holds."""
    made = open_datasets(str(tmp_path / "run")).local.gallery
    facts = [made.facts(shard) for shard in range(made.shards)]
    return [(one["seconds"], one["peak_bytes"], made.read(i)) for i, one in enumerate(facts)]


def unusable(tmp_path):
    """Name to reason, of the photos of the gallery that are not used."""
    datasets = open_datasets(str(tmp_path / "run"))
    paths = datasets.photos.gallery.read(0, ["path"]).column("path").to_pylist()
    rows = datasets.unusable.read(0).to_pylist()
    return {paths[row["photo"]].rpartition("/")[2]: row["reason"] for row in rows}


@pytest.mark.slow
def test_what_may_pass_is_tried_again_and_nothing_else(host, queries, tmp_path):
    gallery = tmp_path / "gallery.txt"
    gallery.write_text("".join(f"{host.url}/{name}\n" for name in [*NAMES, "gone.jpg"]))
    host.down = {"p5.jpg", "p6.jpg"}
    said = run(tmp_path, gallery, queries)
    assert "lmr retry RUN" in " ".join(said.split())
    busy = "web: 503 Service Unavailable"
    assert unusable(tmp_path) == {"gone.jpg": "web: 404 Not Found", "p5.jpg": busy, "p6.jpg": busy}
    assert "p5" not in submission(tmp_path / "run")["qp5"]

    # While the host is down, nothing is made again.
    before, first = contents(tmp_path), features(tmp_path)
    host.asked.clear()
    said = retry(tmp_path)
    assert f"0 of 2 are there now; still not: 2 {busy} nothing is made again" in said
    assert dict(host.asked) == {"/p5.jpg": 1, "/p6.jpg": 1}
    assert contents(tmp_path) == before

    # One of them is there again: it alone is had, and found by its query.
    host.down = {"p6.jpg"}
    host.asked.clear()
    said = retry(tmp_path)
    assert f"1 of 2 is there now; still not: 1 {busy}" in said
    assert dict(host.asked) == {"/p5.jpg": 1, "/p6.jpg": 1}
    assert unusable(tmp_path) == {"gone.jpg": "web: 404 Not Found", "p6.jpg": busy}
    assert submission(tmp_path / "run")["qp5"][0] == "p5"
    # Of three shards one was written anew, and its features were made again; those of the others were kept.
    assert "shards that change: ingest 1," in said
    after = features(tmp_path)
    assert [after[shard] == first[shard] for shard in range(3)] == [True, False, True]

    # To run the same command is to go on: nothing is asked, nothing is made.
    host.asked.clear()
    said = run(tmp_path, gallery, queries)
    assert "nothing was left to do" in said
    assert not host.asked
    assert not list((tmp_path / "run" / "retried").rglob("*.parquet"))

    # And the gallery may grow: what was had at a later try is known.
    host.photos["new.jpg"] = file(noise(99, 99))
    gallery.write_text(gallery.read_text() + f"{host.url}/new.jpg\n")
    said = " ".join(run(tmp_path, gallery, queries).split())
    assert "1 photo of the gallery is new to this run, which knows 11" in said
    assert dict(host.asked) == {"/new.jpg": 1}


def test_a_photo_of_other_bytes_is_tried_again_too(queries, tmp_path):
    folder = tmp_path / "gallery"
    folder.mkdir()
    for name in NAMES[:3]:
        (folder / name).write_bytes(PHOTOS[name])
    digests = {name: hashlib.sha256(PHOTOS[name]).hexdigest() for name in NAMES[:3]}
    stamp = (folder / "p1.jpg").stat()
    (folder / "p1.jpg").write_bytes(PHOTOS["p1.jpg"][:-1] + b"\0")
    os.utime(folder / "p1.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (folder / "list.csv").write_text("path,sha256\n" + "".join(f"{n},{d}\n" for n, d in digests.items()))
    run(tmp_path, folder / "list.csv", queries)
    assert unusable(tmp_path)["p1.jpg"].startswith("other bytes than its list tells of")
    (folder / "p1.jpg").write_bytes(PHOTOS["p1.jpg"])
    os.utime(folder / "p1.jpg", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert "1 of 1 is there now" in retry(tmp_path)
    assert unusable(tmp_path) == {}
    assert "no photo failed for a reason that may pass" in retry(tmp_path)


def test_shards_that_failed_are_made(queries, tmp_path, monkeypatch):
    monkeypatch.setenv("LMR_STORAGE_PATIENCE", "0")
    folder = tmp_path / "gallery"
    folder.mkdir()
    for name in NAMES[:6]:
        (folder / name).write_bytes(PHOTOS[name])
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in NAMES[:6]))
    read = storage.read_outside
    closed = StorageError("cannot be read", got="closed", fix="open it")
    monkeypatch.setattr(
        storage,
        "read_outside",
        lambda pieces, **more: [
            closed if piece.url.endswith("p5.jpg") and "gallery" in piece.url else one
            for piece, one in zip(pieces, read(pieces, **more), strict=True)
        ],
    )
    with pytest.raises(LmrError, match="photos of a shard cannot be read"):
        run(tmp_path, folder / "list.txt", queries)
    monkeypatch.setattr(storage, "read_outside", read)
    said = retry(tmp_path)
    assert "no photo failed for a reason that may pass; " in said
    assert "shards are missing, and are made now" in said
    assert submission(tmp_path / "run")["qp5"][0] == "p5"


def test_a_try_that_is_broken_off_leaves_the_run_as_it_was(host, queries, tmp_path, monkeypatch):
    gallery = tmp_path / "gallery.txt"
    gallery.write_text("".join(f"{host.url}/{name}\n" for name in NAMES))
    host.down = {"p5.jpg"}
    run(tmp_path, gallery, queries)
    host.down = set()
    prepared = prepare_again(str(tmp_path / "run"))

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lmr.api.retry.adopt", broken)
    with pytest.raises(KeyboardInterrupt):
        retry_failed(prepared, Where())
    monkeypatch.undo()
    host.asked.clear()
    assert "nothing was left to do" in run(tmp_path, gallery, queries)
    assert "p5.jpg" in unusable(tmp_path)
    # What was had is not fetched once more.
    assert "1 of 1 is there now" in retry(tmp_path)
    assert not host.asked
    assert unusable(tmp_path) == {}


def test_the_labels_of_a_run_are_those_of_its_retry(queries, tmp_path):
    folder = tmp_path / "gallery"
    for name in NAMES[:4]:
        place = folder / "a folder that is no landmark" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PHOTOS[name])
    labels = tmp_path / "labels.csv"
    labels.write_text("id,landmark\n" + "".join(f"p{i},place{i % 2}\n" for i in range(4)))
    root = str(tmp_path / "run")
    choices = Choices(out=root, gallery=str(folder), queries=str(queries), labels=str(labels))
    first = prepare("recognition", replace(choices, descriptor="vlad"))
    first.remember()
    again = prepare_again(root)
    assert again.flow.inputs.labels.names == ("place0", "place1")
    assert [one.fingerprint for one in again.flow.targets] == [one.fingerprint for one in first.flow.targets]
    # An earlier lmr did not note them: its runs are not retried with the folders for labels.
    del first.about["choices"]["labels"]
    first.remember()
    with pytest.raises(LmrError, match="an earlier lmr made this run"):
        prepare_again(root)


def test_runs_that_cannot_be_retried_say_so(tmp_path):
    with pytest.raises(StorageError, match="no finished run here"):
        lmr("retry", str(tmp_path / "nothing"))
