"""A photo described alone has what it has among others: the same features, in the same order.

The networks are small or have random weights, so that nothing has to be there; photos of repeated tiles
give them features that are equally strong. XFeat's and ALIKED's real weights are tried where they are.
"""

import numpy as np
import pytest
import torch
from kornia.feature import ALIKED, XFeat

from lmr.features.local import delf
from lmr.features.local.delf import DelfExtractor
from lmr.features.local.learned import load_aliked, load_xfeat
from lmr.features.local.rootsift import RootSift
from lmr.features.networks import delf_network
from lmr.features.networks._torchvision import torchvision
from lmr.features.networks.by_rule import _delf_tensor
from lmr.features.networks.gem import load_gem
from lmr.features.networks.onnx_models import load_lite0, load_onnx
from lmr.features.settings import OnnxSettings
from tests.features.networks.test_onnx_extractor import map_model
from tests.support.shared import shared


@pytest.fixture(autouse=True)
def one_thread():
    """As in a task, and quick beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos():
    """Photos of one size, so that they share a batch, and one of another, that ends it."""
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (32, 32, 3), np.uint8)
    tiled = np.tile(tile, (3, 4, 1))
    noise = rng.integers(0, 256, tiled.shape, np.uint8)
    half = np.concatenate([tiled[:32], noise[32:]])
    return [tiled, noise, half, tiled[:, ::-1].copy(), noise[:64, :96].copy(), np.full_like(tiled, 128)]


def with_random_weights(network, path, seed=0):
    torch.manual_seed(seed)
    torch.save(network().state_dict(), path)
    return path


def random_xfeat(folder):
    path = with_random_weights(lambda: XFeat().net, folder / "xfeat.pt")
    return load_xfeat(path, max_features=60, threshold=0.01)


def random_aliked(folder):
    path = with_random_weights(lambda: ALIKED("aliked-t16"), folder / "aliked.pth")
    return load_aliked(path, variant="aliked-t16", max_features=60)


def random_delf(folder, monkeypatch):
    for module in (delf, delf_network):
        monkeypatch.setattr(module, "weight_of", lambda weights, name, shape: _delf_tensor(name, shape))
    weights = {"pca/projection": np.empty((40, 1024), np.float32)}
    return DelfExtractor(weights, image_scales=[2.0], threshold=-1.0, max_features=30)


def same(alone, together):
    for field in ("xy", "scale", "orientation", "score", "descriptor"):
        np.testing.assert_array_equal(getattr(alone, field), getattr(together, field), err_msg=field)


@pytest.mark.parametrize("name", ["rootsift", "xfeat", "aliked", "delf"])
def test_local_features(name, photos, tmp_path, monkeypatch):
    make = {
        "rootsift": lambda: RootSift(max_features=60),
        "xfeat": lambda: random_xfeat(tmp_path),
        "aliked": lambda: random_aliked(tmp_path),
        "delf": lambda: random_delf(tmp_path, monkeypatch),
    }
    extractor = make[name]()
    together = extractor(photos)
    assert sum(len(found.xy) for found in together) > 100
    for photo, found in zip(photos, together, strict=True):
        same(extractor([photo])[0], found)


def test_equally_strong_features_are_kept_the_same_in_a_batch_too(photos, tmp_path):
    """Where a GPU takes several photos at a time: what rounding does not part has one order."""
    extractor = random_xfeat(tmp_path)
    extractor.batches.pixels = 10**6
    flat = np.full_like(photos[0], 128)  # all of its features tie exactly, whatever the batch
    alone, *_, together = extractor([flat]) + extractor([photos[1], flat])
    assert (np.diff(alone.score) == 0).sum() > 10
    np.testing.assert_array_equal(alone.xy, together.xy)


@pytest.mark.parametrize("name", ["xfeat", pytest.param("aliked", marks=pytest.mark.slow)])
def test_local_features_of_the_real_weights(name, photos):
    if name == "xfeat":
        extractor = load_xfeat(shared("weights/xfeat/xfeat_folded.npz"), max_features=60)
    else:
        extractor = load_aliked(
            shared("weights/aliked/aliked-n16.pth"), variant="aliked-n16", max_features=60
        )
    for photo, found in zip(photos, extractor(photos), strict=True):
        same(extractor([photo])[0], found)


def random_gem(folder):
    path = with_random_weights(lambda: torchvision().models.mobilenet_v2(weights=None), folder / "gem.pth")
    return load_gem(path, architecture="mobilenet_v2", input="half", p=3, sizes_px=(96, 64))


def small_onnx(folder):
    settings = OnnxSettings(mean=(0.0,) * 3, std=(1.0,) * 3, sizes_px=(64,), multiple_px=8)
    return load_onnx(map_model(folder / "map.onnx")[0], settings)


@pytest.mark.parametrize(
    # One photo a pass gives the same numbers; torch's batches of GeM differ by rounding.
    ("make", "off"),
    [(lambda folder: load_lite0(), 0), (small_onnx, 0), (random_gem, 1e-6)],
    ids=["lite0", "onnx", "gem"],
)
def test_global_descriptors(make, off, photos, tmp_path):
    extractor = make(tmp_path)
    for photo, found in zip(photos, extractor(photos), strict=True):
        (alone,) = extractor([photo])
        np.testing.assert_allclose(found.descriptor, alone.descriptor, rtol=0, atol=off)
        np.testing.assert_allclose(found.regions, alone.regions, rtol=0, atol=off)
