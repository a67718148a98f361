"""A workflow on photos, with settings, ready to run."""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from lmr import storage
from lmr.api.calibrations import calibration_of, told_of_calibration
from lmr.api.choices import Choices, check_choices
from lmr.api.inputs import labels_of, photos_of
from lmr.api.layers import layered
from lmr.api.scoring import depth_for, published_of, scoring_of
from lmr.api.workflows import build_workflow, load_workflow
from lmr.errors import SettingsError
from lmr.runtime.finish import Finalizer
from lmr.runtime.settings import layer
from lmr.runtime.steps import closure
from lmr.steps.global_search.search import indexed_notes
from lmr.steps.photos.generations import remember
from lmr.steps.results.folder.datasets import STARTED, RunDatasets, store_datasets
from lmr.steps.results.folder.origins import store_origins
from lmr.steps.results.report.report import finish_run
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs, Weights, Workflow
from lmr.versions import line

__all__ = ["Prepared", "prepare"]

_REMEMBERED = ("local", "descriptor", "device", "search_device", "prune")


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
    about
        What people want to know of the run besides: see `RunDatasets`.
    """

    name: str
    flow: Workflow
    settings: Any
    root: str
    news: tuple[str, ...] = ()
    pruned: bool = False
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        if not self.pruned and self.flow.inputs.vectors is None:
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
    check_choices(choices)
    module = load_workflow(workflow)
    made = layered(module, choices)
    settings, told = made.settings, list(made.told)
    # Workers have other working directories than this process.
    root = storage.absolute(choices.out)
    photos, vectors, of_photos = photos_of(choices, settings, root)
    solution = truth = labels = None
    if getattr(module, "RECOGNISES", False):
        labels, truth, of_labels = labels_of(choices, photos)
        of_photos += of_labels
    elif choices.labels is not None:
        raise SettingsError(
            "this workflow names no landmarks", got="--labels", fix="run recognition, or leave --labels out"
        )
    elif choices.solution:
        solution = solution_for(read_solution(choices.solution), photos, pruned=bool(choices.prune))
    scoring = scoring_of(
        choices.score,
        photos,
        solution=choices.solution,
        truth=choices.truth,
        pruned=bool(choices.prune),
        recognises=getattr(module, "RECOGNISES", False),
    )
    depth = depth_for(scoring, settings, made.users, len(photos.gallery))
    if depth is not None:
        settings = layer(settings, {"rank": {"depth": depth}})
        told.append(f"{', '.join(scoring.whole)} score whole rankings: rank.depth = {depth:,}")
    inputs = Inputs(
        photos=photos,
        vectors=vectors,
        solution=solution,
        protocols=scoring.protocols,
        ground_truth=scoring.truth,
        labels=labels,
        truth=truth,
        weights=_weights(choices.weights),
        local_weights=_weights(choices.local_weights),
        calibration=calibration_of(choices.calibration),
        device=choices.device,
        search_device=choices.search_device,
    )
    flow = build_workflow(module, inputs, settings)
    if choices.search_device != "cpu":
        told += indexed_notes(flow.targets)
    told += told_of_calibration(flow, settings)
    return Prepared(
        name=Path(workflow).stem,
        flow=flow,
        settings=settings,
        root=root,
        news=(*told, *of_photos),
        pruned=bool(choices.prune),
        about=_about(workflow, choices, module, made.base),
    )


def _about(workflow: str, choices: Choices, module: ModuleType, base: Any) -> dict[str, Any]:
    """Return what people want to know of a run, for its report."""
    files = {"weights": choices.weights, "local_weights": choices.local_weights, "labels": choices.labels}
    urls = {
        "gallery": choices.gallery if choices.gallery is not None else choices.gallery_descriptors,
        "queries": choices.queries if choices.queries is not None else choices.query_descriptors,
        "solution": choices.solution,
    }
    return {
        "workflow": workflow,
        "preset": next(name for name, one in module.PRESETS.items() if one is base),
        "preset_settings": json.loads(json.dumps(dataclasses.asdict(base))),
        "started": time.strftime("%Y-%m-%d %H:%M %Z"),
        "versions": line(),
        # What settings do not say: for `lmr retry`, and by which one more photo is described as these were.
        **(
            {"published": published}
            if (published := published_of(choices.dataset, choices.published))
            else {}
        ),
        "choices": {name: getattr(choices, name) for name in _REMEMBERED}
        | {name: url and storage.absolute(url) for name, url in files.items()}
        | _scored(choices)
        | {"workflow": storage.absolute(workflow) if workflow.endswith(".py") else workflow},
        # Arrays have no address.
        **{name: storage.absolute(url) for name, url in urls.items() if isinstance(url, str)},
    }


def _scored(choices: Choices) -> dict[str, Any]:
    """Return what was chosen of scoring by protocols; nothing of what was not."""
    urls = {"truth": choices.truth, "published": choices.published}
    chosen = {
        "score": list(choices.score),
        "dataset": choices.dataset,
        **{name: url and storage.absolute(url) for name, url in urls.items()},
    }
    return {name: value for name, value in chosen.items() if value}


def _weights(url: str | None) -> Weights | None:
    return Weights.of(storage.absolute(url)) if url else None
