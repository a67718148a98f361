"""Every setting has known values or two bounds, and what is outside is refused before a run begins."""

import dataclasses
import math
import time
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types as at
import pytest

from lmr.errors import SettingsError
from lmr.runtime.settings import layer, parse_overrides, read_toml
from workflows.retrieval import PRESETS, RetrievalSettings

HOSTILE = [
    *("inf", "-inf", "nan", "1e400", "-1e400", "9" * 5_000, "-" + "9" * 5_000, "0x" + "f" * 5_000),
    *("10000000000000000", "-1", "-1000000000000", "true", "false", '"text"', "[1, [2]]", "{a = 1}"),
    *("1979-05-27", "[" * 3_000, "{a=" * 3_000, "", "\x1b[2J"),
]
"""Values of a setting, as they stand in TOML; which of them a setting takes depends on its kind."""


def settings_classes():
    """Yield every dataclass of settings of the workflow with its name, those inside others too."""

    def inside(name, kind):
        yield name, kind
        for field in dataclasses.fields(kind):
            hint = get_type_hints(kind)[field.name]
            if dataclasses.is_dataclass(hint):
                yield from inside(f"{name}.{field.name}", hint)

    for field in dataclasses.fields(RetrievalSettings):
        yield from inside(field.name, get_type_hints(RetrievalSettings)[field.name])


def fields():
    for name, kind in settings_classes():
        hints = get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            yield pytest.param(hints[field.name], id=f"{name}.{field.name}")


def unbounded(hint, bounds=()):
    """Return what a type's values lack: a bound of a number, a longest text or list."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *about = get_args(hint)
        return unbounded(inner, about)
    if origin is Literal or hint in (bool, type(None)) or dataclasses.is_dataclass(hint):
        return []
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return [lack for one in get_args(hint) for lack in unbounded(one)]
    if hint in (int, float):
        lower = [b for b in bounds if isinstance(b, at.Ge | at.Gt)]
        upper = [b for b in bounds if isinstance(b, at.Le | at.Lt) and math.isfinite(getattr(b, "le", 0))]
        return [lack for lack, there in (("lower bound", lower), ("upper bound", upper)) if not there]
    if origin is tuple and Ellipsis not in get_args(hint):
        return [lack for one in get_args(hint) for lack in unbounded(one)]
    longest = [b for b in bounds if isinstance(b, at.Len) and b.max_length is not None]
    lacks = [] if longest else ["longest length"]
    if origin is tuple:
        return lacks + [lack for one in get_args(hint) if one is not Ellipsis for lack in unbounded(one)]
    return lacks if hint is str else [f"a kind that this test knows ({hint})"]


@pytest.mark.parametrize("hint", list(fields()))
def test_a_setting_has_known_values_or_both_bounds(hint):
    assert unbounded(hint) == []


def test_the_walk_sees_what_lacks_a_bound():
    assert unbounded(Annotated[int, at.Ge(0)]) == ["upper bound"]
    assert unbounded(float) == ["lower bound", "upper bound"]
    assert unbounded(Annotated[float, at.Ge(0)] | None) == ["upper bound"]
    assert unbounded(Annotated[float, at.Ge(0), at.Le(math.inf)]) == ["upper bound"]
    assert unbounded(str) == ["longest length"]
    assert unbounded(Annotated[tuple[int, ...], at.Len(0, 2)]) == ["lower bound", "upper bound"]
    assert len(list(settings_classes())) > 14


GROUPS = [f.name for f in dataclasses.fields(RetrievalSettings)]


def accepted(group: Any) -> bool:
    """Tell whether every number of some settings is finite and no true or false stands for one."""
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if isinstance(value, float | int) and not isinstance(value, bool):
            assert math.isfinite(value), field.name
            assert abs(value) <= 10**15, field.name
        if isinstance(value, bool):
            assert get_type_hints(type(group))[field.name] is bool, field.name
    return True


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_values_are_refused_or_sound_and_quickly(group):
    refused = []
    began = time.process_time()
    names = [f.name for f in dataclasses.fields(getattr(RetrievalSettings(), group))]
    for name in names:
        for value in HOSTILE:
            try:
                settings = layer(RetrievalSettings(), parse_overrides([f"{group}.{name}={value}"]))
            except SettingsError as error:
                refused.append(error)
            else:
                assert accepted(getattr(settings, group))
    assert len(refused) >= len(names) * 10
    assert all(error.what.startswith(f"setting {group}") and error.got and error.fix for error in refused)
    assert all(len(str(error)) < 1_000 and "\x1b" not in str(error) for error in refused)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "override",
    [
        *("describe.gem={p = inf}", "describe.gem={p = true}", "describe.gem={sizes_px = []}"),
        *("describe.gem={sizes_px = [true]}", "describe.gem={sizes_px = [1000000000000]}"),
        *("describe.gem={scales = [nan]}", "describe.gem={architecture = 'x'}", "describe.gem={q = 1}"),
        *("verify.seed=-1", "index.seed=-1", "verify.confidence=1", "rank.depth=1000000000000"),
    ],
)
def test_inside_of_nested_settings_too(override):
    with pytest.raises(SettingsError) as error:
        layer(RetrievalSettings(), parse_overrides([override]))
    assert error.value.got
    assert error.value.fix


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_within_their_bounds(name):
    assert layer(PRESETS[name]) == PRESETS[name]


def test_a_preset_of_a_workflow_that_is_out_of_range_is_refused():
    bad = dataclasses.replace(
        RetrievalSettings(), rank=dataclasses.replace(RetrievalSettings().rank, depth=-1)
    )
    with pytest.raises(SettingsError, match=r"setting rank\.depth"):
        layer(bad)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[rank]\ndepth = 200\n".decode().encode("utf-16"), "is not in UTF-8"),
        (b"[rank]\ndepth = " + b"9" * 5_000, "is not valid TOML"),
        (b"[rank]\ndepth = [\n" + b"[\n" * 40_000, "is not valid TOML"),
        (b"a = " + b"[" * 50_000, "is not valid TOML"),
        (b"a" + b".a" * 40_000 + b" = 1", "more than 2,000 characters"),
        (b"#" * 200_000, "is no file of settings"),
        (b"depth = 200\n", "stands outside any table"),
        (b"[[rank]]\ndepth = 200\n", "stands outside any table"),
        (b"[rank]\ndepth = {a = 1}\n", "setting rank.depth is not valid"),
        (b"[rank.depth]\na = 1\n", "setting rank.depth is not valid"),
        (b"\x00\x01\x02", "is not valid TOML"),
    ],
)
def test_a_file_of_settings_of_another_shape(tmp_path, content, told):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    began = time.process_time()
    with pytest.raises(SettingsError) as error:
        layer(RetrievalSettings(), read_toml(str(path)))
    assert error.value.fix
    assert told in str(error.value)
    assert len(str(error.value)) < 1_000
    assert time.process_time() - began < 10


def test_a_byte_order_mark_is_no_matter(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes("[rank]\ndepth = 200\n".encode("utf-8-sig"))
    assert layer(RetrievalSettings(), read_toml(str(path))).rank.depth == 200
