"""Extractors of one's own: read, tried, checked, and told in words when they do not fit."""

import cloudpickle
import numpy as np
import pytest

from lmr.errors import LmrError, SettingsError
from lmr.features.extractors import (
    GlobalRequest,
    LocalRequest,
    OwnCode,
    global_extractor,
    is_own,
    local_extractor,
)

LOCAL = """
import numpy as np
from dataclasses import dataclass
from lmr.features.interfaces import LocalFeatures

@dataclass
class Extractor:
    max_features: int
    weights: object = None

    def __call__(self, photos):
        return [self.one(photo) for photo in photos]

    def one(self, photo):
        n = 5
        xy = np.stack([np.arange(n), np.arange(n)], axis=1).astype(np.float32)
        ones = np.ones(n, np.float32)
        means = photo.reshape(-1, 3).mean(0)
        return LocalFeatures(xy, ones, 0 * ones, ones, np.tile(means, (n, 2)).astype(np.float16))
"""
GLOBAL = """
import numpy as np

def describe(device="cpu"):
    def call(photos):
        return np.stack([np.histogram(photo, 16, (0, 256))[0] for photo in photos]).astype(float)
    return call
"""
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def written(folder, source, name="mine.py"):
    (folder / name).write_text(source)
    return str(folder / name)


def test_local_features_come_as_the_class_returns_them(tmp_path):
    code = OwnCode.read(written(tmp_path, LOCAL) + ":Extractor")
    assert code.name == "mine:Extractor"
    extractor = local_extractor(code, LocalRequest(max_features=3))
    assert (extractor.dimension, extractor.storage, extractor.name) == (6, np.float16, "mine:Extractor")
    (found,) = extractor([PHOTO])
    (again,) = extractor.stream([extractor.prepare(PHOTO)])
    assert found.xy.shape == (3, 2)  # the strongest first, no more than asked for
    np.testing.assert_array_equal(found.descriptor, again.descriptor)
    np.testing.assert_array_equal(found.descriptor[0, :3], PHOTO.reshape(-1, 3).mean(0).astype(np.float16))


def test_a_global_descriptor_is_made_unit_and_is_its_own_region(tmp_path):
    code = OwnCode.read(written(tmp_path, GLOBAL) + ":describe")
    (found,) = global_extractor(code, GlobalRequest())([PHOTO])
    expected = np.histogram(PHOTO, 16, (0, 256))[0]
    np.testing.assert_allclose(found.descriptor, expected / np.linalg.norm(expected), rtol=1e-6)
    np.testing.assert_array_equal(found.regions, found.descriptor[None])


def test_a_module_of_a_package_is_found_with_its_own_imports(tmp_path, monkeypatch):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").touch()
    written(package, "SIDE = 7", "helpers.py")
    source = GLOBAL.replace("import numpy", "from .helpers import SIDE\nimport numpy").replace(
        "16, ", "SIDE, "
    )
    written(package, source, "net.py")
    # Annotations that are text send dataclasses to the module by its name.
    written(package, f"from __future__ import annotations\nfrom .helpers import SIDE\n{LOCAL}", "local.py")
    monkeypatch.syspath_prepend(tmp_path)
    code = OwnCode.read("some_package.net:describe")
    assert global_extractor(code, GlobalRequest()).dimension == 7
    assert local_extractor(OwnCode.read("some_package.local:Extractor"), LocalRequest()).dimension == 6


def test_a_package_that_cannot_be_imported_is_told(tmp_path, monkeypatch):
    package = tmp_path / "broken_package"
    package.mkdir()
    written(package, "1 / 0", "__init__.py")
    written(package, GLOBAL, "net.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match="cannot find the extractor broken_package") as told:
        OwnCode.read("broken_package.net:describe")
    assert "ZeroDivisionError" in told.value.got


def test_the_source_travels_without_the_file(tmp_path):
    path = written(tmp_path, LOCAL)
    sent = cloudpickle.dumps(OwnCode.read(f"{path}:Extractor"))
    (tmp_path / "mine.py").unlink()
    code = cloudpickle.loads(sent)
    assert local_extractor(code, LocalRequest(max_features=2)).dimension == 6


def test_another_source_is_another_extractor(tmp_path):
    first = OwnCode.read(written(tmp_path, LOCAL) + ":Extractor")
    second = OwnCode.read(written(tmp_path, LOCAL.replace("n = 5", "n = 4")) + ":Extractor")
    assert (first.name, first.digest != second.digest) == (second.name, True)
    assert len(local_extractor(second, LocalRequest())([PHOTO])[0].xy) == 4


@pytest.mark.parametrize(("name", "own"), [("vlad", False), ("a/b.py:C", True), ("a.b:C", True)])
def test_what_is_ones_own(name, own):
    assert is_own(name) == own


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("", "none.py:Extractor", "cannot read the extractor"),
        (LOCAL, "mine.py:Extracter", "has no class or function Extracter"),
        ("import no_such_module", "mine.py:Extractor", "cannot be imported"),
        ("class Extractor(:", "mine.py:Extractor", "cannot be imported"),
    ],
)
def test_code_that_cannot_be_read_is_told(source, name, message, tmp_path):
    written(tmp_path, source)
    with pytest.raises(SettingsError, match=message) as told:
        OwnCode.read(f"{tmp_path}/{name}")
    assert told.value.fix
    with pytest.raises(SettingsError, match="cannot find the extractor"):
        OwnCode.read("no_such_package.module:Extractor")


@pytest.mark.parametrize(
    ("old", "new", "message", "got"),
    [
        ("max_features: int", "colour: str", "asks for what lmr does not give", "colour"),
        (
            "return [self.one(photo) for photo in photos]",
            "return []",
            "not such an extractor",
            "list of length 0",
        ),
        ("return [self.one(photo) for photo in photos]", "1 / 0", "failed on a photo", "ZeroDivisionError"),
        ("return [self.one(photo) for photo in photos]", "return [3]", "not such an extractor", "int"),
        ("np.arange(n)], axis=1)", "np.arange(n)], axis=0)", "not such an extractor", "xy of shape"),
        ("0 * ones, ones", "0 * ones, ones[:3]", "not such an extractor", "score of shape (3,)"),
        (".astype(np.float16))", ".astype(np.int64))", "not such an extractor", "int64"),
        ("means = photo", "means = np.nan * photo", "not such an extractor", "NaN"),
        (
            "weights: object = None",
            "dimension: int = 7",
            "not such an extractor",
            "descriptor of shape (5, 6)",
        ),
        ("weights: object = None", "dimension: str = 'many'", "not such an extractor", "dimension"),
        ("def __call__", "def call", "not such an extractor", "cannot be called"),
    ],
)
def test_a_class_that_does_not_fit_is_told(old, new, message, got, tmp_path):
    assert old in LOCAL
    code = OwnCode.read(written(tmp_path, LOCAL.replace(old, new)) + ":Extractor")
    with pytest.raises(LmrError, match=message) as told:
        local_extractor(code, LocalRequest())
    assert got in told.value.got
    assert told.value.fix


def test_descriptors_that_change_their_length_are_told(tmp_path):
    source = GLOBAL.replace("photo, 16", "photo, 16 if photo.shape[0] > 100 else 8")
    extractor = global_extractor(OwnCode.read(written(tmp_path, source) + ":describe"), GlobalRequest())
    with pytest.raises(LmrError, match="not such an extractor") as told:
        extractor([PHOTO])
    assert "(8,)" in told.value.got
