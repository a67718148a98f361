"""What comes with lmr beside its code, in a checkout or in a wheel: deploy/, docker/ and docs/."""

import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lmr.errors import LmrError

__all__ = ["PACKAGED", "files", "shipped", "source_digest", "sources"]

PACKAGED = "lmr/_shipped"
"""Where a wheel has these files."""

_ROOT = Path(__file__).parents[1]
_CODE = ("lmr", "workflows")


def shipped(name: str) -> Path:
    """Return where a file is that comes with lmr.

    Parameters
    ----------
    name
        Its path in a checkout, such as `deploy/aws/stack.yaml`.

    Raises
    ------
    LmrError
        If this installation lacks it.
    """
    packaged = _ROOT / PACKAGED / name
    path = packaged if packaged.is_file() else _ROOT / name
    if not path.is_file():
        raise LmrError(f"this installation of lmr lacks {name}", got=str(_ROOT), fix="install lmr again")
    return path


def files() -> Mapping[str, Path]:
    """Return all files that come with lmr beside its code, by their path in a checkout.

    pyproject.toml lists them one by one: whoever works in these folders has keys and lists of servers there.
    """
    packaged = _ROOT / PACKAGED
    if packaged.is_dir():
        return {path.relative_to(packaged).as_posix(): path for path in _below(packaged)}
    project = tomllib.loads(shipped("pyproject.toml").read_text())
    return {
        name: shipped(name) for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    }


def sources() -> Mapping[str, Path]:
    """Return lmr's own code, by its path in a checkout."""
    packaged = _ROOT / PACKAGED
    return {
        path.relative_to(_ROOT).as_posix(): path
        for folder in _CODE
        for path in _below(_ROOT / folder)
        if packaged not in path.parents
    }


@cache
def source_digest() -> str:
    """Return a digest of this installation of lmr: versions alone do not tell a changed checkout."""
    total = hashlib.sha256()
    for name, path in sources().items():
        if name.startswith("lmr/") and path.suffix == ".py":
            total.update(f"{name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def _below(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*"))
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]
