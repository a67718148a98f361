from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from lmr.errors import SettingsError
from lmr.runtime.settings import Settings, digest, layer, parse_overrides, read_toml
from tests.support.toys import NumberSettings, ScaleSettings, workflow


@dataclass(frozen=True, kw_only=True)
class Verify(Settings):
    min_inliers: Annotated[int, Ge(0)] = 40
    model: Literal["affine", "homography"] = "affine"
    sizes_px: tuple[int, ...] = (320, 640)


@dataclass(frozen=True, kw_only=True)
class All:
    verify: Verify = field(default_factory=Verify)
    scale: ScaleSettings = field(default_factory=ScaleSettings)


def test_later_layers_win_and_values_are_converted():
    settings = layer(All(), {"verify": {"min_inliers": 20}}, parse_overrides(["verify.min_inliers=30"]))
    assert settings == All(verify=Verify(min_inliers=30))
    settings = layer(
        All(), parse_overrides(["verify.model=homography", "verify.sizes_px=[1, 2]", "scale.factor=3"])
    )
    assert settings.verify == Verify(model="homography", sizes_px=(1, 2))
    assert settings.scale.factor == 3.0


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "verify.min_inlier=3",
            "unknown setting verify.min_inlier\n"
            "fix: did you mean min_inliers? One of: min_inliers, model, sizes_px",
        ),
        (
            "verif.min_inliers=3",
            "unknown group of settings\ngot: verif\nfix: did you mean verify? One of: scale, verify",
        ),
        ("verify.min_inliers=-1", "setting verify.min_inliers is not valid\ngot: -1"),
        ("verify.min_inliers=many", "setting verify.min_inliers is not valid\ngot: 'many'"),
        ("verify.model=round", "setting verify.model is not valid\ngot: 'round'"),
        ("verify.min_inliers", "--set takes group.field=value\ngot: verify.min_inliers"),
    ],
)
def test_wrong_settings_are_named(override, told):
    with pytest.raises(SettingsError) as error:
        layer(All(), parse_overrides([override]))
    assert told in str(error.value)


def test_a_toml_file_gives_a_table_per_step(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("[verify]\nmin_inliers = 25\n")
    assert layer(All(), read_toml(str(path))).verify.min_inliers == 25
    path.write_text("min_inliers = 25\n")
    with pytest.raises(SettingsError, match="'min_inliers' stands outside any table"):
        read_toml(str(path))
    path.write_text("[verify\n")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_toml(str(path))


def test_fingerprints_are_golden():
    # A change here silently orphans every finished run: bump a step's revision instead.
    first, second, third = workflow("anywhere")
    assert digest(Verify()) == "f40c133ef715"
    assert [s.fingerprint for s in (first, second, third)] == ["ecb8b5097656", "65d7c1f206a8", "bbfaaf572421"]


def test_a_fingerprint_changes_with_settings_and_inputs_but_not_with_placement():
    base = workflow("here")
    assert [s.fingerprint for s in workflow("there")] == [s.fingerprint for s in base]
    scaled = workflow("here", scale=ScaleSettings(factor=3.0))
    assert [a.fingerprint == b.fingerprint for a, b in zip(base, scaled, strict=True)] == [True, False, False]
    moved = workflow("here", numbers_=NumberSettings(offset=1))
    assert not any(a.fingerprint == b.fingerprint for a, b in zip(base, moved, strict=True))
    assert workflow("here", shards=5)[0].fingerprint != base[0].fingerprint


def test_values_without_a_stable_form_are_refused():
    with pytest.raises(TypeError, match="set has no stable fingerprint"):
        digest({1, 2})
