"""Global descriptors against the outputs of the code published with them, and against their own rules."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lmr.errors import LmrError
from lmr.features.networks.batches import Batches
from lmr.features.networks.by_rule import cirtorch_checkpoint, naver_checkpoint
from lmr.features.networks.gem import load_gem
from lmr.features.prepared import resized
from lmr.features.regions import rmac_boxes
from lmr.features.weights.checkpoints import pca_whitening
from tests.support.shared import shared

ONE, THREE = [1.0], [1.0, 2**-0.5, 0.5]
HEAVY = ("vgg16-gem", "resnet50-gem", "resnet101-gem-w", "resnet101-gem")
TRANSFORMS = {  # deep-image-retrieval's, as settings of the extractor
    "single": {"scales": ONE},
    "multi_gem3": {"scales": [1.0, 0.7071, 1.4142]},
    "multi_mean": {"scales": [1.0, 0.7071, 1.4142]},
    "scale480": {"scales": ONE},
    "scale320_largest": {"sizes_px": [320]},
}


def golden(family):
    folder = shared(f"golden/{family}")
    cases = json.loads((folder / "cases.json").read_text())
    photos = {n: np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in ("photo_a", "photo_b")}
    return cases, np.load(folder / "descriptors.npz"), photos


def net_of(cases, tag):
    return next(net for net in cases["nets"] if net["tag"] == tag)


def short_side(photo, px):
    height, width = photo.shape[:2]
    factor = px / min(width, height)
    return resized(photo, int(0.5 + factor * width), int(0.5 + factor * height))


def slow_if_heavy(*tags):
    return [pytest.param(tag, marks=pytest.mark.slow if tag in HEAVY else ()) for tag in tags]


@pytest.mark.parametrize(
    "tag",
    slow_if_heavy(
        "resnet18-gem",
        "resnet18-gem-w",
        "resnet18-mac",
        "resnet18-spoc",
        "resnet18-rmac",
        "resnet18-gemmp",
        "resnet18-gem-r",
        "resnet18-gem-lw",
        "vgg16-gem",
        "resnet50-gem",
        "resnet101-gem-w",
    ),
)
def test_cnnimageretrieval_pytorch(tag, tmp_path):
    cases, expected, photos = golden("gem_cirtorch")
    net = net_of(cases, tag)
    torch.save(cirtorch_checkpoint(net), tmp_path / "net.pth")
    for output in net["outputs"]:
        photo, size = photos[output["photo"]], output["image_size"]
        if output["bbx"]:
            left, top, right, bottom = output["bbx"]
            size = int(size * max(right - left, bottom - top) / max(photo.shape[:2]))
            photo = photo[top:bottom, left:right]
        scales = THREE if output["mode"] == "ms" else ONE
        extractor = load_gem(tmp_path / "net.pth", max_side_px=size, scales=scales)
        found = extractor([photo])[0]
        np.testing.assert_allclose(
            found.descriptor, expected[output["key"]], atol=1e-6, err_msg=output["key"]
        )
        assert extractor.dimension == len(found.descriptor)
        if net["has_Lw"]:
            whitening = extractor.whitenings[f"retrieval-SfM-120k/{output['mode']}"]
            rows = found.descriptor[None]
            np.testing.assert_allclose(whitening(rows)[0], expected[f"{output['key']}/Lw"], atol=1e-5)
            reduced = whitening(rows, dimension=64)[0]
            np.testing.assert_allclose(reduced, expected[f"{output['key']}/Lw64"], atol=1e-5)


@pytest.mark.parametrize(
    "tag",
    slow_if_heavy(
        "resnet18-gem",
        "resnet18-gem-norm",
        "resnet18-gem-nofc",
        "resnet18-gem-center",
        "resnet18-max",
        "resnet18-avg",
        "resnet50-gem",
        "resnet101-gem",
    ),
)
def test_deep_image_retrieval(tag, tmp_path, pca_class):
    cases, expected, photos = golden("dir_naver")
    net = net_of(cases, tag)
    torch.save(naver_checkpoint(net, pca_class), tmp_path / "net.pt")
    for output in net["outputs"]:
        case = output["key"].rpartition("/")[2]
        pair = [photos[name] for name in output["photos"]]
        if case == "scale480":  # of the short side, enlarging: a choice of the caller's here
            pair = [short_side(photo, 480) for photo in pair]
        extractor = load_gem(tmp_path / "net.pt", **TRANSFORMS[case])
        if output["pooling"] == "mean":
            extractor.scale_power = 1.0
        rows = np.stack([one.descriptor for one in extractor(pair)])
        np.testing.assert_allclose(rows, expected[output["key"]], atol=2e-6, err_msg=output["key"])
        for whitened in output["whitened"]:
            if whitened["whitenp"] == 0.25 and whitened["whitenm"] == 1.0:
                got = extractor.whitenings["Landmarks_clean"](rows, dimension=whitened["whitenv"])
                np.testing.assert_allclose(got, expected[whitened["key"]], atol=1e-5, err_msg=whitened["key"])


def test_whitening_powers_and_multipliers(pca_class):
    cases, expected, _ = golden("dir_naver")
    net = net_of(cases, "resnet18-gem")
    pca = naver_checkpoint(net, pca_class)["pca"]["Landmarks_clean"]
    for whitened in net["outputs"][0]["whitened"]:
        whitening = pca_whitening(pca, power=whitened["whitenp"], multiplier=whitened["whitenm"])
        got = whitening(expected["resnet18-gem/single"], dimension=whitened["whitenv"])
        np.testing.assert_allclose(got, expected[whitened["key"]], atol=1e-6, err_msg=whitened["key"])


MOBILENET = {"architecture": "mobilenet_v2", "input": "half", "p": 3, "sizes_px": (320, 640)}


@pytest.fixture(scope="module")
def mobilenet():
    return load_gem(shared("weights/mobilenet_v2_imagenet.pth"), **MOBILENET)


@pytest.fixture(scope="module")
def photos():
    return list(golden("gem_cirtorch")[2].values())


def test_batches_of_mixed_sizes_give_what_single_photos_give(mobilenet, photos):
    mixed = [photos[0], photos[1], photos[0][::-1].copy(), photos[1][:40, :30]]
    together = mobilenet(mixed)
    for photo, found in zip(mixed, together, strict=True):
        alone = mobilenet([photo])[0]
        np.testing.assert_allclose(found.descriptor, alone.descriptor, atol=1e-6)
        np.testing.assert_allclose(found.regions, alone.regions, atol=1e-6)
    assert abs(together[0].descriptor @ together[2].descriptor) < 0.99  # upside down is another photo


def test_descriptors_and_regions_are_unit_float32(mobilenet, photos):
    for found in mobilenet(photos):
        assert found.descriptor.shape == (mobilenet.dimension,) == (1280,)
        assert found.regions.shape[1] == 1280
        assert len(found.regions) > 10
        assert found.descriptor.dtype == found.regions.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found.descriptor), 1, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found.regions, axis=1), 1, atol=1e-6)
    assert mobilenet([]) == []


def test_regions_are_the_features_of_their_places(mobilenet, photos):
    photo = resized(photos[0], 640, 448)
    changed = photo.copy()
    changed[:, 480:] = (
        0  # the right quarter; receptive fields reach further than that, but not to the left edge
    )
    before, after = mobilenet([photo])[0].regions, mobilenet([changed])[0].regions
    columns, rows = 640 // 32, 448 // 32
    boxes = rmac_boxes(columns, rows)
    alike = (before * after).sum(1)
    left, right = boxes[:, 2] <= 10, boxes[:, 0] >= 10
    assert left.any()
    assert right.any()
    assert alike[left].min() > alike[right].max()


def test_the_first_region_is_the_whole_at_the_largest_size(photos):
    weights = shared("weights/mobilenet_v2_imagenet.pth")
    one = load_gem(weights, **{**MOBILENET, "sizes_px": (640,)})(photos)
    two = load_gem(weights, **MOBILENET)(photos)
    for single, double in zip(one, two, strict=True):
        np.testing.assert_allclose(single.regions[0], single.descriptor, atol=1e-6)
        np.testing.assert_allclose(single.regions, double.regions, atol=1e-6)


def test_a_batch_that_memory_does_not_hold_is_halved(mobilenet, photos, monkeypatch):
    expected = [found.descriptor for found in mobilenet(photos[:1] * 4)]
    features, batches = mobilenet.network.features, []

    def small_memory(images):
        if len(images) > 1:
            raise torch.OutOfMemoryError("no")
        batches.append(len(images))
        return features(images)

    monkeypatch.setattr(mobilenet.network, "features", small_memory)
    monkeypatch.setattr(mobilenet, "batches", Batches(4 * 640 * 480))
    found = mobilenet(photos[:1] * 4)
    assert batches == [1] * 8
    assert mobilenet.batches.pixels < 2 * 640 * 427
    np.testing.assert_allclose([one.descriptor for one in found], expected, atol=1e-6)


def test_which_whitening_of_the_checkpoint_is_meant(mobilenet, monkeypatch):
    names = ("sfm/ss", "sfm/ms", "landmarks/ss", "landmarks/ms")
    monkeypatch.setattr(mobilenet, "whitenings", {name: name for name in names})
    assert mobilenet.whitening("sfm") == "sfm/ms"  # it has two scales
    assert mobilenet.whitening("sfm/ss") == "sfm/ss"
    with pytest.raises(LmrError, match="is not clear"):
        mobilenet.whitening()
    monkeypatch.setattr(mobilenet, "whitenings", {name: name for name in names[:2]})
    assert mobilenet.whitening() == "sfm/ms"
    monkeypatch.setattr(mobilenet, "whitenings", {"Landmarks_clean": "pca"})
    assert mobilenet.whitening() == mobilenet.whitening("Landmarks_clean") == "pca"
    monkeypatch.setattr(mobilenet, "whitenings", {})
    with pytest.raises(LmrError, match="whitenings none"):
        mobilenet.whitening()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_are_near(precision, mobilenet, photos):
    weights = shared("weights/mobilenet_v2_imagenet.pth")
    low = load_gem(weights, **MOBILENET, precision=precision)(photos)
    for one, other in zip(low, mobilenet(photos), strict=True):
        assert one.descriptor @ other.descriptor > 0.999
        assert not np.array_equal(one.descriptor, other.descriptor)


@pytest.mark.parametrize("device", ["tpu", "vulkan", "cuda:99"])
def test_unknown_devices_are_refused(device):
    weights = shared("weights/mobilenet_v2_imagenet.pth")
    with pytest.raises(LmrError, match="device"):
        load_gem(weights, **MOBILENET, device=device)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "resnet50"}, "not of resnet50"),
        ({"architecture": None}, "does not say"),
        ({"architecture": "alexnet"}, "unknown architecture"),
        ({"sizes_px": ()}, "at these sizes"),
        ({"sizes_px": (0, 320)}, "at these sizes"),
        ({"input": "tenth"}, "unknown input"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    weights = shared("weights/mobilenet_v2_imagenet.pth")
    with pytest.raises(LmrError, match=message):
        load_gem(weights, **{**MOBILENET, **settings})


@pytest.mark.parametrize("shape", [(10, 10), (0, 5, 3), (8, 8, 4)])
def test_what_is_no_photo_is_refused(mobilenet, shape):
    with pytest.raises(LmrError, match="not a decoded photo"):
        mobilenet([np.zeros(shape, np.uint8)])


def test_odd_photos_have_finite_descriptors(mobilenet):
    odd = [
        np.zeros((1, 1, 3), np.uint8),
        np.full((3000, 2, 3), 255, np.uint8),
        np.zeros((5, 700, 3), np.uint8),
    ]
    for found in mobilenet(odd):
        assert np.isfinite(found.descriptor).all()
        np.testing.assert_allclose(np.linalg.norm(found.descriptor), 1, atol=1e-6)
