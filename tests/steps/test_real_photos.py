"""The workflow on a part of the real development photos, where they are present."""

import csv
import shutil

import pytest

from tests.support.shared import shared
from tests.support.world import lmr, scores

LANDMARKS = 12
DISTRACTORS = 60


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Twelve landmarks with all their photos, and some distractors, as links into the shared folder."""
    photos = shared("data/landmarks")
    folder = tmp_path_factory.mktemp("photos")
    with open(photos / "photos.csv") as file:
        rows = list(csv.DictReader(file))
    of_query = {r["id"]: r["landmark"] for r in rows if r["set"] == "query"}
    wanted = sorted({name for name in of_query.values() if name})[::6][:LANDMARKS]
    distractors = [r["id"] for r in rows if r["set"] == "gallery" and not r["landmark"]][:DISTRACTORS]
    gallery = {r["id"] for r in rows if r["set"] == "gallery" and r["landmark"] in wanted} | set(distractors)
    queries = {query for query, name in of_query.items() if name in wanted}
    for name, source, chosen in (("gallery", "gallery", gallery), ("queries", "query", queries)):
        (folder / name).mkdir()
        for photo in chosen:
            shutil.copy(photos / source / f"{photo}.jpg", folder / name)
    with open(photos / "retrieval_solution.csv") as file:
        truth = {r["id"]: r["images"] for r in csv.DictReader(file) if r["id"] in queries}
    lines = [f"{q},{' '.join(i for i in truth[q].split() if i in gallery)}" for q in sorted(queries)]
    (folder / "solution.csv").write_text("\n".join(["id,images", *lines]) + "\n")
    return folder


def run(part, out, *more):
    lmr(
        "run",
        "workflows/retrieval.py",
        *("--gallery", str(part / "gallery"), "--queries", str(part / "queries")),
        *("--solution", str(part / "solution.csv"), "--out", str(out), "--workers", "2"),
        *("--set", "local.max_side_px=640", *more),
    )
    return scores(out)


@pytest.mark.slow
@pytest.mark.cluster
def test_the_steps_find_landmarks_with_vlad(part, tmp_path):
    found = run(part, tmp_path / "run")
    assert found["search"] > 0.6
    assert found["diffuse"] > found["rank"]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_steps_find_landmarks_with_a_network(part, tmp_path):
    pytest.importorskip("torch")
    weights = shared("weights/mobilenet_v2_imagenet.pth")
    more = ("--global", "gem", "--weights", str(weights), "--set", "describe.dimension=64")
    found = run(part, tmp_path / "run", *more)
    assert found["rank"] > 0.5
    assert found["diffuse"] > found["search"]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("features", "weights", "storage"),
    [
        ("xfeat", "weights/xfeat/xfeat_folded.npz", "int8"),
        ("aliked-t16", "weights/aliked/aliked-t16.pth", "float16"),
    ],
)
def test_learned_local_features_do_the_same_job(part, tmp_path, features, weights, storage):
    pytest.importorskip("kornia")
    choice = ("--local", features, "--local-weights", str(shared(weights)))
    sizes = ("--set", "local.max_features=600", "--set", f"local.storage={storage}")
    found = run(part, tmp_path / "run", *choice, *sizes)
    assert found["search"] > 0.4
    assert found["diffuse"] > 0.4
