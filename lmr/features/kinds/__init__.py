"""The table of extractors: one small file per extractor, or per family, brings its entries.

Adding an extractor is adding a file here, with a tuple `KINDS`. It imports nothing heavy: the extractor's own
module is imported when it is opened.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from lmr.features.kinds._kind import GlobalKind, LocalKind

__all__ = ["global_kinds", "local_kinds"]


@cache
def local_kinds() -> Mapping[str, LocalKind]:
    """Return the kinds of local features by name."""
    return {kind.name: kind for kind in _entries() if isinstance(kind, LocalKind)}


@cache
def global_kinds() -> Mapping[str, GlobalKind]:
    """Return the kinds of global descriptors by name."""
    return {kind.name: kind for kind in _entries() if isinstance(kind, GlobalKind)}


@cache
def _entries() -> tuple[LocalKind | GlobalKind, ...]:
    modules = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(kind for name in modules for kind in importlib.import_module(f"{__name__}.{name}").KINDS)
