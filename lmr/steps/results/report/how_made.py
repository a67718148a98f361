"""How a run was made, in words: its settings, versions and machines."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmr import storage
from lmr.errors import StorageError
from lmr.evaluation.pages.report import Setting
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.json_files import read_json

__all__ = ["how_made", "machines_noted", "settings_shown"]


def how_made(run: RunDatasets, sources: Iterable[str]) -> dict[str, str]:
    """Return how the run was made, in words; nothing that is not known."""
    labels = {
        "workflow": "Workflow",
        "preset": "Preset",
        "command": "Command",
        "gallery": "Gallery",
        "queries": "Queries",
        "solution": "Solution",
        "started": "Begun",
        "versions": "Versions",
    }
    known = {label: str(run.about[name]) for name, label in labels.items() if run.about.get(name)}
    machines = machines_noted(run.root)
    more = {"Machines": "; ".join(machines), "Code": "; ".join(sources)}
    return {**known, "Folder": run.root, **{label: text for label, text in more.items() if text}}


@dataclass
class _RunRecord:
    notes: list[str]


def machines_noted(root: str) -> list[str]:
    """Return what was noted of the cluster's machines when the run was last submitted to one."""
    url = storage.join(root, "run.json")
    if not storage.exists(url):
        return []
    try:
        record: _RunRecord = read_json(url, _RunRecord, fix="submit the run again")
    except StorageError as error:
        # A report lacks a line rather than the run its report.
        return [f"the machines are not known: {error.what} ({error.got})"]
    return record.notes


def settings_shown(run: RunDatasets) -> dict[str, dict[str, Setting]]:
    """Return the settings of each step as text, each with the preset's value where that is another."""
    preset = run.about.get("preset_settings") or {}
    return {
        step: {
            name: Setting(value=_text(value), preset=_of_preset(_flat(preset.get(step, {})), name, value))
            for name, value in _flat(values).items()
        }
        for step, values in run.settings.items()
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of a group within them, such as a network's, under names of two parts."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            flat[name] = value
    return flat


def _of_preset(preset: Mapping[str, Any], name: str, value: Any) -> str | None:
    return _text(preset[name]) if name in preset and preset[name] != value else None


def _text(value: Any) -> str:
    """Write a value as people do."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
