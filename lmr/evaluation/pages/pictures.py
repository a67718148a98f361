"""Pictures for the report: thumbnails, and pairs of photos with lines between their inliers."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageOps

from lmr.errors import LmrError, PhotoError

__all__ = ["data_uri", "match_picture", "thumbnail", "thumbnails"]

# Lines take their colour from the height of their left end, so that neighbours can be told from strays.
_TOP, _MIDDLE, _BOTTOM = (64, 196, 255), (255, 224, 102), (255, 105, 180)
_GAP_PX = 4
_GAP_COLOUR = (128, 128, 128)  # reads as a gap on light and on dark pages
# Drawn larger and shrunk once: Pillow's lines have no smooth edges of their own.
_OVERSAMPLING = 2
_SMALL_QUALITY = 74  # a report holds thousands


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
        made[side_px] = data_uri(_encode(photo, _SMALL_QUALITY))
    return [made[side_px] for side_px in sides_px]


def data_uri(jpeg_bytes: bytes) -> str:
    """Return JPEG bytes as a `data:` URI."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg_bytes).decode()


def match_picture(
    photo_1: bytes, photo_2: bytes, xy_1: ArrayLike, xy_2: ArrayLike, *, height_px: int = 360
) -> bytes:
    """Draw two photos side by side with a line from each inlier to its match.

    Parameters
    ----------
    photo_1, photo_2
        The photos as JPEG bytes.
    xy_1, xy_2
        (n, 2) pixels (x, y) of the n inliers in either upright photo, row by row.
    height_px
        Height of the picture, to which both photos are brought.

    Returns
    -------
    bytes
        JPEG.

    Raises
    ------
    PhotoError
        If the bytes are no photo.
    LmrError
        If the points are not pairs, or lie outside of the photos.
    """
    photos = [_decode(photo_1), _decode(photo_2)]
    points = [_points(xy_1, photos[0], "xy_1"), _points(xy_2, photos[1], "xy_2")]
    if len(points[0]) != len(points[1]):
        raise LmrError("inliers must be pairs of points", got=f"{len(points[0])} and {len(points[1])} points")
    scales = [height_px / photo.height for photo in photos]
    widths = [max(1, round(photo.width * scale)) for photo, scale in zip(photos, scales, strict=True)]
    left_of = [0, widths[0] + _GAP_PX]

    picture = Image.new("RGB", (left_of[1] + widths[1], height_px), _GAP_COLOUR)
    for photo, width, left in zip(photos, widths, left_of, strict=True):
        picture.paste(photo.resize((width, height_px), Image.Resampling.LANCZOS), (left, 0))
    ends = [xy * scale + (left, 0) for xy, scale, left in zip(points, scales, left_of, strict=True)]
    lines = _lines(picture.size, ends[0], ends[1])
    picture.paste(lines, mask=lines)
    return _encode(picture)


def _lines(size: tuple[int, int], ends_1: NDArray[np.float64], ends_2: NDArray[np.float64]) -> Image.Image:
    """Draw lines and their end points on a transparent layer of the picture's size."""
    big = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    layer = Image.new("RGBA", big, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    starts, stops = ends_1 * _OVERSAMPLING, ends_2 * _OVERSAMPLING
    # Hundreds of lines would hide the photos: the more, the fainter.
    opacity = int(np.clip(18_000 / max(len(starts), 1), 90, 220))
    for (x_1, y_1), (x_2, y_2) in zip(starts.tolist(), stops.tolist(), strict=True):
        draw.line((x_1, y_1, x_2, y_2), fill=(*_colour(y_1 / big[1]), opacity), width=_OVERSAMPLING + 1)
    # Points last, so that no line crosses one.
    for ends in zip(starts.tolist(), stops.tolist(), strict=True):
        colour = _colour(ends[0][1] / big[1])
        for x, y in ends:
            draw.circle((x, y), 2.5 * _OVERSAMPLING, fill=(*colour, 255), outline=(0, 0, 0, 160), width=1)
    return layer.resize(size, Image.Resampling.LANCZOS)


def _colour(height: float) -> tuple[int, int, int]:
    """Return the colour at a height in the picture, 0 at the top and 1 at the bottom."""
    stops = np.array([_TOP, _MIDDLE, _BOTTOM])
    red, green, blue = (round(float(np.interp(height, (0, 0.5, 1), channel))) for channel in stops.T)
    return red, green, blue


def _points(xy: ArrayLike, photo: Image.Image, what: str) -> NDArray[np.float64]:
    points = np.asarray(xy, dtype=np.float64)
    if points.size == 0:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise LmrError(f"{what} must be (n, 2) pixels", got=f"shape {points.shape}")
    # Detectors place corners up to a pixel beyond the edge; more means the points are of another frame.
    inside = (points >= -1) & (points <= (photo.width + 1, photo.height + 1))
    if not inside.all():
        raise LmrError(
            f"{what} has points outside of its photo of {photo.width} × {photo.height} pixels",
            got=str(points[~inside.all(axis=1)][0].tolist()),
            fix="pass the photo that the features were extracted from, in its stored size",
        )
    return points


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


def _encode(picture: Image.Image, quality: int = 82) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
