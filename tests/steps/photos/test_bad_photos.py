"""Every kind of odd and damaged file through the steps themselves: none crashes a step, none is lost.

The kinds are those of tests/features/test_decode.py, and what only a folder can hold.
"""

import importlib.util
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from lmr.cluster.client import Where
from lmr.features.decoding.formats import FORMATS, pillow_name
from lmr.scheduler.run import run
from lmr.steps.both import Both
from lmr.steps.features.described import extract_global
from lmr.steps.features.local import LocalSettings, extract_local
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.photos.ingest import IngestSettings, ingest
from lmr.steps.photos.listing import list_photos
from lmr.steps.photos.unusable import check_photos
from lmr.steps.workflow import Inputs, Weights
from lmr.storage.arrow import column, ragged
from tests.features import test_kinds_of_photos as modern
from tests.features.test_decode import DAMAGED, WHOLE, ending_early, exif, file, noise, scene
from tests.support.shared import shared
from tests.support.toys import Quiet

SHAPES = {
    "a_pixel": (1, 1),
    "a_row": (1, 3000),
    "a_column": (2500, 2),
    "a_band": (9, 1400),
    "small": (20, 17),
}
SHARDS = 4


def odd_shapes():
    rng = np.random.default_rng(0)
    for name, (height, width) in SHAPES.items():
        yield name, file(rng.integers(0, 256, (height, width, 3), np.uint8), "PNG")


def further_kinds():
    """Yield name, content and reason of kinds that not every program reads."""
    for kind, make in modern.METADATA.items():
        yield f"metadata {kind}", make(), ""
    for kind, (lowest, highest, dtype) in modern.GREY.items():
        yield f"grey {kind}", file(Image.fromarray(modern.ramp(lowest, highest, dtype)), "TIFF"), ""
    for number, (mode, options) in enumerate(modern.CUT):
        photo = Image.fromarray(np.kron(noise(100, 90), np.ones((4, 4, 1), np.uint8))).convert(mode)
        whole = file(photo, quality=80, **options)
        yield f"cut {number}", whole[:-20], ""
        yield f"cut too far {number}", ending_early(whole, 0.8), "truncated JPEG"
    for kind, options in modern.MODERN.items():
        extra = next((form.module for form in FORMATS if form.pillow == kind and form.module), "PIL")
        if importlib.util.find_spec(extra):
            pillow_name(next(form for form in FORMATS if form.pillow == kind))
            yield f"modern {kind}", file(scene(), kind, **options), ""
    large = file(scene())
    yield "raw of a camera", modern.raw_of([file(noise(20, 30)), large]), ""
    for number, start in enumerate((b"FUJIFILMCCD-RAW 0201", b"IIU\0\x18\0\0\0", b"IIRO\x08\0")):
        yield f"raw {number}", start + bytes(200) + large, ""
    name = "camera raw file (RAF) without a preview"
    yield "raw without preview", b"FUJIFILMCCD-RAW 0201" + bytes(200), name
    yield "bits as text", b"P1\n3 2\n1 0 1\n0 1 0\n", ""
    yield "bits as text, half", b"P1\n3 2\n1 0", "truncated PPM"
    yield "many scans", modern.many_scans(200), "JPEG of more than 100 scans"
    yield "profile that is none", file(scene(), icc_profile=b"nonsense" * 20), ""
    yield "padded before its end", large[:2] + b"\xff" * 5000 + large[2:], ""


@pytest.fixture(scope="module")
def kinds():
    """Name to content, and name to the reason expected against it (none: it must be decoded)."""
    content, reasons = {}, {}
    for prefix, makers in (("whole", WHOLE), ("damaged", {k: v[0] for k, v in DAMAGED.items()})):
        for kind, make in makers.items():
            name = f"{prefix}_{''.join(c if c.isalnum() else '_' for c in kind)}"
            content[name] = make()
            reasons[name] = "" if prefix == "whole" else DAMAGED[kind][1]
    for orientation in range(2, 9):
        content[f"turned_{orientation}"] = file(scene(), exif=exif(orientation))
    content |= dict(odd_shapes())
    content["grey"] = file(Image.fromarray(scene()).convert("L"))
    content["grey_16"] = file(Image.fromarray(np.full((40, 60), 9000, np.uint16)), "PNG")
    for kind, data, reason in further_kinds():
        name = f"further_{''.join(c if c.isalnum() else '_' for c in kind)}"
        content[name], reasons[name] = data, reason
    return content, {name: reasons.get(name, "") for name in content}


@pytest.fixture
def photos(kinds, tmp_path):
    """A folder of all kinds, whatever they are named JPEG, with what is no file; and expected reasons."""
    folder = tmp_path / "photos"
    folder.mkdir()
    content, reasons = kinds
    for name, data in content.items():
        (folder / f"{name}.jpg").write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes(file(scene(), "PNG"))
    (folder / "link.jpeg").symlink_to(folder / "grey.jpg")
    (folder / "notes.txt").write_text("not listed")
    (folder / ".hidden.jpg").write_bytes(b"")
    return folder, reasons | {"inside": "", "link": ""}


def test_there_are_at_least_a_hundred_kinds_of_damage_and_of_oddness(kinds):
    reasons = list(kinds[1].values())
    assert len(reasons) >= 100
    assert sum(map(bool, reasons)) >= 40
    assert sum(not reason for reason in reasons) >= 60


def ingested(folder):
    listed = list_photos("gallery", str(folder))
    return listed, ingest(listed, IngestSettings(photos_per_shard=-(-len(listed) // SHARDS)))


def all_rows(step, root, *names):
    tables = [step.dataset(root).read(i) for i in range(step.shards)]
    return [np.concatenate([column(t, name) for t in tables]) for name in names]


def test_each_is_a_decoded_photo_or_a_row_with_a_reason(photos, tmp_path, where):
    folder, expected = photos
    listed, images = ingested(folder)
    assert sorted(listed.ids) == sorted(expected)
    local = extract_local(images, LocalSettings(), Inputs(photos=Both(listed, listed))).source
    bad = check_photos(Both(images, images))
    root = str(tmp_path / "run")
    run([local, bad], root, where, Quiet())
    ids, reasons, widths, heights = all_rows(images, root, "id", "reason", "width", "height")
    assert dict(zip(ids, reasons, strict=True)) == expected
    sizes = dict(zip(ids, zip(heights, widths, strict=True), strict=True))
    for name, shape in SHAPES.items():
        assert sizes[name] == shape
    assert sizes["turned_6"] == (96, 64)
    listed_bad = bad.dataset(root).read(0).to_pylist()
    assert {ids[row["photo"]]: row["reason"] for row in listed_bad if row["set"] == "gallery"} == {
        name: reason for name, reason in expected.items() if reason
    }
    (with_features,) = all_rows(local, root, "photo")
    assert {reasons[photo] for photo in with_features} == {""}
    assert len(set(with_features.tolist())) > 20


def test_networks_describe_each_photo_that_can_be_decoded(photos, tmp_path):
    pytest.importorskip("torch")
    folder, expected = photos
    listed, images = ingested(folder)
    gem = Weights.of(str(shared("weights/mobilenet_v2_imagenet.pth")))
    xfeat = Weights.of(str(shared("weights/xfeat/xfeat_folded.npz")))
    inputs = Inputs(photos=Both(listed, listed), weights=gem, local_weights=xfeat)
    gem_settings = DescribeSettings(descriptor="gem", dimension=8)
    both = Both(images, images)
    described = extract_global(both, Both(None, None), gem_settings, inputs).gallery.source
    local = extract_local(
        images, LocalSettings(features="xfeat", max_features=50, storage="int8"), inputs
    ).source
    root = str(tmp_path / "run")
    run([described, local], root, Where(), Quiet())
    ids, descriptors = all_rows(described, root, "photo", "descriptor")
    usable = np.array([not expected[listed.ids[photo]] for photo in ids])
    lengths = np.linalg.norm(descriptors.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, usable, atol=2e-3)
    regions = [ragged(described.dataset(root).read(i), "regions") for i in range(described.shards)]
    counts = np.concatenate([np.diff(part.offsets) for part in regions])
    np.testing.assert_array_equal(counts > 0, usable)
    photos_of, stored = all_rows(local, root, "photo", "descriptor")
    assert stored.dtype == np.int8
    assert len(photos_of) > 0  # few: most of these photos are four flat quarters
    assert usable[photos_of].all()


@pytest.mark.slow
@pytest.mark.parametrize("features", ["aliked-t16", "delf"])
def test_slower_networks_too(photos, tmp_path, features):
    pytest.importorskip("torch")
    folder, expected = photos
    weights = delf_by_rule(tmp_path) if features == "delf" else shared(f"weights/aliked/{features}.pth")
    listed, images = ingested(folder)
    inputs = Inputs(photos=Both(listed, listed), local_weights=Weights.of(str(weights)))
    settings = LocalSettings(features=features, max_features=20, max_side_px=160)
    local = extract_local(images, settings, inputs).source
    root = str(tmp_path / "run")
    run([local], root, Where(), Quiet())
    photos_of, xy = all_rows(local, root, "photo", "xy")
    assert np.isfinite(xy).all()
    assert all(not expected[listed.ids[photo]] for photo in photos_of)


def delf_by_rule(folder):
    from lmr.features.networks.by_rule import write_delf_variables  # which needs torch

    golden, model = shared("golden/delf_v1"), folder / "delf"
    model.mkdir()
    for name in ("variables.index", "mean.datum", "pca_proj_mat.datum", "pca_variances.datum"):
        shutil.copy(golden / name, model)
    write_delf_variables(
        json.loads((golden / "cases.json").read_text()), model / "variables.data-00000-of-00001"
    )
    return model
