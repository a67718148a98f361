"""The table of extractors: what there is by name, what each needs, and how it is opened.

Each file in `lmr.features.kinds` brings its own entries, so adding an extractor is adding a file there.
Entries are cheap: a network's module is imported when it is opened, so that torch stays optional. Code of
one's own needs no entry: `my_module.py:Extractor` names it (`lmr.features.own.code`).
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar

from lmr.errors import LmrError, SettingsError
from lmr.features import kinds
from lmr.features.interfaces import GlobalExtractor, LocalExtractor
from lmr.features.kinds._kind import GlobalKind, GlobalRequest, LocalKind, LocalRequest
from lmr.features.own.code import OwnCode, is_own
from lmr.features.own.wrapped import OwnGlobal, OwnLocal
from lmr.features.settings import GemSettings, OnnxSettings, Precision

__all__ = [
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
    "recommended",
]

Kind = TypeVar("Kind", LocalKind, GlobalKind)
OWN = "my_module.py:Extractor"


@cache
def local_kinds() -> Mapping[str, LocalKind]:
    """Return the kinds of local features by name."""
    return {kind.name: kind for kind in _entries() if isinstance(kind, LocalKind)}


@cache
def global_kinds() -> Mapping[str, GlobalKind]:
    """Return the kinds of global descriptors by name."""
    return {kind.name: kind for kind in _entries() if isinstance(kind, GlobalKind)}


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


def _entries() -> list[LocalKind | GlobalKind]:
    found: list[LocalKind | GlobalKind] = []
    for module in pkgutil.iter_modules(kinds.__path__):
        if not module.name.startswith("_"):
            found += importlib.import_module(f"{kinds.__name__}.{module.name}").KINDS
    return found


def _kind(name: str, there: Mapping[str, Kind], what: str) -> Kind:
    if name in there:
        return there[name]
    raise SettingsError(
        f"there is no such {what}", got=name, fix=f"one of: {', '.join(there)}; or {OWN}, your own"
    )
