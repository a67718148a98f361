"""Where photos and weights lie, and what device is there, never changes a shard; what is implied follows."""

import shutil

import pytest

from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.listing import list_photos
from tests.support import world as worlds
from tests.support.shared import shared
from tests.support.synthetic_inputs import inputs_of
from workflows.retrieval import PRESETS, build

VARIANTS = {
    "default": {},
    "offline": {"diffuse": {"method": "offline"}},
    "queries as nodes": {"diffuse": {"method": "offline"}, "columns": {"queries_are_nodes": True}},
}


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The same photos in two folders."""
    first = worlds.make(tmp_path_factory.mktemp("photos")) / "queries"
    second = shutil.copytree(first, tmp_path_factory.mktemp("other") / "moved" / "photos")
    return first, second


def made_of(folder, root, settings, device="cpu", weights=None):
    """Ingest and extract; return the rows of every shard of either step, and the fingerprints."""
    photos = list_photos("queries", str(folder)).in_shards_of(4)
    inputs = Inputs(photos=Both(photos, photos), local_weights=weights, device=device)
    images = ingest(photos, IngestSettings(photos_per_shard=4))
    local = extract_local(images, settings, inputs)
    steps = closure(local.source.parts)
    run(steps, str(root))
    datasets = [step.dataset(str(root)) for step in steps]
    assert [step.placement for step in steps] == [
        {"url": str(folder), "moved": {}},
        {"weights": weights, "device": device if weights else "cpu"},
    ]
    rows = [[one.read(shard) for shard in range(one.shards)] for one in datasets]
    return rows, [step.fingerprint for step in steps]


def test_photos_that_moved_and_another_device_give_the_same_shards(twice, tmp_path):
    settings = LocalSettings(max_features=50)
    here, names = made_of(twice[0], tmp_path / "a", settings)
    # RootSIFT needs no device; the run's is told to it all the same.
    there, other_names = made_of(twice[1], tmp_path / "b", settings, device="cuda")
    assert names == other_names
    assert len(here[0]) > 1
    for ours, theirs in zip(here, there, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.num_rows
            # The same to the byte, but for when and where it was made.
            assert a.equals(b, check_metadata=False)


def test_weights_at_another_path_give_the_same_shards(twice, tmp_path):
    pytest.importorskip("torch")
    path = shared("weights/xfeat/xfeat_folded.npz")
    moved = tmp_path / "elsewhere" / "renamed.npz"
    moved.parent.mkdir()
    shutil.copy(path, moved)
    settings = LocalSettings(features="xfeat", max_features=50, max_side_px=160)
    here, names = made_of(twice[0], tmp_path / "a", settings, weights=Weights.of(str(path)))
    there, other_names = made_of(twice[0], tmp_path / "b", settings, weights=Weights.of(str(moved)))
    assert names == other_names
    assert sum(rows.num_rows for rows in here[1]) > 0
    assert all(a.equals(b, check_metadata=False) for a, b in zip(here[1], there[1], strict=True))


def steps_of(variant, gallery=30, queries=8):
    flow = build(inputs_of(gallery, queries), layer(PRESETS["vlad"], VARIANTS[variant]))
    return closure(flow.targets)


def test_steps_of_one_fingerprint_imply_the_same():
    implied = {}
    for variant in VARIANTS:
        for gallery, queries in ((30, 8), (31, 8), (30, 9)):
            for step in steps_of(variant, gallery, queries):
                assert implied.setdefault(step.fingerprint, step.implied) == step.implied, step.name
    assert len({tuple(one.items()) for one in implied.values()}) > 4


@pytest.mark.parametrize(
    ("variant", "name", "expected"),
    [
        ("offline", "diffuse", {"gallery_rows": 30, "queries_are_nodes": False}),
        ("queries as nodes", "diffuse", {"gallery_rows": 30, "queries_are_nodes": True}),
        ("queries as nodes", "join_nodes", {"gallery_rows": 30}),
    ],
)
def test_what_is_implied_is_what_the_inputs_hold(variant, name, expected):
    steps = {step.name: step for step in steps_of(variant)}
    assert steps[name].implied == expected
    if name == "join_nodes":
        assert steps[name].inputs["gallery"].step.rows == expected["gallery_rows"]
    else:
        nodes = 38 if expected["queries_are_nodes"] else 30
        assert steps[name].inputs["columns"].step.rows == nodes
