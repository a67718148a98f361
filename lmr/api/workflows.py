"""Workflows by name or by file."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from lmr.errors import LmrError, SettingsError
from lmr.shipped import sources
from lmr.text import one_of

__all__ = ["load_workflow", "preset"]


def load_workflow(name: str) -> ModuleType:
    """Import a workflow from its file, or by its name from those that come with lmr.

    Parameters
    ----------
    name
        A file that ends in `.py`, or a name such as `retrieval`.

    Raises
    ------
    LmrError
        If there is no such workflow, or the file does not define one.
    """
    path = _path(name)
    spec = importlib.util.spec_from_file_location(f"lmr_workflow_{path.stem}", path)
    assert spec is not None  # since its name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    # Workers have lmr, but not this file: what it defines itself goes along with the tasks.
    cloudpickle.register_pickle_by_value(module)
    if not (hasattr(module, "build") and hasattr(module, "PRESETS")):
        raise LmrError(
            f"{name} is not a workflow",
            got="no build(inputs, settings) or no PRESETS in it",
            fix="see workflows/retrieval.py; `lmr files FOLDER` copies it",
        )
    return module


def preset(module: ModuleType, name: str | None) -> Any:
    """Return named settings of a workflow; None: its first ones.

    Raises
    ------
    SettingsError
        If it has no such preset.
    """
    presets = module.PRESETS
    name = name or next(iter(presets))
    if name not in presets:
        raise SettingsError("unknown preset", got=name, fix=one_of(name, presets))
    return presets[name]


def _path(name: str) -> Path:
    # Not by import: other projects install packages that are called `workflows`.
    ours = {Path(file).stem: path for file, path in sources().items() if file.startswith("workflows/")}
    path = Path(name) if name.endswith(".py") else ours.get(name, Path())
    if not path.is_file():
        known = one_of(name, sorted(ours.keys() - {"__init__"}))
        raise LmrError("there is no such workflow", got=name, fix=f"give the path of a .py file; {known}")
    return path
