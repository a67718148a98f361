"""Digests that a list gives of its photos: a photo whose bytes are others is told, and not used."""

import hashlib
import re
from collections.abc import Mapping

from lmr.errors import PhotoError

__all__ = ["DIGESTS", "OtherBytes", "check_digests", "is_digest", "with_digests"]

DIGESTS = {"sha256": 64, "md5": 32}
"""Columns of a list that hold digests, and how many hex digits these have."""


class OtherBytes(PhotoError):
    """A photo's bytes are not those that its list tells of."""


def is_digest(kind: str, text: str) -> bool:
    """Tell whether a text is a digest of a kind, in hex digits."""
    return bool(re.fullmatch(f"[0-9a-fA-F]{{{DIGESTS[kind]}}}", text))


def with_digests(stamp: str, digests: Mapping[str, str]) -> str:
    """Return a photo's stamp with its digests, so that another digest makes it another photo.

    Examples
    --------
    >>> with_digests("10 1.5", {"md5": "900150983CD24FB0D6963F7D28E17F72"})
    '10 1.5 md5:900150983cd24fb0d6963f7d28e17f72'
    """
    return " ".join([stamp, *(f"{kind}:{digest.lower()}" for kind, digest in digests.items() if digest)])


def check_digests(content: bytes, stamp: str) -> None:
    """Compare a photo's bytes with the digests in its stamp.

    Raises
    ------
    OtherBytes
        If they are others.
    """
    for word in stamp.split(" ")[2:]:
        kind, colon, wanted = word.partition(":")
        if colon and kind in DIGESTS:
            # MD5 guards against mistakes only; a list that has it alone is compared all the same.
            found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
            if found != wanted:
                raise OtherBytes(
                    f"other bytes than its list tells of: {kind} {found[:12]}…, not {wanted[:12]}…"
                )
