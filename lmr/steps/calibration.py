"""A calibration: how what was measured of a pair becomes a probability, kept as a small file.

`lmr calibrate` writes it and `lmr run --calibration` reads it. It says which extractors and settings it was
fitted with, so that a run of others is refused or warned.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lmr.errors import LmrError, SettingsError
from lmr.retrieval.probability import SIGNALS, PairModel
from lmr.storage.json_files import read_json, write_json
from lmr.text import printable

__all__ = ["VERSION", "Calibration", "check_fits", "fitted_part", "read_calibration", "write_calibration"]

VERSION = 1

_MADE_BY = "fit it anew: lmr calibrate RUN --solution solution.csv"
_GROUPS = {
    "inliers": ("verify",),
    "votes": ("index", "search", "asmk"),
    "similarity": ("describe",),
}
"""Groups of settings that the values of a signal come from; all come from `local` where a run has it."""

_KINDS = {
    "local": ("features", "extractor of local features"),
    "describe": ("descriptor", "global descriptor"),
}
_FREE = {("verify", "min_inliers")}  # a threshold; it changes no number of inliers
_GROWN = 10.0  # times the gallery that it was fitted in, from which on a run is warned


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted probability, and what it was fitted with.

    Attributes
    ----------
    model
        How signals become a probability.
    settings
        The settings that the signals come from, by group and name, as plain values.
    weights
        Digest of the networks' weights, by group; those without a network are left out.
    about
        Facts for people: pairs, queries, the Brier score, the size of the gallery.
    """

    model: PairModel
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, float | int | str] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {"version": VERSION, **found}

    @classmethod
    def of_plain(cls, found: Mapping[str, Any]) -> "Calibration":
        """Return what `plain` has made.

        Raises
        ------
        LmrError
            If it is of another version, or its numbers are no probability.
        """
        if found.get("version") != VERSION:
            raise LmrError(
                "another version of lmr made this calibration",
                got=f"version {printable(str(found.get('version')))[:40]}; this lmr reads version {VERSION}",
                fix=_MADE_BY,
            )
        try:
            values = {name: value for name, value in found.items() if name != "version"}
            made = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise _damaged(f"{where or 'the file'}: {first['msg']}") from error
        if problem := _problem(made.model):
            raise _damaged(problem)
        return made


def read_calibration(url: str) -> Calibration:
    """Read a calibration from storage, and check it.

    Raises
    ------
    StorageError
        If there is no such file, or it is not as it was written.
    LmrError
        If another version of lmr wrote it, or its numbers are no probability.
    """
    found: dict[str, Any] = read_json(url, dict[str, Any], fix=_MADE_BY)
    try:
        return Calibration.of_plain(found)
    except LmrError as error:
        raise LmrError(f"{error.what}: {printable(url)}", got=error.got, fix=error.fix) from error


def write_calibration(url: str, calibration: Calibration) -> None:
    """Write a calibration to storage; the file carries a digest."""
    write_json(url, calibration.plain())


def fitted_part(settings: Mapping[str, Any], signals: tuple[str, ...] = SIGNALS) -> dict[str, dict[str, Any]]:
    """Return the settings of a run that the values of some signals come from."""
    groups = ["local", *(group for name in signals for group in _GROUPS[name])]
    return {
        group: {n: v for n, v in settings[group].items() if (group, n) not in _FREE}
        for group in groups
        if isinstance(settings.get(group), Mapping)
    }


def check_fits(
    calibration: Calibration,
    settings: Mapping[str, Any],
    weights: Mapping[str, str],
    signals: tuple[str, ...],
    gallery: int,
) -> list[str]:
    """Refuse a calibration of other extractors; return what else differs, in sentences.

    Parameters
    ----------
    calibration
        The calibration.
    settings, weights
        Of the run, as of `Calibration`.
    signals
        What the run's workflow measures, some of `SIGNALS`.
    gallery
        Photos of the run's gallery.

    Raises
    ------
    SettingsError
        If it needs what the workflow does not measure, or was fitted with other extractors.
    """
    lacking = [name for name in calibration.model.signals if name not in signals]
    if lacking:
        raise SettingsError(
            f"the calibration needs what this workflow does not measure: {', '.join(lacking)}",
            got=f"a workflow that measures {', '.join(signals) or 'nothing of a pair'}",
            fix="fit one on a run of this workflow, or leave --calibration out",
        )
    own = fitted_part(settings, calibration.model.signals)
    for group, (name, what) in _KINDS.items():
        fitted, now = (one.get(group, {}).get(name) for one in (calibration.settings, own))
        same = fitted == now and calibration.weights.get(group, "") == weights.get(group, "")
        if group in own and not same:
            raise SettingsError(
                f"the calibration was fitted with another {what}",
                got=f"{_shown(fitted)} there, {_shown(now)} in this run"
                + (", of other weights" if fitted == now else ""),
                fix="run with the extractors it was fitted with, or fit one on this run: lmr calibrate",
            )
    news = []
    different = [
        f"{group}.{name} = {_shown(values[name])} (this run: {_shown(own[group][name])})"
        for group, values in calibration.settings.items()
        for name in sorted(values.keys() & own.get(group, {}).keys())
        if values[name] != own[group][name]
    ]
    if different:
        news.append(
            f"the calibration was fitted with other settings, so its probabilities may be off:"
            f" {', '.join(different[:5])}{' …' if len(different) > 5 else ''}"
        )
    before = calibration.about.get("gallery")
    if isinstance(before, int) and before and gallery > _GROWN * before:
        news.append(
            f"the calibration was fitted in a gallery of {before:,} photos; this one has {gallery:,}, which"
            " hold more photos that look like a query by chance: its probabilities may be too high"
        )
    return news


def _problem(model: PairModel) -> str:
    """Say what is wrong with a model; nothing of a good one."""
    numbers = [*model.weights, model.offset, *(number for knot in model.curve for number in knot)]
    if not all(map(math.isfinite, numbers)):
        return "a number is not finite"
    if (
        not model.signals
        or not set(model.signals) <= set(SIGNALS)
        or len(set(model.signals)) < len(model.signals)
    ):
        return f"signals are {', '.join(SIGNALS)}, each once"
    if len(model.weights) != len(model.signals) or min(model.weights) < 0 or model.noise_inliers < 0:
        return "every signal has a weight of 0 or more, and so has noise"
    odds, said = [knot[0] for knot in model.curve], [knot[1] for knot in model.curve]
    if odds != sorted(odds) or said != sorted(said) or any(not 0 <= one <= 1 for one in said):
        return "the curve does not rise from 0 to 1"
    return ""


def _damaged(got: str) -> LmrError:
    return LmrError("this is no calibration that lmr wrote", got=printable(got)[:300], fix=_MADE_BY)


def _shown(value: Any) -> str:
    return printable(str(value))[:60]
