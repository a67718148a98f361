"""Photos made smaller on the way in, for those who need not keep what their cameras made."""

import cv2

from lmr.errors import PhotoError
from lmr.features.decoding.decode import MAX_PIXELS, MAX_SCANS, Inspected, decode_at_least

__all__ = ["shrink_photo"]

_QUALITY = 95
"""Of the JPEGs that photos become; more makes files larger and no photo better."""


def shrink_photo(
    data: bytes, max_side_px: int, *, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS
) -> Inspected:
    """Shrink a photo to a long side, upright and in sRGB, and encode it as JPEG; smaller ones stay.

    A JPEG is decoded at a half, a quarter or an eighth of its size where that is enough, which averages its
    pixels in blocks; the rest is done by averaging areas. So nothing aliases.

    Raises as `inspect_photo`, for the same photos.
    """
    pixels, found = decode_at_least(data, max_side_px, max_pixels=max_pixels, max_scans=max_scans)
    if max(found.width, found.height) <= max_side_px:
        return found
    shrink = max_side_px / max(found.width, found.height)
    size = max(1, round(found.width * shrink)), max(1, round(found.height * shrink))
    cv2.setNumThreads(1)  # the processor time of a photo is bounded
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    turned = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)  # NumPy takes as long to turn colours round as to encode
    done, encoded = cv2.imencode(".jpg", turned, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        raise PhotoError("cannot be encoded as JPEG", got=f"{size[0]} x {size[1]} px")
    return Inspected(*size, found.note, encoded.tobytes())
