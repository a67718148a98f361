"""Where the real photos, golden outputs and weights lie, if this checkout has them beside it."""

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

__all__ = ["missing", "shared", "shared_or_none"]


def shared(relative: str) -> Path:
    """Return the path of a shared file or folder, or end the benchmark, saying why, with a line of JSON."""
    return shared_or_none(relative) or missing(relative)


def shared_or_none(relative: str) -> Path | None:
    """Return the path of a shared file or folder; None if it is not present."""
    path = Path(os.environ.get("LMR_SHARED", Path(__file__).parents[2] / "shared")) / relative
    return path if path.exists() else None


def missing(relative: str) -> NoReturn:
    """End the benchmark, saying what is not there, with a line of JSON."""
    print(f"skipped: {relative} is not present (set LMR_SHARED to the folder that holds it)")
    print(json.dumps({"skipped": relative}))
    sys.exit(0)
