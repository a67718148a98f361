"""Pictures for the report: photos made small, inside the page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageOps

from lmr.errors import PhotoError

__all__ = ["data_uri", "thumbnail", "thumbnails"]

_QUALITY = 74


def thumbnail(jpeg_bytes: bytes, side_px: int = 160) -> str:
    """Return a photo, upright and at most `side_px` on its long side, as a `data:` URI for a page.

    Raises
    ------
    PhotoError
        If the bytes are no photo.
    """
    return thumbnails(jpeg_bytes, (side_px,))[0]


def thumbnails(jpeg_bytes: bytes, sides_px: Sequence[int]) -> list[str]:
    """Return a photo in several sizes, decoded once; see `thumbnail`."""
    photo = _decode(jpeg_bytes, max(sides_px))
    made: dict[int, str] = {}
    for side_px in sorted(set(sides_px), reverse=True):
        photo.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        made[side_px] = data_uri(_encode(photo))
    return [made[side_px] for side_px in sides_px]


def data_uri(jpeg_bytes: bytes) -> str:
    """Return JPEG bytes as a `data:` URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes).decode()


def _decode(jpeg_bytes: bytes, side_px: int | None = None) -> Image.Image:
    """Decode upright to RGB; JPEGs at the smallest of their scales that has `side_px`."""
    try:
        with Image.open(io.BytesIO(jpeg_bytes)) as image:
            if side_px is not None:
                image.draft("RGB", (side_px, side_px))
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PhotoError(
            "a photo for the report cannot be decoded", got=" ".join(str(error).split())[:200]
        ) from error


def _encode(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()
