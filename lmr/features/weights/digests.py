"""SHA-256 of files."""

import hashlib
from pathlib import Path

from lmr.errors import LmrError

__all__ = ["sha256_of", "sha256_of_bytes"]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Raises
    ------
    LmrError
        If the file is missing.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise LmrError(f"there are no weights at {path}", fix="see: lmr weights list") from error


def sha256_of_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
