"""How long networks will take on CPUs is said before they start."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lmr.cli.main import app
from lmr.cli.output.notices import estimate_text
from lmr.errors import ClusterError
from lmr.runtime.graph import make_plan
from lmr.steps.both import Both
from lmr.steps.features import estimate as module
from lmr.steps.features.estimate import Estimate, estimate_networks
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.listing import list_photos
from lmr.steps.workflow import Inputs, Weights
from tests.features.test_decode import file, scene
from tests.support.shared import shared

EACH_S, FIRST_S = 0.5, 3.0


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.jpg").write_bytes(b"damaged" if number == 0 else file(scene()))
    (tmp_path / "net.pth").write_bytes(b"weights")
    return list_photos("gallery", str(folder))


def plan(photos, tmp_path, *, features="xfeat", device="cpu"):
    weights = Weights.of(str(tmp_path / "net.pth"))
    inputs = Inputs(photos=Both(photos, photos), local_weights=weights, device=device)
    images = ingest(photos, IngestSettings(photos_per_shard=8))
    return make_plan(
        [extract_local(images, LocalSettings(features=features), inputs).source], str(tmp_path / "run")
    )


@pytest.fixture
def slow_network(monkeypatch):
    """A network that takes a while per photo, and longer for the first; the sizes that it was given."""
    given, now = [], [0.0]

    def extractor(photos):
        now[0] += EACH_S if given else FIRST_S
        given.extend(photo.shape for photo in photos)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(module, "open_local", lambda *_: extractor)
    return given


def test_a_few_photos_are_measured_without_the_first(photos, tmp_path, slow_network):
    (found,) = estimate_networks(plan(photos, tmp_path), photos)
    assert (found.step, found.photos, found.measured) == ("extract_local", 20, 3)
    assert found.seconds_per_photo == EACH_S
    assert len(slow_network) == 4


def test_a_slow_network_is_measured_on_one_photo(photos, tmp_path, slow_network, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_S", 2.0)
    (found,) = estimate_networks(plan(photos, tmp_path), photos)
    assert found.measured == len(slow_network) == 1
    assert found.seconds_per_photo == FIRST_S


@pytest.mark.parametrize("choice", [{"features": "rootsift"}, {"device": "cuda"}])
def test_what_needs_no_network_on_a_cpu_costs_nothing(photos, tmp_path, slow_network, choice):
    assert estimate_networks(plan(photos, tmp_path, **choice), photos) == []
    assert slow_network == []


@pytest.mark.parametrize(
    ("choice", "resource"),
    [({}, "CPU"), ({"device": "cuda"}, "GPU"), ({"device": "cuda", "features": "rootsift"}, "CPU")],
)
def test_a_gpu_is_asked_for_only_where_a_network_runs_on_it(photos, tmp_path, choice, resource):
    steps = {need.step.name: need.step for need in plan(photos, tmp_path, **choice)}
    assert steps["extract_local"].resources == {resource: 1}
    assert steps["ingest"].resources == {"CPU": 1}


def test_without_torch_it_is_not_known(photos, tmp_path, monkeypatch):
    def lacking(*_):
        raise ClusterError("no torch")

    monkeypatch.setattr(module, "open_local", lacking)
    (found,) = estimate_networks(plan(photos, tmp_path), photos)
    assert found.seconds_per_photo is None
    assert "torch is not installed on this machine" in estimate_text(found, 2)


def test_the_sentence():
    one = Estimate("extract_local", 7200, 1.0, 3)
    assert estimate_text(one, 2) == (
        "extract_local runs a network on CPUs: 1 s per photo and core, measured here on 3 of the photos; "
        "7,200 photos take about 1 h 00 min with 2 process(es)"
    )
    assert "take one such core 2 h 00 min, more cores as much less" in estimate_text(one, None)


def test_a_plan_tells_it_too(photos, tmp_path):
    pytest.importorskip("torch")
    arguments = {
        "--gallery": str(tmp_path / "photos"),
        "--queries": str(tmp_path / "photos"),
        "--out": str(tmp_path / "run"),
        "--local": "xfeat",
        "--local-weights": str(shared("weights/xfeat/xfeat_folded.npz")),
        "--workers": "1",
    }
    pairs = [word for pair in arguments.items() for word in pair]
    told = CliRunner().invoke(app, ["run", "workflows/retrieval.py", *pairs, "--plan"])
    assert told.exit_code == 0, told.output
    assert "runs a network on CPUs" in told.output
    assert "40 photos take about" in told.output
