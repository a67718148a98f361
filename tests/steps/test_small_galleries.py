"""Galleries of one photo, of copies, of plain walls or of nothing usable: each query has its line."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from lmr.testing import World, write_world
from tests.support.world import lmr, submission

WAYS = {
    "lite0": (),
    "vlad": ("--global", "vlad"),
    "asmk": ("--global", "vlad", "--set", "search.method=asmk"),
    "offline": ("--global", "vlad", "--set", "diffuse.method=offline"),
    "triangulation": ("--preset", "triangulation"),
    "indexed": (
        "--global",
        "vlad",
        *(f"--set={step}.exact_below=1" for step in ("neighbours", "rank", "graph")),
    ),
}


def plain(side, colour):
    out = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), colour, np.uint8)).save(out, "JPEG")
    return out.getvalue()


# What lies in a gallery, how many of its photos have local features, and how many are photos at all.
GALLERIES = {
    "one photo": (["real"], 1, 1),
    "copies": (["real"] * 4, 4, 4),
    "plain walls": (["wall", "wall"], 0, 2),
    "nothing usable": (["text", "text"], 0, 0),
    "one pixel": (["pixel"], 0, 1),
    "walls and a photo": (["wall", "real", "text"], 1, 2),
}


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    world = World(
        landmarks=1,
        gallery_per_landmark=(2, 2),
        queries=1,
        distractors=0,
        queries_without_landmark=0,
        long_side_px=320,
    )
    write_world(world, folder)
    return min((folder / "gallery").glob("*.jpg"))


@pytest.mark.parametrize("gallery", GALLERIES)
@pytest.mark.parametrize("way", WAYS)
def test_every_query_has_its_line(real, tmp_path, gallery, way):
    contents = {"real": real.read_bytes(), "wall": plain(200, 99), "pixel": plain(1, 9), "text": b"no photo"}
    kinds, featured, photos = GALLERIES[gallery]
    for folder, names in (("gallery", kinds), ("queries", ["real", "wall", "text"])):
        (tmp_path / folder).mkdir()
        for number, kind in enumerate(names):
            (tmp_path / folder / f"{number}.jpg").write_bytes(contents[kind])
    out = tmp_path / "run"
    folders = ("--gallery", str(tmp_path / "gallery"), "--queries", str(tmp_path / "queries"))
    printed = lmr("run", "retrieval", *folders, "--out", str(out), "--workers", "0", *WAYS[way])
    lists = submission(out)
    assert sorted(lists) == ["0", "1", "2"]
    # A network describes a plain wall too; what is no photo is found by nothing.
    network = way == "lite0"
    assert len(lists["0"]) == (photos if network else featured)
    assert len(lists["1"]) == (photos if network else 0)
    assert lists["2"] == []
    assert ("no gallery photo has local features" in " ".join(printed.split())) == (featured == 0)
    shutil.rmtree(out)
