"""Where the real photos, golden outputs and weights lie, if this checkout has them beside it."""

import json
import os
import sys
from pathlib import Path

__all__ = ["shared"]


def shared(relative: str) -> Path:
    """Return the path of a shared file or folder, or end the benchmark, saying why, with a line of JSON."""
    root = Path(os.environ.get("LMR_SHARED", Path(__file__).parents[2] / "shared"))
    path = root / relative
    if not path.exists():
        print(f"skipped: {relative} is not present (set LMR_SHARED to the folder that holds it)")
        print(json.dumps({"skipped": relative}))
        sys.exit(0)
    return path
