"""What is asked of a finished run works on one of every kind: of recognition, without copies, and grown."""

import shutil

import numpy as np
import pytest

import lmr as library
from lmr.api.groups import declare_groups
from lmr.api.reopen import reopen
from lmr.runtime.graph import make_plan
from lmr.testing import write_world
from tests.steps.test_lost_shards import SMALL
from tests.support.world import lmr


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds") / "world"
    write_world(SMALL, folder)
    return folder


def photos(world):
    return sorted((world / "gallery").iterdir())


def command(workflow, gallery, world, out, *more):
    lmr(
        *("run", workflow, "--gallery", str(gallery), "--queries", str(world / "queries")),
        *("--out", str(out), "--workers", "0", *more),
    )


@pytest.fixture(scope="module")
def recognition(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recognition")
    for i, photo in enumerate(photos(world)):
        (folder / "gallery" / f"place {i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder / "gallery" / f"place {i % 2}")
    command("recognition", folder / "gallery", world, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def without_copies(world, tmp_path_factory):
    """A run whose first photo lies in the gallery twice, and whose gallery has grown since it was begun."""
    folder = tmp_path_factory.mktemp("copies")
    shutil.copytree(world / "gallery", folder / "gallery")
    shutil.copy(photos(world)[0], folder / "gallery" / "zz-copy.jpg")
    late = folder / "gallery" / photos(world)[-1].name
    late.rename(folder / "late.jpg")
    keep = ("--set", "duplicates.action=keep")
    command("retrieval", folder / "gallery", world, folder / "run", *keep)
    (folder / "late.jpg").rename(late)
    command("retrieval", folder / "gallery", world, folder / "run", *keep)
    return folder / "run"


@pytest.mark.parametrize("kind", ["recognition", "without_copies"])
def test_a_run_of_every_kind_is_searched_and_grouped(kind, world, request):
    root = request.getfixturevalue(kind)
    search = library.open_search(root)
    for photo in (photos(world)[0], photos(world)[-1]):
        best = search.ask(photo).matches[0]
        assert best.id == photo.stem
        assert best.similarity == pytest.approx(1, abs=0.01)
    lmr("group", str(root), "--workers", "0", "--min-inliers", "4")
    assert (root / "groups.csv").is_file()


def test_clean_leaves_what_the_last_grouping_made(recognition):
    def missing():
        return dict(make_plan([declare_groups(reopen(recognition)).step], str(recognition)).totals)

    lmr("group", str(recognition), "--workers", "0", "--min-inliers", "4")
    lmr("group", str(recognition), "--workers", "0")
    printed = lmr("clean", str(recognition), "--keep", "latest", "--yes")
    assert "grouped" in printed
    assert "gallery_pairs" not in printed
    assert not missing()
    assert "earlier" not in lmr("info", str(recognition))


def test_clean_leaves_the_descriptors_that_a_run_was_given(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    words = []
    for role, count in (("gallery", 12), ("query", 3)):
        np.save(tmp_path / f"{role}.npy", vectors[:count])
        (tmp_path / f"{role}.txt").write_text("\n".join(f"{role}{i}" for i in range(count)))
        words += [
            f"--{role}-descriptors",
            f"{tmp_path}/{role}.npy",
            f"--{role}-ids",
            f"{tmp_path}/{role}.txt",
        ]
    lmr("run", "descriptors", *words, "--out", str(tmp_path / "run"), "--workers", "0")
    assert "nothing to delete" in lmr("clean", str(tmp_path / "run"), "--keep", "latest", "--yes")


def test_a_damaged_note_of_the_grouping_is_told_and_mended(recognition):
    lmr("group", str(recognition), "--workers", "0")
    note = recognition / "groups" / "steps.json"
    whole = note.read_bytes()
    note.write_bytes(b"{")
    with pytest.raises(library.LmrError, match="not what lmr wrote") as told:
        lmr("clean", str(recognition), "--keep", "latest", "--yes")
    assert "lmr group" in told.value.fix
    lmr("group", str(recognition), "--workers", "0")
    assert note.read_bytes() == whole


def test_a_retry_of_photos_that_moved_says_what_helps(world, tmp_path):
    shutil.copytree(world / "gallery", tmp_path / "gallery")
    command("retrieval", tmp_path / "gallery", world, tmp_path / "run")
    (tmp_path / "gallery").rename(tmp_path / "moved")
    with pytest.raises(library.LmrError, match="does not exist") as told:
        lmr("retry", str(tmp_path / "run"), "--workers", "0")
    assert "put the photos back" in told.value.fix
    command("retrieval", tmp_path / "moved", world, tmp_path / "run")
    assert "no photo failed" in lmr("retry", str(tmp_path / "run"), "--workers", "0")
