"""EfficientNet-Lite0 without torch: the numbers of torch's network, from the weights that are installed."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from lmr.errors import LmrError
from lmr.features.networks import onnx_models
from lmr.features.networks.gem import load_gem
from lmr.features.networks.lite0 import lite0_graph
from lmr.features.networks.onnx_models import load_lite0
from lmr.features.weights.packaged import LITE0
from lmr.features.weights.state_dicts import read_state_dict

SHAPES = ((700, 500), (427, 640), (33, 900), (20, 20), (513, 1000))


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in SHAPES]


@pytest.fixture(scope="module")
def by_torch(photos):
    extractor = load_gem(
        str(LITE0.path()), architecture="efficientnet_lite0", input="half", sizes_px=(640, 320)
    )
    return extractor(photos)


@pytest.mark.parametrize("runtime", [True, False], ids=["ONNX Runtime", "OpenCV"])
def test_descriptors_are_those_of_torch(runtime, photos, by_torch, monkeypatch):
    monkeypatch.setattr(onnx_models, "has_runtime", lambda: runtime)
    extractor = load_lite0()
    assert extractor.dimension == 1280
    for found, expected in zip(extractor(photos), by_torch, strict=True):
        np.testing.assert_allclose(found.descriptor, expected.descriptor, atol=1e-5)
        np.testing.assert_allclose(found.regions, expected.regions, atol=1e-5)


def test_the_graph_is_a_valid_model_and_the_pinned_one():
    model = lite0_graph(read_state_dict(LITE0.path()))
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert onnx_models.sha256_of_bytes(model) == onnx_models.GRAPH_SHA256


def test_the_graph_is_kept_and_a_damaged_one_is_built_again(tmp_path, photos):
    first = load_lite0(cache=tmp_path / "onnx")(photos[:1])
    (kept,) = (tmp_path / "onnx").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2] + b"\0" + whole[len(whole) // 2 + 1 :])
    again = load_lite0(cache=tmp_path / "onnx")(photos[:1])
    np.testing.assert_array_equal(again[0].regions, first[0].regions)
    assert kept.read_bytes() == whole
    assert list((tmp_path / "onnx").iterdir()) == [kept]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, photos):
    (tmp_path / "file").touch()
    assert load_lite0(cache=tmp_path / "file" / "onnx")(photos[:1])[0].descriptor.shape == (1280,)


def test_other_weights_are_refused(tmp_path):
    import torch

    torch.save({"_conv_stem.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "net.pth")
    with pytest.raises(LmrError, match="not of EfficientNet-Lite0") as refused:
        load_lite0(tmp_path / "net.pth")
    assert "(8, 3, 3, 3) in place of (32, 3, 3, 3)" in refused.value.got


def test_torch_is_not_needed_and_not_loaded():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from lmr.features.extractors import GlobalRequest, global_extractor\n"
        "found = global_extractor('lite0', GlobalRequest())([np.zeros((64, 80, 3), np.uint8)])\n"
        "print(found[0].descriptor.shape, 'torchvision' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "(1280,) False"
