"""What comes with lmr beside its code, from a checkout or a wheel: workflows, deploy, docker and docs."""

import hashlib
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lmr.errors import LmrError

__all__ = ["files", "packed", "shipped", "source_digest", "sources"]

PACKAGED = "lmr/_shipped"
"""Where a wheel has these files, so that it installs no top-level name but `lmr`."""

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
    """Return the files that come with lmr beside its code, by their path in a checkout."""
    return {name: path for name, path in _all().items() if not _is_code(name)}


def sources() -> Mapping[str, Path]:
    """Return lmr's own code and workflows, by their path in a checkout."""
    return {name: path for name, path in _all().items() if _is_code(name)}


def packed() -> Mapping[str, Path]:
    """Return everything that a wheel of lmr holds, by its path in the wheel."""
    return {
        name if name.startswith("lmr/") else f"{PACKAGED}/{name}": path
        for name, path in sorted(_all().items())
    }


@cache
def source_digest() -> str:
    """Return a digest of this installation of lmr: versions alone do not tell a changed checkout."""
    total = hashlib.sha256()
    for name, path in _found(_ROOT, "lmr/**/*.py").items():
        if not name.startswith(f"{PACKAGED}/"):
            total.update(f"{name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def _is_code(name: str) -> bool:
    return name.split("/")[0] in _CODE


def _all() -> dict[str, Path]:
    packaged = _ROOT / PACKAGED
    if packaged.is_dir():
        code = _found(_ROOT, "lmr/**/*")
        own = {name: path for name, path in code.items() if packaged not in path.parents}
        return own | _found(packaged, "**/*")
    build: Mapping[str, Any] = tomllib.loads(shipped("pyproject.toml").read_text())["tool"]["hatch"]["build"]
    found = [_found(_ROOT, pattern.removeprefix("/")) for pattern in build["include"]]
    single = {name: shipped(name) for name in build["targets"]["wheel"]["force-include"]}
    return {name: path for each in (*found, single) for name, path in each.items()}


def _found(folder: Path, pattern: str) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.glob(pattern))
        if path.is_file() and "__pycache__" not in path.parts
    }
