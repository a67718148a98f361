"""Calibrations that a run is given: read, checked against its workflow, and told of."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from lmr import storage
from lmr.errors import SettingsError
from lmr.runtime.steps import Source, closure
from lmr.steps.calibration import Calibration, check_fits, read_calibration
from lmr.steps.workflow import Workflow

__all__ = ["calibration_of", "told_of_calibration"]


def calibration_of(given: str | Mapping[str, Any] | None) -> Calibration | None:
    """Return the calibration that a user gave: a file, at any URL, or what one holds.

    Raises
    ------
    StorageError
        If there is no such file, or it is not as it was written.
    LmrError
        If it is no calibration, or one of another version.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return Calibration.of_plain(given)
    if not (isinstance(given, str) and given):
        raise SettingsError(
            "calibration names no file",
            got=repr(given)[:100],
            fix="give the probability.json that lmr calibrate wrote",
        )
    return read_calibration(storage.absolute(given))


def told_of_calibration(flow: Workflow, settings: Any) -> list[str]:
    """Check that a calibration fits its workflow; return what else people should know, in sentences.

    Raises
    ------
    SettingsError
        If it was fitted with other extractors.
    """
    calibration = flow.inputs.calibration
    if calibration is None:
        return []
    described, local = flow.described, flow.local
    sources: dict[str, Source | None] = {
        "local": local.gallery.source if local else None,
        "describe": described.gallery.source if described else None,
    }
    weights = {group: _weights(source) for group, source in sources.items()}
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    gallery = len(flow.inputs.photos.gallery)
    return check_fits(calibration, plain, weights, flow.signals, gallery)


def _weights(source: Source | None) -> str:
    """Return the digest of the weights that a source was made with; empty without a network."""
    steps = closure(source.parts) if source else []
    return next((step.weights for step in reversed(steps) if step.weights), "")
