"""Settings of steps, their fingerprints, and where their values come from.

A step's settings are a frozen, keyword-only dataclass. What a run uses is layered: the dataclass's
defaults, a TOML file, then `--set group.field=value`.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lmr import storage
from lmr.errors import SettingsError
from lmr.text import one_of

__all__ = [
    "ADDED_LATER",
    "Part",
    "Seed",
    "Settings",
    "differences",
    "digest",
    "layer",
    "parse_overrides",
    "read_toml",
    "replaced",
]

Group = TypeVar("Group")

Seed = Annotated[int, Ge(0), Le(2**31 - 1)]
"""A seed of random numbers; faiss and OpenCV take 32 bits with a sign."""

_LARGEST_FILE_BYTES = 100_000
_LONGEST_LINE = 2_000
"""Of TOML; its parser takes time by the square of the number of names in a dotted key."""

_SHOWN = 100

ADDED_LATER = {"added_later": True}
"""Metadata of a field that counts in a fingerprint only when it differs from its default.

What was made before the field existed was made as its default says, and stays valid.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings of every step; subclasses are frozen, keyword-only dataclasses too."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=False)

    def only(self, *names: str, kind: str | None = None) -> "Part":
        """Return some of these settings: what a step depends on, and no more.

        Parameters
        ----------
        *names
            The fields.
        kind
            The name under which the part is fingerprinted; None: this class's name.
        """
        return Part(kind or type(self).__name__, {name: getattr(self, name) for name in names})


@dataclasses.dataclass(frozen=True)
class Part:
    """Some settings of a step, read as attributes: another value of the others makes nothing anew.

    Attributes
    ----------
    kind
        The name under which the part is fingerprinted.
    values
        The settings by name.
    """

    kind: str
    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copy and pickle ask for before there are values
            raise AttributeError(name)
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"{self.kind} has no {name}; it has {', '.join(self.values)}") from None

    def also(self, **values: Any) -> "Part":
        """Return the part with further values."""
        return Part(self.kind, {**self.values, **values})


def digest(value: Any) -> str:
    """Return 12 hex digits that stand for a value, the same in every process and on every machine.

    Dataclasses count with all their fields and their class's name; mappings without regard to order.
    """
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    # First what there may be a million of: names of photos.
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Part):
        return {"class": value.kind, **{name: _plain(one) for name, one in value.values.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if _counts(f, value)
        }
        return {"class": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    raise TypeError(f"a setting of type {type(value).__name__} has no stable fingerprint")


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    if not field.metadata.get("added_later"):
        return True
    usual = field.default_factory() if callable(field.default_factory) else field.default
    return bool(getattr(value, field.name) != usual)


def read_toml(url: str) -> dict[str, dict[str, Any]]:
    """Read a TOML file of settings: one table per step.

    Raises
    ------
    SettingsError
        If it is no TOML in UTF-8, much too long for settings, or a setting stands outside any table.
    StorageError
        If it cannot be read.
    """
    with storage.open_read(url) as file:
        data: bytes = file.read(_LARGEST_FILE_BYTES + 1)
    if len(data) > _LARGEST_FILE_BYTES:
        raise SettingsError(
            f"{url} is no file of settings",
            got=f"more than {_LARGEST_FILE_BYTES:,} bytes",
            fix="give the TOML file itself; see docs/reference/settings.md",
        )
    try:
        # Some editors on Windows put a byte order mark in front.
        values = _toml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"{url} is not in UTF-8", got=str(error), fix="save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise SettingsError(
            f"{url} is not valid TOML", got=str(error)[:300], fix="see docs/reference/settings.md"
        ) from error
    for name, table in values.items():
        if not isinstance(table, dict):
            raise SettingsError(
                f"{url}: {name!r} stands outside any table", fix=f"put it under its step: [step]\n{name} = …"
            )
    return values


def _toml(text: str) -> dict[str, Any]:
    if any(len(line) > _LONGEST_LINE for line in text.splitlines()):
        raise ValueError(f"a line of more than {_LONGEST_LINE:,} characters")
    return tomllib.loads(text)


def parse_overrides(items: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse `group.field=value` items; values are read as TOML, and as plain text where that fails."""
    values: dict[str, dict[str, Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        group, dot, field = name.strip().partition(".")
        if not (equals and dot and group and field):
            raise SettingsError(
                "--set takes group.field=value", got=_cut(item), fix="for example --set verify.min_inliers=30"
            )
        try:
            value = _toml(f"v = {text.strip()}")["v"]
        except (ValueError, RecursionError):
            value = text.strip()
        values.setdefault(group, {})[field] = value
    return values


def layer(base: Group, *layers: Mapping[str, Mapping[str, Any]]) -> Group:
    """Return a dataclass of settings groups with the layers' values in place of its own, checked.

    Parameters
    ----------
    base
        A dataclass whose fields are `Settings`, one per step.
    *layers
        Mappings group to field to value, the strongest last.

    Raises
    ------
    SettingsError
        If a group or field is unknown, or a value is of the wrong type or out of range.
    """
    groups = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    changes: dict[str, dict[str, Any]] = {name: {} for name in groups}
    for values in layers:
        for name, fields in values.items():
            if name not in groups:
                raise SettingsError(
                    "unknown group of settings",
                    got=_cut(str(name)),
                    fix=one_of(str(name)[:100], sorted(groups)),
                )
            changes[name].update(fields)
    # What a workflow's own presets say is checked as well as what was added.
    return type(base)(**{name: replaced(name, groups[name], changes[name]) for name in groups})


def differences(settings: Any) -> dict[str, Any]:
    """Return the values, by `group.field`, in which a dataclass of settings groups is not at its defaults."""
    found = {}
    for group in dataclasses.fields(settings):
        values = getattr(settings, group.name)
        usual = type(values)()
        for field in dataclasses.fields(values):
            if getattr(values, field.name) != getattr(usual, field.name):
                found[f"{group.name}.{field.name}"] = getattr(values, field.name)
    return found


def replaced(name: str, group: Group, fields: Mapping[str, Any]) -> Group:
    """Return a dataclass with some values replaced, checked.

    Parameters
    ----------
    name
        What errors call it.
    group
        The dataclass.
    fields
        Values by field.

    Raises
    ------
    SettingsError
        If a field is unknown, or a value is of the wrong type or out of range.
    """
    current = {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}  # type: ignore[arg-type]
    for field in fields:
        if field not in current:
            raise SettingsError(
                f"unknown setting {name}.{_cut(str(field))}", fix=one_of(str(field)[:100], sorted(current))
            )
    if wrong := _boolean_for_number(group, fields):
        raise SettingsError(f"setting {name}.{wrong} is not valid", got="true or false", fix="give a number")
    try:
        return TypeAdapter(type(group)).validate_python({**current, **fields})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join([name, *(str(part) for part in first["loc"])])
        raise SettingsError(
            f"setting {where} is not valid", got=_shown(first["input"]), fix=first["msg"]
        ) from error
    except SettingsError as error:  # of a class that checks itself
        raise SettingsError(f"setting {name}: {error.what}", got=error.got, fix=error.fix) from error


def _boolean_for_number(group: Any, fields: Mapping[str, Any]) -> str | None:
    """Return the first field that is given true or false and holds numbers; Python takes them for 1 and 0."""
    for field, value in fields.items():
        current = getattr(group, field, None)
        if dataclasses.is_dataclass(current) and isinstance(value, Mapping):
            if wrong := _boolean_for_number(current, value):
                return f"{field}.{wrong}"
        elif not isinstance(current, bool):
            several = value if isinstance(value, list | tuple) else [value]
            if any(isinstance(one, bool) for one in several):
                return field
    return None


def _shown(value: Any) -> str:
    """Return a value as an error shows it: short, also of a number that Python refuses to write out."""
    try:
        return _cut(repr(value))
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too long to show"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
