"""Find every photo of the same landmark in a million, as distributed Dask workflows."""

import os
from pathlib import Path

__version__ = "0.1.0"


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
                from lmr.storage.folders import keep_compiled_code

                keep_compiled_code()
                return


_place_compiled_code()
