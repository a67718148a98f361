"""A published kind of checkpoint through the steps: its own scales and whitening, its authors' numbers."""

import json
import shutil

import numpy as np
import pytest

from lmr.cluster.client import Where
from lmr.errors import LmrError, SettingsError
from lmr.features.extractors import GemSettings
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.described import extract_global
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.listing import list_photos
from lmr.steps.workflow import Inputs, Weights
from lmr.storage.arrow import column, ragged
from tests.support.shared import shared
from tests.support.toys import Quiet

SCALES = (1.0, 2**-0.5, 0.5)


@pytest.fixture(scope="module")
def golden():
    return json.loads((shared("golden/gem_cirtorch") / "cases.json").read_text())


@pytest.fixture(scope="module")
def inputs(golden, tmp_path_factory):
    torch = pytest.importorskip("torch")
    from lmr.features.networks.by_rule import cirtorch_checkpoint

    folder = tmp_path_factory.mktemp("cirtorch")
    (folder / "photos").mkdir()
    for name in ("photo_a", "photo_b"):
        shutil.copy(shared("golden/gem_cirtorch") / f"{name}.png", folder / "photos")
    net = next(net for net in golden["nets"] if net["tag"] == "resnet18-gem")
    torch.save(cirtorch_checkpoint(net), folder / "net.pth")
    photos = list_photos("gallery", str(folder / "photos"))
    return Inputs(photos=Both(photos, photos), weights=Weights.of(str(folder / "net.pth")))


def described(inputs, settings, root):
    images = ingest(inputs.photos.gallery, IngestSettings())
    found = extract_global(Both(images, images), Both(None, None), settings, inputs)
    step = found.gallery.source
    run([step], root, Where(), Quiet())
    return step.dataset(root).read(0)


@pytest.mark.parametrize(("mode", "scales"), [("ss", (1.0,)), ("ms", SCALES)])
def test_the_descriptors_are_the_authors_own(golden, inputs, tmp_path, mode, scales):
    net = next(net for net in golden["nets"] if net["tag"] == "resnet18-gem")
    whole = (o for o in net["outputs"] if o["photo"] == "photo_a" and not o["bbx"])
    output = next(o for o in whole if o["mode"] == mode)
    settings = DescribeSettings(
        descriptor="gem",
        dimension=64,
        whitening="checkpoint",
        gem=GemSettings(sizes_px=(output["image_size"],), scales=scales),
    )
    rows = described(inputs, settings, str(tmp_path / "run"))
    expected = np.load(shared("golden/gem_cirtorch/descriptors.npz"))[f"{output['key']}/Lw64"]
    photo_a = inputs.photos.gallery.ids.index("photo_a")
    # Stored as float16.
    np.testing.assert_allclose(column(rows, "descriptor")[photo_a], expected, atol=3e-4)
    regions = ragged(rows, "regions")
    assert len(regions[photo_a]) > 10
    lengths = np.linalg.norm(regions.values.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)


def test_the_pca_of_deep_image_retrieval_too(pca_class, tmp_path):
    torch = pytest.importorskip("torch")
    from lmr.features.networks.by_rule import naver_checkpoint

    folder = shared("golden/dir_naver")
    net = next(
        net for net in json.loads((folder / "cases.json").read_text())["nets"] if net["tag"] == "resnet18-gem"
    )
    torch.save(naver_checkpoint(net, pca_class), tmp_path / "net.pt")
    (tmp_path / "photos").mkdir()
    for name in ("photo_a", "photo_b"):
        shutil.copy(folder / f"{name}.png", tmp_path / "photos")
    photos = list_photos("gallery", str(tmp_path / "photos"))
    inputs = Inputs(photos=Both(photos, photos), weights=Weights.of(str(tmp_path / "net.pt")))
    settings = DescribeSettings(
        descriptor="gem",
        dimension=128,
        whitening="checkpoint",
        gem=GemSettings(sizes_px=(4000,), scales=(1.0,)),
    )
    rows = described(inputs, settings, str(tmp_path / "run"))
    expected = np.load(folder / "descriptors.npz")["resnet18-gem/single/whiten_p0.25_v128_m1.0"]
    order = [photos.ids.index(name) for name in ("photo_a", "photo_b")]
    np.testing.assert_allclose(column(rows, "descriptor")[order], expected, atol=3e-4)


def test_the_gallerys_own_whitening_stays_the_default(inputs, tmp_path):
    settings = DescribeSettings(descriptor="gem", dimension=2, gem=GemSettings(sizes_px=(96,)))
    images = ingest(inputs.photos.gallery, IngestSettings())
    found = extract_global(Both(images, images), Both(None, None), settings, inputs)
    step = found.gallery.source
    assert set(step.inputs) == {"raw", "model"}


def test_a_whitening_that_is_not_there_is_told(inputs, tmp_path):
    settings = DescribeSettings(
        descriptor="gem", whitening="checkpoint", whitening_name="Oxford", gem=GemSettings(sizes_px=(96,))
    )
    with pytest.raises(
        LmrError, match=r"no whitening Oxford\ngot: whitenings retrieval-SfM-120k/ss, retrieval-SfM-120k/ms"
    ):
        described(inputs, settings, str(tmp_path / "run"))
    with pytest.raises(SettingsError, match="vlad comes without weights"):
        described(inputs, DescribeSettings(whitening="checkpoint"), str(tmp_path / "run"))
