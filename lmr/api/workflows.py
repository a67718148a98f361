"""Workflows by name or by file."""

import dataclasses
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from lmr.errors import LmrError, SettingsError, one_line
from lmr.runtime.settings import Settings
from lmr.shipped import sources
from lmr.steps.workflow import Inputs, Workflow
from lmr.text import one_of

__all__ = ["build_workflow", "load_workflow", "preset"]

_SEE = "see workflows/retrieval.py; `lmr files FOLDER` copies it"


def load_workflow(name: str) -> ModuleType:
    """Import a workflow from its file, or by its name from those that come with lmr.

    Parameters
    ----------
    name
        A file that ends in `.py`, or a name such as `retrieval`.

    Raises
    ------
    LmrError
        If there is no such workflow, or the file does not define one; a file that cannot be imported is
        told with its line.
    """
    path = _path(name)
    spec = importlib.util.spec_from_file_location(f"lmr_workflow_{path.stem}", path)
    assert spec is not None  # since its name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _told_with_its_line(path, "cannot be imported"):
        spec.loader.exec_module(module)
    # Workers have lmr, but not this file: what it defines itself goes along with the tasks.
    cloudpickle.register_pickle_by_value(module)
    presets = getattr(module, "PRESETS", None)
    if not (callable(getattr(module, "build", None)) and isinstance(presets, Mapping) and presets):
        raise LmrError(
            f"{name} is not a workflow",
            got="no build(inputs, settings), or no PRESETS by name, in it",
            fix=_SEE,
        )
    return module


def build_workflow(module: ModuleType, inputs: Inputs, settings: Any) -> Workflow:
    """Declare the steps of a workflow.

    Raises
    ------
    LmrError
        If its `build` fails or returns anything else; the line is told.
    """
    path = Path(str(module.__file__))
    with _told_with_its_line(path, "cannot be built"):
        flow = module.build(inputs, settings)
        if isinstance(flow, Workflow) and flow.rankings:
            # What it was given shows when the steps are named.
            for step in flow.targets:
                step.fingerprint  # noqa: B018
            return flow
    kind = "no ranking in it" if isinstance(flow, Workflow) else f"build returned a {type(flow).__name__}"
    raise LmrError(
        f"{path.name} builds no workflow", got=f"{kind} ({path})", fix=f"return Workflow(…); {_SEE}"
    )


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
    found = presets[name]
    if not dataclasses.is_dataclass(found) or not all(
        isinstance(getattr(found, field.name), Settings) for field in dataclasses.fields(found)
    ):
        raise SettingsError(
            f"the preset {name} holds no settings of steps",
            got=f"a {type(found).__name__} in {module.__file__}",
            fix=f"give a dataclass with a field of settings for each step; {_SEE}",
        )
    return found


@contextmanager
def _told_with_its_line(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a user's file raises into an error that names the line; errors of lmr stay."""
    try:
        yield
    except LmrError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        where = f"{path}:{lines[-1]}" if lines else str(path)
        raise LmrError(
            f"the workflow {path.name} {what}", got=one_line(error), fix=f"mend {where}; {_SEE}"
        ) from error


def _path(name: str) -> Path:
    # Not by import: other projects install packages that are called `workflows`.
    ours = {Path(file).stem: path for file, path in sources().items() if file.startswith("workflows/")}
    path = Path(name) if name.endswith(".py") else ours.get(name, Path())
    if not path.is_file():
        known = one_of(name, sorted(ours.keys() - {"__init__"}))
        raise LmrError("there is no such workflow", got=name, fix=f"give the path of a .py file; {known}")
    return path
