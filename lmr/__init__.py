"""Find every photo of the same landmark in a million, as distributed Dask workflows.

>>> import lmr
>>> run = lmr.retrieve("gallery/", "queries/", out="run/")  # doctest: +SKIP
>>> run.matches()  # doctest: +SKIP
>>> lmr.open_run("s3://bucket/runs/first").scores  # doctest: +SKIP
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lmr.api.ask import open_search
    from lmr.api.retrieve import retrieve, run_workflow
    from lmr.errors import LmrError
    from lmr.steps.results.results import Results, open_run
    from lmr.storage.plain import read_shard

__all__ = ["LmrError", "Results", "open_run", "open_search", "read_shard", "retrieve", "run_workflow"]

_PLACES = {
    "LmrError": "lmr.errors",
    "Results": "lmr.steps.results.results",
    "open_run": "lmr.steps.results.results",
    "open_search": "lmr.api.ask",
    "read_shard": "lmr.storage.plain",
    "retrieve": "lmr.api.retrieve",
    "run_workflow": "lmr.api.retrieve",
}


_unplaced: list[Exception] = []


def __getattr__(name: str) -> Any:
    # What is behind a name (Dask, Arrow, OpenCV) is imported when it is asked for, so that `lmr --help` is
    # quick.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    need_place_for_compiled_code()
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])


def _place_compiled_code() -> None:
    """Choose a folder for code that Numba compiles where it cannot lie beside the source, as it does else.

    It has to be chosen before the first compiled module is imported, which fails where Numba finds no folder.
    """
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    for folder, _, files in os.walk(Path(__file__).parent / "retrieval"):
        if any(name.endswith(".py") for name in files):
            beside = os.path.join(folder, "__pycache__")
            if not os.access(beside if os.path.isdir(beside) else folder, os.W_OK | os.X_OK):
                from lmr.errors import StorageError
                from lmr.storage.folders import keep_compiled_code

                try:
                    keep_compiled_code()
                except StorageError as error:
                    _unplaced.append(error)
                return


def need_place_for_compiled_code() -> None:
    """Raise what stood in the way of a place for compiled code, if there is none: nothing can be run then.

    Not when lmr is imported, so that help and version are there in any case.

    Raises
    ------
    StorageError
        If no folder can be written.
    """
    if _unplaced:
        raise _unplaced[0]


_place_compiled_code()
