"""Weights of networks on their way to the workers: named by a digest, fetched once per machine, checked."""

import hashlib
import os
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from lmr import storage
from lmr.errors import LmrError
from lmr.features.weights.fetch import weights_folder
from lmr.features.weights.packaged import packaged_file
from lmr.storage.folders import marked_folder, remove
from lmr.storage.locks import locked

__all__ = ["Weights"]


@dataclass(frozen=True)
class Weights:
    """A file of weights, or a folder of files (DELF as released).

    Attributes
    ----------
    url
        Where it lies: a path that every worker has, any fsspec URL (`s3://bucket/net.pth`), or the address
        of a file in an installed package (`package://name/file`).
    digest
        SHA-256 of its bytes (and of the names, in a folder); the part that counts for fingerprints.
    """

    url: str
    digest: str

    @classmethod
    def of(cls, url: str) -> "Weights":
        """Read a file once and return its digest with its place.

        Raises
        ------
        StorageError
            If the file is missing or cannot be read.
        """
        packaged = packaged_file(url)
        return cls(url, packaged.sha256 if packaged else _digest(url))

    def here(self) -> Path:
        """Return the file's path on this machine; one at a URL is fetched into the cache of weights first.

        However many processes ask at once, one fetches and the others wait. The bytes are checked once per
        process, so that a worker on which the same path holds other weights refuses them.

        Raises
        ------
        LmrError
            If the file is missing, is another one than where the run was started, or cannot be kept.
        """
        return _here(self)

    def check(self) -> None:
        """Refuse a machine that has other weights at this place.

        Raises
        ------
        LmrError
            If so.
        """
        self.here()


@lru_cache(maxsize=8)
def _here(weights: Weights) -> Path:
    if packaged := packaged_file(weights.url):
        return packaged.path()
    if not storage.is_local(weights.url):
        return _fetched(weights)
    path = Path(storage.local_path(weights.url))
    if not path.exists():
        raise LmrError(
            f"there are no weights at {path} on this machine",
            fix="put them where every worker mounts them, or on storage: --weights s3://bucket/FILE",
        )
    _check(path, weights)
    return path


def _check(path: Path, weights: Weights) -> None:
    if (found := _digest(str(path))) != weights.digest:
        raise LmrError(
            f"the weights at {weights.url} are not those that the run was started with",
            got=f"digest {found[:16]}… on this machine, {weights.digest[:16]}… there",
            fix="give all machines the same file, or start the run again with this one",
        )


def _fetched(weights: Weights) -> Path:
    """Return the path in the cache of weights; what is not there, or is damaged, is fetched whole or not."""
    folder = weights_folder() / "fetched" / weights.digest[:16]
    path = folder / PurePosixPath(weights.url.rstrip("/")).name
    # Others may have fetched it: a folder of weights can be shared, and the digest says whether it is right.
    if path.exists() and _digest(str(path)) == weights.digest:
        return path
    temporary = f".{path.name}.{uuid.uuid4().hex}"
    try:
        marked_folder(folder, private=False, fix="set LMR_WEIGHTS to another folder")
        with locked(folder / ".lock"):
            if path.exists() and _digest(str(path)) == weights.digest:
                return path
            try:
                for name in _files(weights.url):
                    target = folder / temporary / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(storage.read(storage.join(weights.url, name)))
                _check(folder / temporary, weights)
                remove(folder, path.name)
                os.replace(folder / temporary, path)
            finally:
                remove(folder, temporary)
    except OSError as error:
        raise LmrError(
            f"cannot keep weights in {folder}", got=str(error), fix="set LMR_WEIGHTS to another folder"
        ) from error
    return path


def _digest(url: str) -> str:
    """Return the SHA-256 of a file, or of a folder's names, sizes and files."""
    names = _files(url)
    if names == [""]:
        return hashlib.sha256(storage.read(url)).hexdigest()
    total = hashlib.sha256()
    for name in names:
        content = storage.read(storage.join(url, name))
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _files(url: str) -> list[str]:
    """Return the files below a folder, relative to it and sorted; of a file (or of nothing) an empty name."""
    return sorted(storage.find(url)) or [""]
