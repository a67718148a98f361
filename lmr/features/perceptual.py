"""Perceptual hashes: bits that stay the same when a photo is shrunk or encoded again."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmr.errors import LmrError

__all__ = ["HASH_BYTES", "HASH_SIDE_PX", "need_imagehash", "perceptual_hash"]

HASH_BYTES = 32
"""A hash has 256 bits: signs of the 16 x 16 lowest frequencies of a photo in grey."""

HASH_SIDE_PX = 128
"""Photos are decoded to this long side; the hash itself looks at 64 x 64 pixels."""

_FLATTEST = 4.0
"""Standard deviation of grey levels below which a photo is plain: its bits would be those of noise."""


def perceptual_hash(photo: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the perceptual hash of a photo, or None for a plain one, such as a wall.

    It is the hash by discrete cosine transform of the library ImageHash (Zauner, *Implementation and
    Benchmarking of Perceptual Image Hash Functions*, 2010).

    Parameters
    ----------
    photo
        (height, width, 3) uint8 RGB, best of about `HASH_SIDE_PX`.

    Returns
    -------
    (32,) uint8, 256 bits.

    Raises
    ------
    LmrError
        If ImageHash is not installed.
    """
    need_imagehash()
    import imagehash

    grey = Image.fromarray(photo).convert("L")
    if np.asarray(grey, np.float32).std() < _FLATTEST:
        return None
    bits = imagehash.phash(grey, hash_size=16).hash
    return np.packbits(np.asarray(bits, bool).ravel())


def need_imagehash() -> None:
    """Refuse to go on without the library ImageHash.

    Raises
    ------
    LmrError
        If it is not installed here.
    """
    try:
        import imagehash  # noqa: F401
    except ModuleNotFoundError as error:
        raise LmrError(
            "near copies are found by the library ImageHash",
            got=str(error),
            fix='pip install "lmr[duplicates]"',
        ) from error
