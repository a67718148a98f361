"""What made each dataset of a run's folder, so that a plan can say why a step will be made again.

A fingerprint tells that something differs, and not what. So the folder keeps, for each fingerprint, what
went into it: `steps.json` holds the settings, the code revision, the weights and the inputs.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmr import storage
from lmr.errors import StorageError
from lmr.runtime.graph import Plan, StepPlan
from lmr.runtime.settings import Part
from lmr.runtime.steps import Given, Step
from lmr.storage.json_files import read_json, write_json

__all__ = ["Origin", "peculiar", "read_origins", "reasons", "store_origins"]

RECORD = "steps.json"

_INPUT = "its input changes: "


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What went into a dataset.

    Attributes
    ----------
    step, folder
        Name of the step, and its folder below the run's.
    settings
        The settings that its content depends on, as plain values.
    revision, weights, shards
        As of `Step`.
    inputs
        Name of each input to the names and fingerprints of what it reads.
    """

    step: str
    folder: str
    settings: dict[str, Any] = field(default_factory=dict)
    revision: int = 1
    weights: str = ""
    shards: int = 0
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, step: Step) -> "Origin":
        """Return what goes into a step's dataset."""
        return cls(
            step=step.name,
            folder=step.folder,
            settings=_plain(step.settings),
            revision=step.revision,
            weights=step.weights,
            shards=step.shards,
            inputs={name: _input(source) for name, source in step.inputs.items()},
        )


def store_origins(steps: Iterable[Step], root: str) -> None:
    """Add steps to the folder's `steps.json`; nothing is written when all of them are there."""
    known = read_origins(root)
    found = {step.fingerprint: Origin.of(step) for step in steps}
    if found.keys() - known.keys():
        merged = {name: dataclasses.asdict(origin) for name, origin in (known | found).items()}
        write_json(storage.join(root, RECORD), {"steps": merged})


def read_origins(root: str) -> dict[str, Origin]:
    """Return what made each dataset, by fingerprint; empty where nothing was noted or the note is damaged."""
    url = storage.join(root, RECORD)
    if not storage.exists(url):
        return {}
    try:
        found: dict[str, Origin] = read_json(url, dict[str, dict[str, Origin]], fix=f"delete {url}")["steps"]
    except (StorageError, KeyError):
        # It only explains; a plan lacks its reasons rather than the user the plan.
        return {}
    return found


def reasons(plan: Plan) -> list[str]:
    """Say why steps of a plan will be made again, a line each; nothing of steps that were never made.

    Each step is compared with the nearest dataset that the same step has made in this folder before. Steps
    that are made again only because of others are named together.
    """
    known = read_origins(plan.root)
    own: dict[str, list[str]] = {}
    followers: list[str] = []
    for need in plan:
        changes = _changes(need, known, plan.root) if need.missing and not need.present else []
        if said := [change for change in changes if not change.startswith(_INPUT)]:
            own[need.step.name] = said
        elif changes:
            followers.append(need.step.name)
    lines = [f"  {step}: {', '.join(changes)}" for step, changes in own.items()]
    if followers:
        lines.append(f"  and what depends on them: {', '.join(dict.fromkeys(followers))}")
    return ["why steps are made again", *lines] if lines else []


def _changes(need: StepPlan, known: Mapping[str, Origin], root: str) -> list[str]:
    """Return what differs from the nearest dataset that is there; nothing where there is none."""
    now = Origin.of(need.step)
    same = [(_differences(origin, now), name) for name, origin in known.items() if origin.step == now.step]
    for changes, name in sorted(same, key=lambda one: len(one[0])):
        if changes and storage.folder_sizes(storage.join(root, now.folder, name)):
            return changes
    return []


def _differences(before: Origin, now: Origin) -> list[str]:
    """Say what differs between two datasets of one step."""
    changed = [
        f"{name} {_text(before.settings.get(name))} → {_text(now.settings.get(name))}"
        for name in sorted(before.settings.keys() | now.settings.keys())
        if before.settings.get(name) != now.settings.get(name)
    ]
    if before.revision != now.revision:
        changed.append(f"its code, revision {before.revision} → {now.revision}")
    if before.weights != now.weights:
        changed.append("other weights of the network")
    inputs = [
        name
        for role in sorted(before.inputs.keys() | now.inputs.keys())
        if before.inputs.get(role) != now.inputs.get(role)
        for name in dict.fromkeys(now.inputs.get(role) or before.inputs.get(role) or {})
    ]
    changed += [f"{_INPUT}{name}" for name in dict.fromkeys(inputs)]
    if before.shards != now.shards and not inputs:
        changed.append(f"shards {before.shards} → {now.shards}")
    return changed


def peculiar(origin: Origin, latest: Origin) -> str:
    """Say what is peculiar to a dataset compared with the latest one of the same step."""
    settings = [
        f"{name} {_text(origin.settings.get(name))}"
        for name in sorted(origin.settings.keys() | latest.settings.keys())
        if origin.settings.get(name) != latest.settings.get(name)
    ]
    inputs = [change for change in _differences(origin, latest) if change.startswith(_INPUT)]
    others = [f"other {change.removeprefix(_INPUT)}" for change in inputs]
    return ", ".join(settings or others[:1]) or "other code or weights"


def _input(source: Any) -> dict[str, str]:
    if isinstance(source, Given):
        return {source.name: source.fingerprint}
    return {source.step.parts[0].name: source.fingerprint}


def _plain(value: Any) -> Any:
    """Return settings as JSON has them: nested ones flat, by `outer.inner`."""
    if isinstance(value, Part):
        value = dict(value.values)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, tuple) else value
    flat: dict[str, Any] = {}
    for name, one in value.items():
        plain = _plain(one)
        flat |= plain if isinstance(plain, dict) else {str(name): plain}
    return flat


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
