"""Settings of steps, their fingerprints, and where their values come from.

A step's settings are a frozen, keyword-only dataclass. What a run uses is layered: the dataclass's
defaults, a TOML file, then `--set group.field=value`.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lmr import storage
from lmr.errors import SettingsError

__all__ = [
    "ADDED_LATER",
    "Part",
    "Settings",
    "differences",
    "digest",
    "layer",
    "parse_overrides",
    "read_toml",
    "replaced",
]

Group = TypeVar("Group")

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
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    raise TypeError(f"a setting of type {type(value).__name__} has no stable fingerprint")


def _counts(field: dataclasses.Field[Any], value: Any) -> bool:
    if not field.metadata.get("added_later"):
        return True
    usual = field.default_factory() if callable(field.default_factory) else field.default
    return bool(getattr(value, field.name) != usual)


def read_toml(url: str) -> dict[str, dict[str, Any]]:
    """Read a TOML file of settings: one table per step."""
    try:
        values = tomllib.loads(storage.read(url).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{url} is not valid TOML", got=str(error), fix="see docs/reference/settings.md"
        ) from error
    for name, table in values.items():
        if not isinstance(table, dict):
            raise SettingsError(
                f"{url}: {name!r} stands outside any table", fix=f"put it under its step: [step]\n{name} = …"
            )
    return values


def parse_overrides(items: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse `group.field=value` items; values are read as TOML, and as plain text where that fails."""
    values: dict[str, dict[str, Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        group, dot, field = name.strip().partition(".")
        if not (equals and dot and group and field):
            raise SettingsError(
                "--set takes group.field=value", got=item, fix="for example --set verify.min_inliers=30"
            )
        try:
            value = tomllib.loads(f"v = {text.strip()}")["v"]
        except tomllib.TOMLDecodeError:
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
    for values in layers:
        for name, fields in values.items():
            if name not in groups:
                raise SettingsError(
                    "unknown group of settings", got=name, fix=f"one of: {', '.join(sorted(groups))}"
                )
            groups[name] = replaced(name, groups[name], fields)
    return type(base)(**groups)


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
                f"unknown setting {name}.{field}", fix=f"one of: {', '.join(sorted(current))}"
            )
    try:
        return TypeAdapter(type(group)).validate_python({**current, **fields})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *(str(part) for part in first["loc"])])
        raise SettingsError(
            f"setting {where} is not valid", got=repr(first["input"]), fix=first["msg"]
        ) from error
