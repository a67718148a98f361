"""What is installed on this machine, for the first line of a log and for comparing machines."""

import platform
from importlib.metadata import PackageNotFoundError, version

from lmr import __version__

__all__ = ["KEY_PACKAGES", "installed", "line"]

KEY_PACKAGES = (
    "dask",
    "distributed",
    "numpy",
    "scipy",
    "numba",
    "faiss-cpu",
    "opencv-python-headless",
    "pyarrow",
    "s3fs",
    "torch",
    "dask-cuda",
)

INSTEAD = {"faiss-cpu": "faiss-gpu"}
"""The same library with a part for GPUs, which excludes the other; it counts under the other's name."""


def installed() -> dict[str, str | None]:
    """Return the versions of lmr, Python and the packages that results depend on.

    Nothing is imported: the answer comes from the packages' own records, in milliseconds.

    Returns
    -------
    versions
        Name to version; None for a package that is not installed.
    """
    found: dict[str, str | None] = {"lmr": __version__, "python": platform.python_version()}
    for name in KEY_PACKAGES:
        found[name] = _version(name) or _version(INSTEAD.get(name, name))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def line() -> str:
    """Return all versions as one line, `name=version name=version …`, `none` for what is not installed."""
    return " ".join(f"{name}={number or 'none'}" for name, number in installed().items())


if __name__ == "__main__":
    print(line(), flush=True)
