"""A workflow on photos, with settings, ready to run."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lmr import storage
from lmr.api.workflows import load_workflow, preset
from lmr.runtime.finish import Finalizer
from lmr.runtime.settings import layer, parse_overrides, read_toml
from lmr.runtime.steps import closure
from lmr.steps.both import Both
from lmr.steps.photos.generations import Recalled, recall, remember
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, list_photos
from lmr.steps.results.datasets import STARTED, RunDatasets, store_datasets
from lmr.steps.results.origins import store_origins
from lmr.steps.results.report import finish_run
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs, Weights, Workflow
from lmr.versions import line

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
        What the run did not know of its photos, sentences for the user.
    pruned
        Whether these are the first shards only.
    about
        What people want to know of the run besides: see `RunDatasets`.
    """

    name: str
    flow: Workflow
    settings: Any
    root: str
    news: tuple[str, ...] = ()
    pruned: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def datasets(self) -> RunDatasets:
        """The datasets that it ends in."""
        return RunDatasets.of(self.flow, self.root, self.settings, self.about)

    @property
    def finalizer(self) -> Finalizer:
        """Writes what people read once every shard is there."""
        return partial(finish_run, self.datasets)

    def remember(self) -> None:
        """Store what is run in its folder, so that it can be looked at before it ends, and compared with.

        The photos too, so that a gallery may grow; not those of a smoke test.
        """
        store_datasets(self.datasets, STARTED)
        store_origins(closure(self.flow.targets), self.root)
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
    shortcuts = {"local": {"features": choices.local}, "describe": {"descriptor": choices.descriptor}}
    named = {group: {k: v for k, v in fields.items() if v is not None} for group, fields in shortcuts.items()}
    base = preset(module, choices.preset or choices.descriptor)
    settings = layer(
        base,
        {group: fields for group, fields in named.items() if fields},
        read_toml(choices.config) if choices.config else {},
        choices.settings or {},
        parse_overrides(choices.overrides),
    )
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
        news=_news(known),
        pruned=bool(choices.prune),
        about=_about(workflow, choices, base),
    )


def _about(workflow: str, choices: Choices, base: Any) -> dict[str, Any]:
    """Return what people want to know of a run, for its report."""
    return {
        "workflow": workflow,
        "preset": choices.preset or choices.descriptor or "the workflow's first",
        "preset_settings": dataclasses.asdict(base),
        "gallery": storage.absolute(choices.gallery),
        "queries": storage.absolute(choices.queries),
        "solution": storage.absolute(choices.solution) if choices.solution else "",
        "started": time.strftime("%Y-%m-%d %H:%M %Z"),
        "versions": line(),
    }


def _weights(url: str | None) -> Weights | None:
    return Weights.of(storage.absolute(url)) if url else None


def _news(known: Both[Recalled]) -> tuple[str, ...]:
    """Return what a user should know of the photos, sentences without a full stop."""
    left_out = [f"{role}: {one.photos.left_out}" for role, one in known.items() if one.photos.left_out]
    return (*left_out, *(recalled.news for recalled in known.values() if recalled.news))
