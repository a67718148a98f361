"""Photos made smaller on the way in, for those who need not keep what their cameras made."""

import io

from PIL import Image

from lmr.features.decoding.decode import MAX_PIXELS, MAX_SCANS, Inspected, decode_photo

__all__ = ["shrink_photo"]

_QUALITY = 95
"""Of the JPEGs that photos become; more makes files larger and no photo better."""


def shrink_photo(
    data: bytes, max_side_px: int, *, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS, note: str = ""
) -> Inspected:
    """Shrink a photo to a long side, upright and in sRGB, and encode it as JPEG.

    Raises as `decode_photo`, for the same photos.
    """
    pixels = decode_photo(data, max_side_px=max_side_px, max_pixels=max_pixels, max_scans=max_scans)
    out = io.BytesIO()
    # Colours at full size: extractors look at grey, and at small things.
    Image.fromarray(pixels).save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return Inspected(pixels.shape[1], pixels.shape[0], note, out.getvalue())
