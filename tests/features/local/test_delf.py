"""DELF against the outputs of the released graph, run by TensorFlow, and against its own rules."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from lmr.errors import LmrError
from lmr.features.local.delf import DelfExtractor, load_delf
from lmr.features.networks.by_rule import write_delf_variables
from lmr.features.weights.delf_files import read_delf_weights
from tests.support.shared import shared

FILES = ("variables.index", "mean.datum", "pca_proj_mat.datum", "pca_variances.datum")


@pytest.fixture(scope="module")
def golden():
    folder = shared("golden/delf_v1")
    cases = json.loads((folder / "cases.json").read_text())
    photos = {n: np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in ("photo_a", "photo_b")}
    return cases, dict(np.load(folder / "features.npz")), photos


@pytest.fixture(scope="module")
def model(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("delf_v1")
    for name in FILES:
        shutil.copy(shared("golden/delf_v1") / name, folder)
    data = folder / "variables.data-00000-of-00001"
    write_delf_variables(golden[0], data)
    assert hashlib.sha256(data.read_bytes()).hexdigest() == golden[0]["data_sha256"]
    return folder


@pytest.fixture(scope="module")
def weights(model):
    return read_delf_weights(model)


def by_place(boxes, scales):
    """Return an order of features by where they are: neighbouring scores are too close to sort by."""
    return np.lexsort((*boxes.T, scales))


@pytest.mark.parametrize("name", ["photo_b", pytest.param("photo_a", marks=pytest.mark.slow)])
def test_the_released_graph(name, golden, weights):
    cases, expected, photos = golden
    case = next(case for case in cases["cases"] if case["photo"] == name)
    extractor = DelfExtractor(weights, threshold=case["threshold"])
    (found,) = extractor.detect([photos[name]])
    assert len(found.scores) == case["count"]
    assert (np.diff(found.scores) <= 0).all()
    order = by_place(found.boxes, found.scales)
    truth = {key: expected[f"{name}/{key}"] for key in ("boxes", "scales", "scores", "features", "locations")}
    other = by_place(truth["boxes"], truth["scales"])
    np.testing.assert_array_equal(found.boxes[order], truth["boxes"][other])
    np.testing.assert_array_equal(found.scales[order], truth["scales"][other])
    np.testing.assert_allclose(found.scores[order], truth["scores"][other, 0], rtol=1e-4)
    np.testing.assert_allclose(found.features[order], truth["features"][other], atol=1e-4)

    described = extractor.describe(torch.from_numpy(found.features)).numpy()
    np.testing.assert_allclose(described[order], expected[f"{name}/descriptors"][other], atol=1e-5)
    whitening = DelfExtractor(weights, whiten=True)
    described = whitening.describe(torch.from_numpy(found.features)).numpy()
    np.testing.assert_allclose(described[order], expected[f"{name}/descriptors_whitened"][other], atol=1e-5)

    (local,) = extractor([photos[name]])
    assert local.descriptor.dtype == np.float16
    np.testing.assert_allclose(local.descriptor[order], expected[f"{name}/descriptors"][other], atol=5e-4)
    np.testing.assert_array_equal(local.xy[order], truth["locations"][other][:, ::-1])
    np.testing.assert_allclose(local.scale[order], 291 * truth["scales"][other], rtol=1e-6)


@pytest.mark.parametrize("name", ["photo_b", pytest.param("photo_a", marks=pytest.mark.slow)])
def test_the_strongest_and_all(name, golden, weights):
    cases, expected, photos = golden
    threshold = next(case["threshold"] for case in cases["cases"] if case["photo"] == name)
    (found,) = DelfExtractor(weights, threshold=threshold, max_features=50).detect([photos[name]])
    np.testing.assert_allclose(found.scores, expected[f"{name}/max50/scores"][:, 0], rtol=1e-4)
    assert {tuple(b) for b in found.boxes} == {tuple(b) for b in expected[f"{name}/max50/boxes"]}
    (every,) = DelfExtractor(weights, threshold=-1, max_features=10**6).detect([photos[name]])
    truth = np.sort(expected[f"{name}/all_scores_sorted"])[::-1]
    np.testing.assert_allclose(every.scores, truth, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.7071])
def test_single_layers(scale, golden, weights):
    _, expected, photos = golden
    extractor = DelfExtractor(weights, image_scales=[scale])
    pixels = torch.tensor(photos["photo_b"]).permute(2, 0, 1)[None].float()
    ((_, images),) = extractor._pyramid((pixels - 128) / 128)
    with torch.inference_mode():
        maps = extractor.network.features(images)
        logits = extractor.network.logits(maps)
    key = f"photo_b/scale{scale}"
    np.testing.assert_allclose(logits[0].numpy(), expected[f"{key}/logit"][..., 0], rtol=1e-4, atol=1e-4)
    if scale == 1.0:
        block3 = maps[0, ::4].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(block3, expected[f"{key}/block3_every_4th_channel"], atol=1e-4)
    else:
        every_4th = images[0, :, ::4, ::4].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(every_4th, expected[f"{key}/resized_every_4th_pixel"], atol=1e-5)


@pytest.fixture(scope="module")
def quick(weights):
    """An extractor at two scales."""
    return DelfExtractor(weights, image_scales=[0.5, 1.0], threshold=1.0, max_features=60)


def test_batches_of_mixed_sizes_give_what_single_photos_give(quick, golden):
    photo = golden[2]["photo_b"][:200, :260]
    mixed = [photo, photo[::-1].copy(), photo[:90, :120], photo]
    for one, together in zip(mixed, quick(mixed), strict=True):
        (alone,) = quick([one])
        assert 0 < len(alone.score) <= 60
        np.testing.assert_allclose(together.score, alone.score, rtol=1e-4)
        np.testing.assert_array_equal(together.xy, alone.xy)
        np.testing.assert_allclose(together.descriptor, alone.descriptor, atol=1e-3)
    assert quick([]) == []


def test_coordinates_are_those_of_the_photo_as_given(weights, golden):
    """The features of a photo twice as large lie where those of the photo do."""
    photo = golden[2]["photo_b"][:160, :240]
    large = photo.repeat(2, axis=0).repeat(
        2, axis=1
    )  # which the antialiased filter shrinks to nearly the photo
    settings = {"image_scales": [1.0], "threshold": -1.0, "max_side_px": 240}
    (small_found,) = DelfExtractor(weights, **settings)([photo])
    (large_found,) = DelfExtractor(weights, **settings)([large])
    order = [np.lexsort(found.xy.T) for found in (small_found, large_found)]
    mapped = (small_found.xy[order[0]] + 0.5) * 2 - 0.5
    np.testing.assert_allclose(large_found.xy[order[1]], mapped, atol=1e-3)
    np.testing.assert_allclose(large_found.scale, 2 * 291)


def test_nothing_above_the_threshold(weights, golden):
    extractor = DelfExtractor(weights, image_scales=[0.5], threshold=1e6)
    (local,), (found,) = extractor([golden[2]["photo_b"]]), extractor.detect([golden[2]["photo_b"]])
    shapes = [array.shape for array in (found.boxes, found.scales, found.features, found.scores)]
    assert shapes == [(0, 4), (0,), (0, 1024), (0,)]
    assert (local.xy.shape, local.descriptor.shape) == ((0, 2), (0, 40))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 700, 3), (40, 2, 3)])
def test_tiny_photos(quick, shape):
    (found,) = quick([np.full(shape, 90, np.uint8)])
    assert np.isfinite(found.xy).all()
    assert np.isfinite(found.descriptor).all()


def test_a_model_is_the_same_from_a_released_folder_side_by_side_and_as_safetensors(model, weights, tmp_path):
    (tmp_path / "model/variables").mkdir(parents=True)
    (tmp_path / "pca").mkdir()
    for file in model.iterdir():
        folder = "pca" if file.suffix == ".datum" else "model/variables"
        (tmp_path / folder / file.name).symlink_to(file)
    save_file(weights, tmp_path / "delf.safetensors")
    for path in (tmp_path, tmp_path / "delf.safetensors"):
        again = read_delf_weights(path)
        assert again.keys() == weights.keys()
        assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_a_folder_without_the_model_is_named(tmp_path):
    with pytest.raises(LmrError, match=r"no variables\.index"):
        load_delf(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_features": 0}, "with these settings"),
        ({"image_scales": []}, "with these settings"),
        ({"image_scales": [0.0]}, "with these settings"),
        ({"dimension": 41}, "no such dimension"),
        ({"device": "cuda:99"}, "device"),
        ({"precision": "int3"}, "unknown precision"),
    ],
)
def test_settings_out_of_range_are_refused(weights, settings, message):
    with pytest.raises(LmrError, match=message):
        DelfExtractor(weights, **settings)


def test_weights_of_something_else_are_refused(weights):
    with pytest.raises(LmrError, match=r"not the weights of DELF: resnet_v1_50/conv1/weights"):
        DelfExtractor({n: t for n, t in weights.items() if n != "resnet_v1_50/conv1/weights"})
    with pytest.raises(LmrError, match="not the weights of DELF"):
        DelfExtractor({**weights, "attonly/attention/compute/conv2/biases": np.zeros(2, np.float32)})
