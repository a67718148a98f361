"""Runs with extractors beside the embedded ones: Lite0, an ONNX model, and one's own code."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmr.api.choices import Choices
from lmr.api.prepare import prepare
from lmr.errors import LmrError, SettingsError
from lmr.features.extractors import OnnxSettings
from lmr.features.weights.packaged import LITE0, PackagedFile
from lmr.steps.features.model_file import with_file_beside
from lmr.steps.features.weights import Weights
from tests.features.own.test_own import GLOBAL
from tests.support.clusters import cluster
from tests.support.world import arguments, lmr, make, scores, submission

LOCAL = '''
import cv2
import numpy as np
from lmr.features.interfaces import LocalFeatures


class Extractor:
    """ORB, its bits as numbers: what anybody may have at hand."""

    def __init__(self, max_features):
        self.orb = cv2.ORB_create(max_features)

    def __call__(self, photos):
        return [self.one(photo) for photo in photos]

    def one(self, photo):
        points, bits = self.orb.detectAndCompute(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), None)
        points = sorted(zip(points, [] if bits is None else bits), key=lambda pair: -pair[0].response)
        rows = np.array([np.unpackbits(row) for _, row in points], np.uint8).reshape(-1, 256)
        values = np.array([[*p.pt, p.size, np.deg2rad(p.angle), p.response] for p, _ in points], np.float32)
        values = values.reshape(-1, 5)
        return LocalFeatures(values[:, :2], values[:, 2], values[:, 3], values[:, 4], rows * np.uint8(20))
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make(tmp_path_factory.mktemp("world"))


def run(world, out, *more):
    return lmr(*arguments(world, out, "--solution", str(world / "solution.csv"), *more))


def folders(out, *names):
    return {name: {path.name for path in (out / name).iterdir()} for name in names}


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_code_of_ones_own_runs_here_and_on_a_cluster(world, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(LOCAL)
    (code / "global_one.py").write_text(GLOBAL)
    own = ("--local", f"{code}/mine.py:Extractor", "--global", f"{code}/global_one.py:describe")
    here, there = tmp_path / "here", tmp_path / "there"
    printed = run(world, here, *own, "--workers", "0")
    assert "1 local search" in printed
    assert scores(here)["search"] > 0.2
    with cluster(tmp_path / "cluster", workers=2) as running:
        run(world, there, *own, "--scheduler", running.address)
    assert submission(there) == submission(here)
    # The place of the file is no part of what is made; its source is.
    steps = ("local/gallery", "network/gallery", "global/gallery")
    assert folders(here, *steps) == folders(there, *steps)
    (code / "mine.py").rename(tmp_path / "mine.py")
    own = ("--local", f"{tmp_path}/mine.py:Extractor", *own[2:])
    assert "nothing was left to do" in run(world, here, *own, "--workers", "0")
    (code / "global_one.py").write_text(GLOBAL.replace("16, ", "32, "))
    run(world, here, *own, "--workers", "0")
    assert {name: len(found) for name, found in folders(here, *steps).items()} == {
        "local/gallery": 1,
        "network/gallery": 2,
        "global/gallery": 2,
    }


def test_code_that_does_not_fit_is_told_before_any_work(world, tmp_path):
    (tmp_path / "mine.py").write_text(LOCAL.replace("return [self.one", "return [0] or [self.one"))
    with pytest.raises(LmrError, match="mine:Extractor is not such an extractor"):
        run(world, tmp_path / "run", "--local", f"{tmp_path}/mine.py:Extractor", "--workers", "0")
    with pytest.raises(SettingsError, match="no such local features") as told:
        run(world, tmp_path / "run", "--local", "surf", "--workers", "0")
    assert "rootsift" in told.value.fix
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_gem_without_weights_is_lite0_and_says_so(world, tmp_path, monkeypatch):
    out = tmp_path / "run"
    printed = run(world, out, "--global", "gem", "--workers", "0")
    assert "EfficientNet-Lite0, whose weights come with lmr" in " ".join(printed.split())
    assert scores(out)["rank"] > 0.3
    assert "nothing was left to do" in run(world, out, "--global", "lite0", "--workers", "0")
    monkeypatch.setattr(PackagedFile, "is_installed", lambda _: False)
    printed = " ".join(run(world, out, "--global", "gem", "--workers", "0", "--plan").split())
    assert "vlad describes the photos instead of lite0" in printed
    assert f"pip install {LITE0.requirement}" in printed


def model(path):
    """Write a network that returns a small map of random mixtures of the colours."""
    weights = np.abs(np.random.default_rng(0).normal(size=(16, 3, 16, 16))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["map"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("ReduceMean", ["map"], ["vector"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, "h", "w"))],
        [
            helper.make_tensor_value_info("map", TensorProto.FLOAT, (1, 16, "rows", "columns")),
            helper.make_tensor_value_info("vector", TensorProto.FLOAT, (1, 16)),
        ],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


@pytest.mark.slow
def test_an_onnx_model_runs_with_the_toml_beside_it(world, tmp_path):
    out, path = tmp_path / "run", model(tmp_path / "net.onnx")
    onnx_run = ("--global", "onnx", "--weights", path, "--workers", "0", "--set", "describe.dimension=16")
    run(world, out, *onnx_run)
    assert scores(out)["rank"] > 0
    (tmp_path / "net.toml").write_text('pooling = "avg"\nsizes_px = [200]\n')
    run(world, out, *onnx_run)
    assert len(folders(out, "network/gallery")["network/gallery"]) == 2
    (tmp_path / "net.toml").write_text("pooling = 'mean'\n")
    with pytest.raises(SettingsError, match=r"net\.toml\.pooling is not valid"):
        run(world, out, *onnx_run)
    (tmp_path / "net.toml").write_text('output = "head"\n')
    with pytest.raises(LmrError, match="output head is not there"):
        run(world, out, *onnx_run)


def test_settings_come_before_the_toml_and_defaults_after(tmp_path):
    path = tmp_path / "net.onnx"
    assert with_file_beside(OnnxSettings(), str(path)) == OnnxSettings()
    (tmp_path / "net.toml").write_text('p = 4.0\npooling = "gem"\n')
    found = with_file_beside(OnnxSettings(pooling="avg"), str(path))
    assert found == OnnxSettings(pooling="avg", p=4.0)
    (tmp_path / "net.toml").write_text("power = 4.0\n")
    with pytest.raises(SettingsError, match="unknown setting"):
        with_file_beside(OnnxSettings(), str(path))
    (tmp_path / "net.toml").write_text("p = \n")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        with_file_beside(OnnxSettings(), str(path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.toml").write_text("p = 2.0\n")
    assert with_file_beside(OnnxSettings(), str(tmp_path / "model")).p == 2.0


def test_packaged_weights_are_the_installed_file_wherever_it_lies():
    weights = Weights.of(LITE0.url)
    assert weights.digest == LITE0.sha256
    assert weights.here() == LITE0.path()
    with pytest.raises(LmrError, match="knows no such packaged weights"):
        Weights.of("package://os/path.py")


def test_a_preset_says_what_it_sets_and_features_bring_their_values(world, tmp_path):
    more = ("--workers", "0", "--plan")
    printed = " ".join(run(world, tmp_path / "run", "--preset", "gem", "--global", "vlad", *more).split())
    assert "preset gem sets describe.descriptor = gem, expand.vote_weight = 0.3" in printed
    (tmp_path / "net.pt").write_bytes(b"weights")

    def inliers(**choices):
        places = {name: str(world / name) for name in ("gallery", "queries")}
        made = prepare("retrieval", Choices(out=str(tmp_path / "run"), **places, **choices))
        return made.settings.verify.min_inliers, " ".join(made.news)

    weights = {"local": "xfeat", "local_weights": str(tmp_path / "net.pt")}
    assert inliers() == (10, "")
    found, told = inliers(**weights)
    assert found == 20
    assert "calibrated for xfeat: verify.min_inliers = 20" in told
    assert inliers(**weights, overrides=("verify.min_inliers=7",))[0] == 7
    assert inliers(**weights, preset="paper")[0] == 40
