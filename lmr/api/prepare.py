"""A workflow on photos, with settings, ready to run."""

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmr import storage
from lmr.api.calibrations import calibration_of, told_of_calibration
from lmr.api.scoring import depth_for, published_of, scoring_of
from lmr.api.workflows import build_workflow, load_workflow, preset
from lmr.errors import SettingsError
from lmr.features.extractors import (
    global_kinds,
    is_own,
    local_kinds,
    recommended,
    with_weights,
    without_weights,
)
from lmr.runtime.finish import Finalizer
from lmr.runtime.settings import differences, layer, parse_overrides, read_toml
from lmr.runtime.steps import Given, Role, closure
from lmr.steps.both import Both
from lmr.steps.features.own_files import Vectors, check_dimensions, read_vectors
from lmr.steps.features.own_imagined import imagined_vectors
from lmr.steps.global_search.search import indexed_notes
from lmr.steps.photos.generations import Recalled, recall, remember
from lmr.steps.photos.imagined import imagined
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, Photos, list_photos
from lmr.steps.recognition.labels import Labels, imagined_labels, read_labels, truth_of
from lmr.steps.results.datasets import STARTED, RunDatasets, store_datasets
from lmr.steps.results.origins import store_origins
from lmr.steps.results.report import finish_run
from lmr.steps.results.scores import read_solution, solution_for
from lmr.steps.workflow import Inputs, Weights, Workflow
from lmr.versions import line

__all__ = ["Choices", "Prepared", "prepare"]

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_SEARCH_DEVICE = re.compile("cpu|cuda")
_REMEMBERED = ("local", "descriptor", "device", "search_device", "prune")
_MOST_PHOTOS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chooses of a workflow.

    Attributes
    ----------
    out
        Folder or URL of the run.
    gallery, queries
        Folders or URLs of photos.
    gallery_descriptors, query_descriptors
        Descriptors in place of photos: .npy or Parquet files at any URL, or arrays; see
        `lmr.steps.features.own_files`.
    gallery_ids, query_ids
        Their ids: text or Parquet files, or lists; None where they stand in the Parquet file.
    solution
        Kaggle's CSV file `id,images`; None: nothing is scored.
    labels
        For recognition, a CSV or Parquet file `id,landmark` of the gallery; None: its folders name them.
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
    calibration
        File that `lmr calibrate` wrote, or what it holds: each answer gets a probability. None: none.
    device
        Where networks run: "cpu" or "cuda".
    search_device
        Where exact searches run: "cpu"; or "cuda", which is used where a worker has a GPU.
    prune
        First shards of everything only: a smoke test.
    score, truth
        Protocols that every ranking is scored by, and their ground truth where a solution is not enough.
    dataset, published
        Name of the photos' data set, and a file of the figures that papers print of it; None: the one that
        comes along.
    planned
        Whether `gallery` and `queries` may be numbers of photos, and nothing is to be run.
    dimension
        Numbers in a descriptor, of a plan for a workflow on own descriptors.
    """

    out: str
    gallery: str | None = None
    queries: str | None = None
    gallery_descriptors: str | NDArray[np.generic] | None = None
    query_descriptors: str | NDArray[np.generic] | None = None
    gallery_ids: str | Sequence[str] | None = None
    query_ids: str | Sequence[str] | None = None
    solution: str | None = None
    labels: str | None = None
    preset: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, Any]] | None = None
    local: str | None = None
    local_weights: str | None = None
    descriptor: str | None = None
    weights: str | None = None
    calibration: str | Mapping[str, Any] | None = None
    device: str = "cpu"
    search_device: str = "cpu"
    prune: int | None = None
    planned: bool = False
    dimension: int = 2048
    score: Sequence[str] = ()
    truth: str | None = None
    dataset: str | None = None
    published: str | None = None


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
    _check(choices)
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
    # Workers have other working directories than this process.
    root = storage.absolute(choices.out)
    vectors = _imagined(choices) if choices.planned and _takes_vectors(settings) else _vectors(choices)
    of_photos: tuple[str, ...] = ()
    if vectors is not None:
        if choices.prune:
            count = choices.prune * _photos_per_shard(settings)
            vectors = vectors.map(lambda some: some.first(count))
        photos = vectors.map(lambda some: some.photos())
    else:
        photos, of_photos = _photos(choices, root)
        if choices.prune:
            count = choices.prune * _photos_per_shard(settings)
            photos = photos.map(lambda some: some.first(count))
    solution = truth = labels = None
    if getattr(module, "RECOGNISES", False):
        labels, truth, of_labels = _recognition(choices, photos)
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
    depth = depth_for(scoring, settings, users, len(photos.gallery))
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
        about=_about(workflow, choices, next(n for n, one in module.PRESETS.items() if one is base), base),
    )


def _about(workflow: str, choices: Choices, preset_name: str, base: Any) -> dict[str, Any]:
    """Return what people want to know of a run, for its report."""
    weights = {"weights": choices.weights, "local_weights": choices.local_weights}
    urls = {
        "gallery": choices.gallery if choices.gallery is not None else choices.gallery_descriptors,
        "queries": choices.queries if choices.queries is not None else choices.query_descriptors,
        "solution": choices.solution,
    }
    return {
        "workflow": workflow,
        "preset": preset_name,
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
        | {name: url and storage.absolute(url) for name, url in weights.items()}
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


def _check(choices: Choices) -> None:
    """Refuse choices of the wrong kind, before anything is looked at."""
    for name in ("gallery", "queries", "out"):
        value = getattr(choices, name)
        if value is None and name != "out":
            continue  # descriptors may take its place
        if not (isinstance(value, str) and value):
            raise SettingsError(f"{name} names no folder", got=repr(value), fix="give a folder or a URL")
    for name in ("solution", "labels", "preset", "config", "local", "local_weights", "descriptor", "weights"):
        if not isinstance(value := getattr(choices, name), str | None):
            raise SettingsError(
                f"{name} is no text", got=repr(value)[:100], fix="give a name, a path or a URL"
            )
    for device, known in ((choices.device, _DEVICE), (choices.search_device, _SEARCH_DEVICE)):
        if not (isinstance(device, str) and known.fullmatch(device)):
            raise SettingsError("there is no such device", got=repr(device)[:100], fix="give cpu or cuda")
    prune = choices.prune
    if prune is not None and (isinstance(prune, bool) or not isinstance(prune, int) or prune < 1):
        raise SettingsError("prune is no number of shards", got=repr(prune)[:100], fix="give 1 or more")


def _photos(choices: Choices, root: str) -> tuple[Both[Photos], tuple[str, ...]]:
    """List gallery and queries as the run knows them; tell what is new to it."""
    if choices.gallery is None or choices.queries is None:
        given = [name for name in ("gallery", "queries") if getattr(choices, name) is not None]
        raise SettingsError(
            "there is nothing to search",
            got=f"the {given[0]} only" if given else "neither photos nor descriptors",
            fix="give --gallery and --queries, or --gallery-descriptors and --query-descriptors",
        )
    if choices.planned:
        return Both(_counted("gallery", choices.gallery), _counted("queries", choices.queries)), ()
    urls = Both(choices.gallery, choices.queries).map(storage.absolute)
    known = Both(
        recall(list_photos("gallery", urls.gallery), root), recall(list_photos("queries", urls.queries), root)
    )
    return known.map(lambda recalled: recalled.photos), _news(known)


def _takes_vectors(settings: Any) -> bool:
    """Tell whether a workflow takes descriptors in place of photos, by its settings."""
    return not hasattr(settings, "ingest")


def _imagined(choices: Choices) -> Both[Vectors]:
    """Return descriptors to plan with, as many as photos were counted."""
    counted = Both(_counted("gallery", choices.gallery or ""), _counted("queries", choices.queries or ""))
    return counted.map(lambda photos: imagined_vectors(photos, choices.dimension))


def _counted(role: Role, given: str) -> Photos:
    """Return photos to plan with: so many that are imagined, or those of a folder."""
    count = given.replace("_", "").replace(",", "")
    if not (count.isascii() and count.isdecimal()):
        return list_photos(role, storage.absolute(given))
    if not 0 < int(count) <= _MOST_PHOTOS:
        raise SettingsError(
            f"--{role} is no number of photos to plan with",
            got=given,
            fix=f"give 1 to {_MOST_PHOTOS:,}, or a folder",
        )
    return imagined(role, int(count))


def _vectors(choices: Choices) -> Both[Vectors] | None:
    """Read and check the descriptors that were given in place of photos; None if none were."""
    gallery, queries = choices.gallery_descriptors, choices.query_descriptors
    if gallery is None and queries is None:
        ids = [name for name in ("gallery_ids", "query_ids") if getattr(choices, name) is not None]
        if ids:
            raise SettingsError(
                "there are ids without descriptors",
                got=" and ".join(f"--{name.replace('_', '-')}" for name in ids),
                fix="give --gallery-descriptors and --query-descriptors too; photos are named by their files",
            )
        return None
    photos = [f"--{name}" for name in ("gallery", "queries") if getattr(choices, name) is not None]
    if gallery is None or queries is None or photos:
        missing = "--gallery-descriptors" if gallery is None else "--query-descriptors"
        raise SettingsError(
            "descriptors take the place of photos, for the gallery and for the queries",
            got=f"{' and '.join(photos)} besides" if photos else f"no {missing}",
            fix="give --gallery-descriptors and --query-descriptors, without --gallery and --queries",
        )
    vectors = Both(
        read_vectors("gallery", gallery, choices.gallery_ids),
        read_vectors("queries", queries, choices.query_ids),
    )
    check_dimensions(vectors)
    return vectors


def _recognition(choices: Choices, photos: Both[Photos]) -> tuple[Labels, Given | None, tuple[str, ...]]:
    """Read the labels of the gallery and the landmarks of the queries; tell what is odd about them."""
    if choices.planned and not photos.gallery.labels and not any("/" in one for one in photos.gallery.places):
        return imagined_labels(photos.gallery), None, ()
    labels, news = read_labels(photos.gallery, choices.labels and storage.absolute(choices.labels))
    if choices.solution is None:
        return labels, None, tuple(news)
    url = storage.absolute(choices.solution)
    truth, more = truth_of(url, photos.queries, labels, pruned=bool(choices.prune))
    return labels, truth, (*news, *more)


def _photos_per_shard(settings: Any) -> int:
    """Return how many photos lie in a shard, by whichever step of a workflow brings them in."""
    found = (getattr(group, "photos_per_shard", None) for group in vars(settings).values())
    return next((count for count in found if count), PHOTOS_PER_SHARD)


def _weights(url: str | None) -> Weights | None:
    return Weights.of(storage.absolute(url)) if url else None


def _news(known: Both[Recalled]) -> tuple[str, ...]:
    """Return what a user should know of the photos, sentences without a full stop."""
    left_out = [f"{role}: {one.photos.left_out}" for role, one in known.items() if one.photos.left_out]
    return (*left_out, *(recalled.news for recalled in known.values() if recalled.news))


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
        fitting, news = with_weights(first)
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
