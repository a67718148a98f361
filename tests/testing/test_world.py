"""The plan of a world, its pixels, and the truth that goes with them."""

import csv
import hashlib
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError, SettingsError, StorageError
from lmr.testing import PhotoSpec, World, face_homography, jpeg, photos, render, write_world

SMALL = World(
    landmarks=3,
    gallery_per_landmark=(2, 4),
    queries=5,
    queries_without_landmark=1,
    distractors=6,
    long_side_px=128,
    seed=3,
)


def _digest(world: World, specs: list[PhotoSpec]) -> str:
    whole = hashlib.sha256()
    for spec in specs:
        whole.update(render(world, spec).tobytes())
        whole.update(jpeg(world, spec))
    return whole.hexdigest()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 9),
    st.integers(0, 30),
    st.integers(0, 8),
    st.integers(0, 60),
    st.integers(0, 2**40),
)
def test_the_plan_holds_what_the_world_asks_for(
    landmarks: int, fewest: int, more: int, queries: int, without: int, distractors: int, seed: int
) -> None:
    world = World(
        landmarks=landmarks,
        gallery_per_landmark=(fewest, fewest + more),
        queries=queries + without,
        queries_without_landmark=without,
        distractors=distractors,
        seed=seed,
    )
    specs = photos(world)
    assert specs == photos(world)
    assert len({s.id for s in specs}) == len(specs)
    assert all(len(s.id) == 16 and int(s.id, 16) >= 0 for s in specs)
    gallery, asked = ([s for s in specs if s.set == which] for which in ("gallery", "query"))
    counts: dict[str, int] = {}
    for spec in gallery:
        counts[spec.landmark] = counts.get(spec.landmark, 0) + 1
    assert counts.pop("", 0) == distractors
    assert len(counts) == landmarks
    assert all(fewest <= n <= fewest + more for n in counts.values())
    assert len(asked) == queries + without
    assert sum(s.landmark == "" for s in asked) == without
    assert {s.landmark for s in asked} - {""} <= set(counts)


def test_a_landmark_with_three_photos_has_the_chain_of_views() -> None:
    for world in (World(), World(seed=1)):
        views: dict[str, set[str]] = {}
        sizes: dict[str, int] = {}
        for spec in photos(world):
            if spec.set == "gallery" and spec.landmark:
                views.setdefault(spec.landmark, set()).add(spec.view)
                sizes[spec.landmark] = sizes.get(spec.landmark, 0) + 1
        assert any(n >= 3 for n in sizes.values())
        for name, n in sizes.items():
            if n >= 3:
                assert {"front", "front-right", "right"} <= views[name]


def test_ids_follow_no_order_of_landmarks() -> None:
    names = [s.landmark for s in photos(World(landmarks=50, seed=2)) if s.set == "gallery" and s.landmark]
    # Neighbours by id share a landmark about as often as any two photos do.
    together = np.mean([a == b for a, b in pairwise(names)])
    assert together < 0.1


def test_pixels_are_the_same_again_and_in_another_process() -> None:
    here = _digest(SMALL, photos(SMALL))
    assert _digest(SMALL, photos(SMALL)) == here
    program = (
        "from tests.testing.test_world import SMALL, _digest\n"
        "from lmr.testing import photos\n"
        "print(_digest(SMALL, photos(SMALL)))"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_a_photo_does_not_depend_on_what_was_rendered_before() -> None:
    specs = photos(SMALL)
    forward = {s.id: render(SMALL, s) for s in specs}
    for spec in reversed(specs):
        np.testing.assert_array_equal(render(SMALL, spec), forward[spec.id])


def test_photos_differ_and_have_the_size_and_form_asked_for() -> None:
    rendered = [render(SMALL, s) for s in photos(SMALL)]
    for photo in rendered:
        assert photo.dtype == np.uint8
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        assert max(photo.shape[:2]) == SMALL.long_side_px
        assert photo.std() > 3  # shows something
    assert len({photo.tobytes() for photo in rendered}) == len(rendered)
    other = World(**{**SMALL.__dict__, "seed": 4})
    assert _digest(other, photos(other)) != _digest(SMALL, photos(SMALL))


def test_all_subjects_are_rendered() -> None:
    world = World(landmarks=0, queries=0, queries_without_landmark=0, distractors=60, long_side_px=96)
    first = {s.subject: s for s in reversed(photos(world))}
    assert set(first) == {"building", "landscape", "room", "closeup"}
    for spec in first.values():
        assert render(world, spec).shape[2] == 3


def test_matching_photos_of_one_front_finds_the_true_homography() -> None:
    """End to end: SIFT matches between photos of one landmark's front obey `face_homography`."""
    world = World(
        landmarks=12, gallery_per_landmark=(6, 8), queries=0, queries_without_landmark=0, distractors=0
    )
    fronts: dict[str, list[PhotoSpec]] = {}
    for spec in photos(world):
        if spec.view == "front":
            fronts.setdefault(spec.landmark, []).append(spec)
    sift, agreeing, tried = cv2.SIFT_create(800), 0, 0
    for specs in list(fronts.values())[:6]:
        if len(specs) < 2:
            continue
        tried += 1
        seen = [sift.detectAndCompute(render(world, s), None) for s in specs[:2]]
        matches = cv2.BFMatcher(crossCheck=True).match(seen[0][1], seen[1][1])
        best = sorted(matches, key=lambda m: m.distance)[:25]
        a = np.array([seen[0][0][m.queryIdx].pt for m in best])
        b = np.array([seen[1][0][m.trainIdx].pt for m in best])
        truth = face_homography(world, specs[1], "front") @ np.linalg.inv(
            face_homography(world, specs[0], "front")
        )
        mapped = cv2.perspectiveTransform(a[None], truth)[0]
        agreeing += int((np.linalg.norm(mapped - b, axis=1) < 3).sum() >= 8)
    assert tried >= 4
    assert agreeing >= tried // 2


def test_face_homography_refuses_what_is_not_shown() -> None:
    world = World()
    front = next(s for s in photos(world) if s.view == "front" and s.subject == "building")
    assert face_homography(world, front, "front").shape == (3, 3)
    with pytest.raises(LmrError, match="does not show the back"):
        face_homography(world, front, "back")
    with pytest.raises(LmrError, match="four sides"):
        face_homography(world, front, "top")
    other = next(s for s in photos(world) if s.subject == "room")
    with pytest.raises(LmrError, match="shows no building"):
        face_homography(world, other, "front")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"queries": 3, "queries_without_landmark": 4}, "cannot exceed"),
        ({"gallery_per_landmark": (5, 2)}, "fewest, most"),
        ({"landmarks": 0}, "none to query"),
        ({"long_side_px": 16}, "out of range"),
        ({"distractors": -1}, "whole numbers"),
        ({"seed": 0.5}, "whole numbers"),
    ],
)
def test_an_impossible_world_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        World(**change)  # type: ignore[arg-type]


def _tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def test_the_folder_holds_the_photos_and_their_truth(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_world(SMALL, tmp_path, progress=lambda done, of: calls.append((done, of)))
    specs = photos(SMALL)
    for spec in specs:
        path = tmp_path / ("gallery" if spec.set == "gallery" else "queries") / f"{spec.id}.jpg"
        assert path.read_bytes() == jpeg(SMALL, spec)
        seen = cv2.imread(str(path))[..., ::-1].astype(float)
        drawn = render(SMALL, spec).astype(float)
        assert np.abs(seen - drawn).mean() < 12  # RGB was not swapped, and compression is compression
    assert len(_tree(tmp_path)) == len(specs) + 3
    assert calls[0] == (0, len(specs))
    assert calls[-1] == (len(specs), len(specs))

    with (tmp_path / "landmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["id"], r["set"], r["landmark"]) for r in rows] == [(s.id, s.set, s.landmark) for s in specs]
    with (tmp_path / "solution.csv").open() as file:
        solution = {row["id"]: row["images"].split() for row in csv.DictReader(file)}
    landmark = {s.id: s.landmark for s in specs}
    assert set(solution) == {s.id for s in specs if s.set == "query"}
    for query, images in solution.items():
        wanted = {s.id for s in specs if s.set == "gallery" and s.landmark and s.landmark == landmark[query]}
        assert set(images) == wanted
        assert len(images) == len(wanted)
        assert bool(images) == bool(landmark[query])


def test_writing_again_writes_nothing_and_a_lost_photo_comes_back(tmp_path: Path) -> None:
    write_world(SMALL, tmp_path)
    before = _tree(tmp_path)
    write_world(SMALL, tmp_path)
    assert _tree(tmp_path) == before
    lost = next((tmp_path / "gallery").iterdir())
    content = lost.read_bytes()
    lost.unlink()
    write_world(SMALL, tmp_path)
    assert lost.read_bytes() == content
    after = _tree(tmp_path)
    name = str(lost.relative_to(tmp_path))
    assert {k: v for k, v in after.items() if k != name} == {k: v for k, v in before.items() if k != name}


def test_workers_write_the_same_bytes(tmp_path: Path) -> None:
    world = World(
        landmarks=4, gallery_per_landmark=(2, 3), queries=6, distractors=10, long_side_px=96, seed=8
    )
    write_world(world, tmp_path / "one")
    write_world(world, tmp_path / "two", workers=2)
    one, two = ({k: v[1] for k, v in _tree(tmp_path / n).items()} for n in ("one", "two"))
    assert one == two


def test_a_folder_with_another_world_is_refused(tmp_path: Path) -> None:
    write_world(SMALL, tmp_path)
    before = _tree(tmp_path)
    with pytest.raises(StorageError, match="another world"):
        write_world(World(**{**SMALL.__dict__, "seed": 99}), tmp_path)
    assert _tree(tmp_path) == before


def test_foreign_files_and_unusable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(StorageError, match="not a world's"):
        write_world(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "holiday.jpg"]
    with pytest.raises(StorageError, match="cannot be written"):
        write_world(SMALL, tmp_path / "holiday.jpg" / "below")
    with pytest.raises(SettingsError, match="workers"):
        write_world(SMALL, tmp_path / "new", workers=0)
