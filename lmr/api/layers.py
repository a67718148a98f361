"""The settings of a workflow in layers: a preset, what fits the chosen extractors, and what the user set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lmr.api.choices import Choices
from lmr.api.workflows import preset
from lmr.errors import SettingsError
from lmr.features.extractors import (
    global_kinds,
    is_own,
    local_kinds,
    recommended,
    without_weights,
)
from lmr.runtime.settings import differences, layer, parse_overrides, read_toml

__all__ = ["Layered", "layered"]


@dataclass(frozen=True, kw_only=True)
class Layered:
    """The settings of a workflow, and how they came about.

    Attributes
    ----------
    settings
        Settings of every step.
    base
        Those of the preset, which lie below.
    users
        What the user set, by step and field; the later counts more.
    told
        What the user should know of them, in sentences.
    """

    settings: Any
    base: Any
    users: tuple[Mapping[str, Any], ...]
    told: tuple[str, ...]


def layered(module: ModuleType, choices: Choices) -> Layered:
    """Lay a preset, what fits the chosen extractors, and what the user set over each other.

    Parameters
    ----------
    module
        The workflow.
    choices
        What the user chose.

    Raises
    ------
    SettingsError
        If something that was set is not there, is out of its range, or reads no weights that were given.
    """
    descriptor, told = choices.descriptor, []
    if descriptor == "gem" and choices.weights is None:
        descriptor, news = without_weights(descriptor)
        told = [news] if news else []
    shortcuts = {"local": {"features": choices.local}, "describe": {"descriptor": descriptor}}
    named = {group: {k: v for k, v in fields.items() if v is not None} for group, fields in shortcuts.items()}
    users = (
        {group: fields for group, fields in named.items() if fields},
        read_toml(choices.config) if choices.config else {},
        choices.settings or {},
        parse_overrides(choices.overrides),
    )
    chosen, news = (choices.preset, None) if choices.preset else _preset_of(module, _descriptor_of(users))
    told += [news] if news else []
    base = preset(module, chosen)
    if choices.preset is not None:
        told.append(f"preset {choices.preset} sets {_listed(differences(base)) or 'nothing'}")
    settings = layer(base, *users)
    fitting = _recommended(settings, base)
    if fitting:
        settings = layer(base, fitting, *users)
        flat = {f"{group}.{k}": v for group, fields in fitting.items() for k, v in fields.items()}
        extractor = getattr(getattr(settings, "local", None), "features", descriptor)
        told.append(f"calibrated for {extractor}: {_listed(flat)}")
    _check_weights(choices, settings)
    return Layered(settings=settings, base=base, users=users, told=tuple(told))


def _check_weights(choices: Choices, settings: Any) -> None:
    """Refuse weights that no extractor would read."""
    local = str(getattr(getattr(settings, "local", None), "features", ""))
    global_ = str(getattr(getattr(settings, "describe", None), "descriptor", ""))
    for given, name, kinds, options in (
        (choices.local_weights, local, local_kinds(), ("--local-weights", "--local")),
        (choices.weights, global_, global_kinds(), ("--weights", "--global")),
    ):
        if given is not None and name in kinds and not kinds[name].needs_weights:
            reading = [one.name for one in kinds.values() if one.needs_weights]
            raise SettingsError(
                f"{name} reads no weights",
                got=f"{options[0]} {given}",
                fix=f"choose what reads them, {options[1]} {' or '.join(reading)}, or leave {options[0]} out",
            )


def _descriptor_of(users: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the global descriptor that a user chose, by the way that counts most; None without one."""
    groups = [group for settings in users if isinstance(group := settings.get("describe"), Mapping)]
    names = [name for group in groups if isinstance(name := group.get("descriptor"), str)]
    return names[-1] if names else None


def _preset_of(module: ModuleType, descriptor: str | None) -> tuple[str | None, str | None]:
    """Return the preset of a global descriptor, and what the user should know of it.

    A descriptor has its own, or that of networks. Without one it is the workflow's first preset, if the
    weights that it needs are installed.
    """
    if descriptor is None:
        first = next(iter(module.PRESETS))
        fitting, news = without_weights(first)
        return (fitting, news) if fitting in module.PRESETS else (first, None)
    if descriptor in module.PRESETS:
        return descriptor, None
    networks = is_own(descriptor) or descriptor in ("lite0", "onnx")
    return ("gem" if networks and "gem" in module.PRESETS else None), None


def _recommended(settings: Any, base: Any) -> dict[str, dict[str, Any]]:
    """Return the values that come with the chosen extractors, where the preset says nothing of its own."""
    chosen = (
        (getattr(settings, "local", None), "features"),
        (getattr(settings, "describe", None), "descriptor"),
    )
    set_by_preset = differences(base)
    fitting: dict[str, dict[str, Any]] = {}
    for group, fields in recommended(*(getattr(part, name, "") for part, name in chosen)).items():
        there = getattr(base, group, None)
        for field, value in fields.items():
            known = hasattr(there, field) and f"{group}.{field}" not in set_by_preset
            if known and getattr(there, field) != value:
                fitting.setdefault(group, {})[field] = value
    return fitting


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
