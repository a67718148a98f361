"""A workflow drawn before there are photos: its steps are declared on photos that nobody has."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from lmr.api.workflows import build_workflow, load_workflow, preset
from lmr.runtime.settings import layer, parse_overrides
from lmr.runtime.steps import Role
from lmr.steps.both import Both
from lmr.steps.drawing import draw_steps
from lmr.steps.features.own_files import Vectors
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.photos.listing import Photos
from lmr.steps.recognition.labels import imagined_labels
from lmr.steps.results.scores import solution_for
from lmr.storage.arrow import Ragged

__all__ = ["draw_workflow"]

_PHOTOS = {"gallery": 2000, "queries": 100}
_DIMENSION = 64


def draw_workflow(workflow: str, preset_name: str | None = None, overrides: Iterable[str] = ()) -> str:
    """Return a drawing of a workflow's steps and datasets, as SVG.

    Parameters
    ----------
    workflow
        The workflow's file, or its name.
    preset_name
        Which of its presets; None: the first one.
    overrides
        Settings as `step.field=value`; some add steps or leave them out.

    Raises
    ------
    LmrError
        If there is no such workflow, preset or setting.
    """
    module = load_workflow(workflow)
    settings: Any = layer(preset(module, preset_name), parse_overrides(tuple(overrides)))
    # A workflow takes photos or descriptors; which of the two, its settings tell.
    names = {field.name for field in dataclasses.fields(settings)}
    inputs = _nobodys("ingest" not in names)
    if getattr(module, "RECOGNISES", False):
        inputs = dataclasses.replace(inputs, solution=None, labels=imagined_labels(inputs.photos.gallery))
    flow = build_workflow(module, inputs, settings)
    labels = {
        ranked.step.name: flow.labels[name] for name, ranked in flow.rankings.items() if name in flow.labels
    }
    return draw_steps(flow.targets, labels)


def _nobodys(described: bool) -> Inputs:
    """Return what a run could start from: photos, or descriptors; nothing of it has to exist."""
    photos = Both(_photos("gallery"), _photos("queries"))
    vectors = Both(_vectors(photos.gallery), _vectors(photos.queries)) if described else None
    if vectors is not None:
        photos = vectors.map(lambda some: some.photos())
    weights = Weights("nobody's", "0" * 64)
    solution = solution_for(dict.fromkeys(photos.queries.ids, photos.gallery.ids[:1]), photos)
    return Inputs(photos=photos, vectors=vectors, solution=solution, weights=weights, local_weights=weights)


def _photos(role: Role) -> Photos:
    ids = tuple(f"{role[0]}{i:04}" for i in range(_PHOTOS[role]))
    return Photos(role, role, ids, tuple(f"{one}.jpg" for one in ids), ("150000 0",) * len(ids))


def _vectors(photos: Photos) -> Vectors:
    count = len(photos)
    regions = Ragged(np.zeros((count, _DIMENSION), np.float16), np.arange(count + 1))
    return Vectors(photos.role, photos.url, photos.ids, regions)
