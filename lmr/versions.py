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
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def line() -> str:
    """Return all versions as one line, `name=version name=version …`, `none` for what is not installed."""
    return " ".join(f"{name}={number or 'none'}" for name, number in installed().items())


if __name__ == "__main__":
    print(line(), flush=True)
