"""A workflow on photos, with settings, ready to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lmr import storage
from lmr.api.workflows import load_workflow, preset
from lmr.features.extractors import is_own, recommended, without_weights
from lmr.runtime.finish import Finalizer
from lmr.runtime.settings import differences, layer, parse_overrides, read_toml
from lmr.steps.both import Both
from lmr.steps.photos.generations import Recalled, recall, remember
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, list_photos
from lmr.steps.results.datasets import RunDatasets
from lmr.steps.results.report import finish_run
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs, Weights, Workflow

__all__ = ["Choices", "Prepared", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chooses of a workflow.

    Attributes
    ----------
    gallery, queries
        Folders or URLs of photos.
    out
        Folder or URL of the run.
    solution
        Kaggle's CSV file `id,images`; None: nothing is scored.
    preset
        Named settings of the workflow; None: its first ones.
    config
        TOML file of settings, a table per step.
    overrides
        `step.field=value` items; they count most.
    settings
        Settings by step and field, as a Python program gives them.
    local, local_weights
        Kind of the local features, and the weights of their network.
    descriptor, weights
        Kind of the global descriptor, and the weights of its network.
    device
        Where networks run: "cpu" or "cuda".
    prune
        First shards of everything only: a smoke test.
    """

    gallery: str
    queries: str
    out: str
    solution: str | None = None
    preset: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] | None = None
    local: str | None = None
    local_weights: str | None = None
    descriptor: str | None = None
    weights: str | None = None
    device: str = "cpu"
    prune: int | None = None


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A workflow on photos, with settings, and the folder that it runs in.

    Attributes
    ----------
    name
        Name of the workflow.
    flow
        Its steps.
    settings
        Settings of every step.
    root
        The run's folder.
    news
        What the user should know of settings and photos, in sentences.
    pruned
        Whether these are the first shards only.
    """

    name: str
    flow: Workflow
    settings: Any
    root: str
    news: tuple[str, ...] = ()
    pruned: bool = False

    @cached_property
    def datasets(self) -> RunDatasets:
        """The datasets that it ends in."""
        return RunDatasets.of(self.flow, self.root, self.settings)

    @property
    def finalizer(self) -> Finalizer:
        """Writes what people read once every shard is there."""
        return partial(finish_run, self.datasets)

    def remember(self) -> None:
        """Store the photos in the run's folder, so that a gallery may grow; not those of a smoke test."""
        if not self.pruned:
            for photos in self.flow.inputs.photos.values():
                remember(photos, self.root)


def prepare(workflow: str, choices: Choices) -> Prepared:
    """Load a workflow, layer its settings, list its photos, and declare its steps.

    Parameters
    ----------
    workflow
        The workflow's file, or its name.
    choices
        What the user chose.

    Raises
    ------
    LmrError
        If something that was chosen is not there, or does not fit.
    """
    module = load_workflow(workflow)
    descriptor, told = choices.descriptor, []
    if descriptor is not None and choices.weights is None:
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
    base = preset(module, choices.preset or _preset_of(module, descriptor))
    if choices.preset is not None:
        told.append(f"preset {choices.preset} sets {_listed(differences(base)) or 'nothing'}")
    settings = layer(base, *users)
    fitting = _recommended(settings, base)
    if fitting:
        settings = layer(base, fitting, *users)
        flat = {f"{group}.{k}": v for group, fields in fitting.items() for k, v in fields.items()}
        told.append(f"calibrated for {settings.local.features}: {_listed(flat)}")
    # Workers have other working directories than this process.
    root = storage.absolute(choices.out)
    urls = Both(choices.gallery, choices.queries).map(storage.absolute)
    known = Both(
        recall(list_photos("gallery", urls.gallery), root), recall(list_photos("queries", urls.queries), root)
    )
    photos = known.map(lambda recalled: recalled.photos)
    if choices.prune:
        ingest = getattr(settings, "ingest", None)
        count = choices.prune * getattr(ingest, "photos_per_shard", PHOTOS_PER_SHARD)
        photos = photos.map(lambda some: some.first(count))
    truth = None
    if choices.solution:
        truth = solution_for(read_solution(choices.solution), photos, pruned=bool(choices.prune))
    inputs = Inputs(
        photos=photos,
        solution=truth,
        weights=_weights(choices.weights),
        local_weights=_weights(choices.local_weights),
        device=choices.device,
    )
    return Prepared(
        name=Path(workflow).stem,
        flow=module.build(inputs, settings),
        settings=settings,
        root=root,
        news=(*told, *_news(known)),
        pruned=bool(choices.prune),
    )


def _weights(url: str | None) -> Weights | None:
    return Weights.of(storage.absolute(url)) if url else None


def _news(known: Both[Recalled]) -> tuple[str, ...]:
    """Return what a user should know of the photos, sentences without a full stop."""
    left_out = [f"{role}: {one.photos.left_out}" for role, one in known.items() if one.photos.left_out]
    return (*left_out, *(recalled.news for recalled in known.values() if recalled.news))


def _preset_of(module: ModuleType, descriptor: str | None) -> str | None:
    """Return the preset of a global descriptor: its own, or that of networks."""
    if descriptor is None or descriptor in module.PRESETS:
        return descriptor
    networks = is_own(descriptor) or descriptor in ("lite0", "onnx")
    return "gem" if networks and "gem" in module.PRESETS else None


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
