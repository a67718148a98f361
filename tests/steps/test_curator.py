"""The curator's story: a folder as people leave it, one command, results that name files as she does."""

import csv
import os
import shutil

import pytest

from lmr.steps.photos.names import encoded, known_path
from lmr.steps.results.results import open_run
from lmr.testing import World, write_world
from tests.support.world import lmr, submission

WORLD = World(
    landmarks=4,
    gallery_per_landmark=(3, 3),
    queries=4,
    distractors=2,
    queries_without_landmark=0,
    long_side_px=320,
    seed=3,
)
NAMES = (
    "IMG 0042.jpg",
    "Paris, 2019/IMG 0042.jpg",
    'the "tower".jpg',
    "photo[1].jpg",
    "what is this?.jpg",
    "Screenshot 9.41\u202fAM.jpg",
    "cafe\u0301.jpg",
    "eiffel/001.jpg",
    "louvre/001.jpg",
    "=SUM(A1).jpg",
    "#1 100%.jpg",
    "東京::tower.jpg",
    "caf\udce9.jpg",
    "0007.jpg",
)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Her folders, the photo that each query should find by name, and the solution as she writes it."""
    world, mine = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("my photos [all]")
    write_world(WORLD, world)
    called = {}
    for photo, name in zip(sorted((world / "gallery").glob("*.jpg")), NAMES, strict=True):
        target = os.path.join(mine, "gallery", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(photo, target)
        called[photo.stem] = name
    (mine / "gallery" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (mine / "gallery" / "notes.txt").write_text("bring the key")
    (mine / "gallery" / "broken.jpg").write_bytes(b"")
    (mine / "queries").mkdir()
    queries = sorted((world / "queries").glob("*.jpg"))
    for number, photo in enumerate(queries):
        shutil.copy(photo, mine / "queries" / f"my query {number}.jpg")
    with open(world / "solution.csv") as file:
        right = {row["id"]: row["images"].split() for row in csv.DictReader(file)}
    return mine, {n: [called[i] for i in right[q.stem]] for n, q in enumerate(queries)}


def test_one_command_and_results_that_name_files_as_she_knows_them(story, tmp_path):
    mine, right = story
    out = tmp_path / "run"
    folders = ("--gallery", str(mine / "gallery"), "--queries", str(mine / "queries"))
    printed = lmr("run", "retrieval", *folders, "--out", str(out), "--workers", "0")
    assert "2 files left out: 1 .mov, 1 .txt" in printed
    assert "1 photo(s) could not be used" in printed

    # Every query has a line; every id there leads to a file by photos.csv.
    lists = submission(out)
    assert sorted(lists) == [f"my%20query%20{n}.jpg" for n in range(4)]
    with open(out / "photos.csv", newline="") as file:
        paths = {(row["set"], row["id"]): row["path"] for row in csv.DictReader(file)}
    assert len(paths) == len(NAMES) + 1 + 4
    assert paths["queries", "my%20query%200.jpg"] == "my query 0.jpg"
    assert paths["gallery", "0007"] == "0007.jpg"
    assert paths["gallery", "%3DSUM(A1).jpg"] == "'=SUM(A1).jpg"  # shown, never computed
    assert paths["gallery", "the%20%22tower%22.jpg"] == 'the "tower".jpg'
    assert all(("gallery", photo) in paths for photos in lists.values() for photo in photos)

    # Results have the paths themselves.
    matches = open_run(out).matches()
    best = matches[matches["rank"] == 1].set_index("query_path")["photo_path"]
    hits = [best[f"my query {n}.jpg"] in map(known_path, wanted) for n, wanted in right.items()]
    assert sum(hits) >= 3


def test_a_solution_in_her_words_scores_it_and_renaming_makes_nothing_anew(story, tmp_path):
    mine, right = story
    mine = shutil.copytree(mine, tmp_path / "mine", copy_function=shutil.copy2)
    spoken = {"cafe\u0301.jpg": "caf\u00e9", "0007.jpg": "7", "photo[1].jpg": "photo[1]"}
    lines = ["id,images"]
    for number, wanted in right.items():
        names = (spoken.get(name, encoded(name)) for name in wanted)
        lines.append(f"my query {number},{' '.join(names)}")
    (tmp_path / "solution.csv").write_text("\n".join(lines) + "\n")
    command = [
        "run",
        "retrieval",
        *("--gallery", str(mine / "gallery"), "--queries", str(mine / "queries")),
        *("--out", str(tmp_path / "run"), "--workers", "0", "--solution", str(tmp_path / "solution.csv")),
    ]
    lmr(*command)
    run = open_run(tmp_path / "run")
    assert run.scores["verify"] > 0.5
    made = parts(tmp_path / "run", "images", "local", "global")
    # She renames one photo, and adds the other kind of it.
    (mine / "gallery" / "photo[1].jpg").rename(mine / "gallery" / "the bridge, at night.jpg")
    lmr(*command[:-2])
    assert parts(tmp_path / "run", "images", "local", "global") == made
    again = open_run(tmp_path / "run")
    assert "the bridge, at night.jpg" in set(again.photos()["path"])
    shutil.copy(mine / "gallery" / "0007.jpg", mine / "gallery" / "0007.png")
    printed = lmr(*command[:-2])
    assert "1 photo of the gallery is new to this run" in " ".join(printed.split())
    assert made.items() <= parts(tmp_path / "run", "images", "local", "global").items()
    found = open_run(tmp_path / "run").photos()
    assert {"0007.jpg", "0007.png"} <= set(found["id"])


def parts(run, *folders):
    """Return the shards of some datasets with the time at which each was written."""
    return {p: p.stat().st_mtime_ns for f in folders for p in sorted((run / f).rglob("part-*"))}
