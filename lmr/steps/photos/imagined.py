"""Photos that are only counted: what a plan is made of before there are any."""

from lmr.runtime.steps import Role
from lmr.steps.photos.listing import Photos

__all__ = ["PHOTO_BYTES", "imagined"]

PHOTO_BYTES = 150_000
"""What a photo of a web album takes, of about 1,024 pixels on its long side."""


def imagined(role: Role, count: int) -> Photos:
    """Return so many photos that no file is of; steps can be declared on them, and none be run.

    Each is taken to have `PHOTO_BYTES`.
    """
    ids = tuple(f"{role[0]}{row:08d}" for row in range(count))
    return Photos(role, f"/{role}", ids, tuple(f"{name}.jpg" for name in ids), (f"{PHOTO_BYTES} 0",) * count)
