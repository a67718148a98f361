"""XFeat and ALIKED with their real weights: features must be found again where the photo was moved to."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lmr.errors import LmrError
from lmr.features.local.learned import _strongest_first, load_aliked, load_xfeat
from lmr.features.prepared import resized
from tests.support.shared import shared

NAMES = ("xfeat", "aliked-t16", pytest.param("aliked-n16", marks=pytest.mark.slow))


def load(name, **settings):
    if name == "xfeat":
        return load_xfeat(shared("weights/xfeat/xfeat_folded.npz"), **settings)
    return load_aliked(shared(f"weights/aliked/{name}.pth"), variant=name, **settings)


@pytest.fixture(scope="module")
def photo():
    return np.array(Image.open(shared("golden/delf_v1/photo_a.png")).convert("RGB"))[:288, :384]


def mutual(a, b):
    similarity = a.descriptor.astype(np.float32) @ b.descriptor.astype(np.float32).T
    forth, back = similarity.argmax(1), similarity.argmax(0)
    kept = back[forth] == np.arange(len(forth))
    return a.xy[kept], b.xy[forth[kept]]


@pytest.mark.parametrize("name", NAMES)
def test_features_are_as_the_interface_says(name, photo):
    extractor = load(name, max_features=300)
    found, none, flipped = extractor([photo, np.zeros((1, 9, 3), np.uint8), photo[:, ::-1].copy()])
    assert found.descriptor.shape == (300, extractor.dimension)
    assert found.descriptor.dtype == extractor.storage == np.float16
    np.testing.assert_allclose(np.linalg.norm(found.descriptor.astype(np.float32), axis=1), 1, atol=1e-3)
    assert (np.diff(found.score) <= 0).all()
    assert found.xy.dtype == np.float32
    assert (found.xy >= 0).all()
    assert (found.xy <= [383, 287]).all()
    assert none.xy.shape == (0, 2)
    assert none.descriptor.shape == (0, extractor.dimension)
    (alone,) = extractor([photo[:, ::-1].copy()])
    np.testing.assert_allclose(alone.xy, flipped.xy, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_a_moved_photo_has_its_features_moved(name, photo):
    whole, part = load(name, max_features=500)([photo, photo[32:, 64:]])
    here, there = mutual(whole, part)
    error = np.linalg.norm(here - there - [64, 32], axis=1)
    assert len(error) > 100
    assert (error < 2).mean() > 0.75
    assert np.abs(np.median(here - there - [64, 32], axis=0)).max() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_coordinates_are_those_of_the_photo_as_given(name, photo):
    large = resized(photo, 384 * 3, 288 * 3)
    small, shrunk = load(name, max_features=500, max_side_px=384)([photo, large])
    here, there = mutual(small, shrunk)
    difference = there - ((here + 0.5) * 3 - 0.5)
    assert (np.linalg.norm(difference, axis=1) < 6).mean() > 0.75
    assert np.abs(np.median(difference, axis=0)).max() < 0.3
    np.testing.assert_allclose(shrunk.scale, 3 * small.scale[0])


def test_odd_sides_shift_no_features_of_xfeat(photo):
    """XFeat shrinks sides to multiples of 32; its features must not drift over the photo."""
    whole, part = load("xfeat", max_features=500)([photo, photo[:279, :367]])
    here, there = mutual(whole, part)
    assert np.abs(np.median(there - here, axis=0)).max() < 0.3


def test_weights_as_safetensors(photo, tmp_path):
    path = shared("weights/aliked/aliked-t16.pth")
    save_file(torch.load(path, weights_only=True), tmp_path / "aliked.safetensors")
    (one,) = load("aliked-t16", max_features=50)([photo])
    (other,) = load_aliked(tmp_path / "aliked.safetensors", variant="aliked-t16", max_features=50)([photo])
    np.testing.assert_array_equal(one.xy, other.xy)


def test_weights_of_something_else_are_refused(tmp_path):
    with pytest.raises(LmrError, match="not of ALIKED"):
        load_aliked(shared("weights/aliked/aliked-t16.pth"), variant="aliked-n16")
    with pytest.raises(LmrError, match="unknown ALIKED"):
        load_aliked(shared("weights/aliked/aliked-t16.pth"), variant="aliked-z9")
    with pytest.raises(LmrError, match="not of XFeatModel"):
        load_xfeat(shared("weights/aliked/aliked-t16.pth"))
    for content in (b"PK", b"PK\x03\x04" + bytes(50)):
        (tmp_path / "xfeat.npz").write_bytes(content)
        with pytest.raises(LmrError, match="cannot read"):
            load_xfeat(tmp_path / "xfeat.npz")
    with pytest.raises(LmrError, match="with these settings"):
        load("xfeat", max_features=0)


@pytest.mark.parametrize("load", [load_xfeat, load_aliked])
@pytest.mark.parametrize("name", ["f.pt", "f.npz", "f.safetensors"])
def test_paths_as_text_that_are_not_there_are_told(load, name, tmp_path):
    with pytest.raises(LmrError, match=f"(no weights at|cannot read) .*{name}"):
        load(str(tmp_path / name))


def test_equally_strong_features_have_one_order_in_every_batch():

    rng = np.random.default_rng(0)
    xy = torch.from_numpy(rng.permutation(np.argwhere(np.ones((6, 6)))).astype(np.float32))
    score = (xy[:, 0] % 2).float()
    order = _strongest_first(xy, score)
    rows = torch.from_numpy(rng.permutation(36))
    again = _strongest_first(xy[rows], score[rows])
    assert torch.equal(xy[order], xy[rows][again])
    assert (score[order].diff() <= 0).all()
    # From the top, then from the left.
    assert xy[order][0].tolist() == [1.0, 0.0]
    assert xy[order][1].tolist() == [3.0, 0.0]
