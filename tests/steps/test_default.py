"""What everybody gets: the default workflow on photos, and what stands in for weights that are not there."""

from dataclasses import asdict
from pathlib import Path

import pytest

from lmr import open_run, open_search
from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.errors import SettingsError
from lmr.features.weights.packaged import LITE0, PackagedFile
from tests.support.world import lmr, make, scores, submission

NAMES = ("search", "verify", "rank", "expand", "diffuse")


def chosen(**more):
    return prepare("retrieval", Choices(out="run", gallery="100", queries="10", planned=True, **more))


@pytest.mark.parametrize("workflow", ["retrieval", "recognition"])
def test_lite0_is_the_default(workflow):
    prepared = prepare(workflow, Choices(out="run", gallery="100", queries="10", planned=True))
    assert prepared.settings.describe.descriptor == "lite0"
    assert prepared.about["preset"] == "lite0"
    assert prepared.news == ()


def test_vlad_stands_in_where_the_weights_are_not_installed_and_says_so(monkeypatch):
    monkeypatch.setattr(PackagedFile, "is_installed", lambda _: False)
    prepared = chosen()
    assert asdict(prepared.settings) == asdict(chosen(descriptor="vlad").settings)
    assert prepared.about["preset"] == "vlad"
    (said,) = prepared.news
    assert f"pip install {LITE0.requirement}" in said


@pytest.mark.parametrize(
    "choice",
    [
        {"descriptor": "vlad"},
        {"overrides": ("describe.descriptor=vlad",)},
        {"settings": {"describe": {"descriptor": "vlad"}}},
        {"descriptor": "lite0", "overrides": ("describe.descriptor=vlad",)},
    ],
)
def test_a_descriptor_brings_its_preset_by_whatever_way_it_is_chosen(choice):
    assert asdict(chosen(**choice).settings) == asdict(chosen(preset="vlad").settings)


@pytest.mark.parametrize(
    ("more", "option"),
    [
        ({"weights": "net.pth"}, "--weights"),
        ({"weights": "net.pth", "descriptor": "vlad"}, "--weights"),
        ({"weights": "net.pth", "descriptor": "lite0"}, "--weights"),
        ({"local_weights": "x.pt"}, "--local-weights"),
    ],
)
def test_weights_that_nothing_would_read_are_refused(more, option, tmp_path):
    for name in ("net.pth", "x.pt"):
        (tmp_path / name).write_bytes(b"weights")
    at = {key: str(tmp_path / value) if "weights" in key else value for key, value in more.items()}
    with pytest.raises(SettingsError, match="reads no weights") as told:
        chosen(**at)
    assert told.value.got.startswith(option)
    assert told.value.fix.endswith(f"or leave {option} out")


@pytest.mark.slow
def test_the_default_finds_photos(tmp_path):
    world, out = make(tmp_path / "world"), tmp_path / "run"
    command = ("--gallery", f"{world}/gallery", "--queries", f"{world}/queries", "--out", str(out))
    lmr("run", "retrieval", *command, "--solution", f"{world}/solution.csv", "--workers", "0")
    assert tuple(name for name in scores(out) if name != "protocol") == NAMES
    assert scores(out)["diffuse"] > 0.5
    assert "lite0" in lmr("info", str(out))
    # One more photo is described by the same network.
    query = world / "queries" / open_run(out).photos("queries")["path"][0]
    listed = submission(out)[query.stem]
    found = [Path(one.path).stem for one in open_search(out).ask(query).matches]
    assert found[0] == listed[0]
    assert set(found[:5]) == set(listed[:5])
