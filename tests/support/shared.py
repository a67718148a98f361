"""Where the golden outputs, real photos and weights lie, if this checkout has them beside it."""

import os
from pathlib import Path

import pytest

__all__ = ["shared"]


def shared(relative: str) -> Path:
    """Return the path of a shared file or folder, or skip the test with the reason.

    The folder is `$LMR_SHARED`, or `shared` beside the checkout.
    """
    root = Path(os.environ.get("LMR_SHARED", Path(__file__).parents[3] / "shared"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"shared data not present: {relative} (set LMR_SHARED to the folder that holds it)")
    return path
