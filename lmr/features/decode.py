"""Photos from bytes: what cameras and web sites make of them, as upright RGB, or a short reason why not."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from lmr.errors import PhotoError
from lmr.features.interfaces import Photo

__all__ = ["MAX_PIXELS", "decode_photo", "probe_photo"]

MAX_PIXELS = 100_000_000
"""Largest photo decoded, in pixels: 300 MB of RGB. A small file can claim far more (a decompression bomb)."""

# Only kinds of photos: Pillow also opens, for instance, EPS by running Ghostscript.
SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG",
    "WEBP": rb"RIFF....WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "JPEG2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "AVIF": rb"....ftypavi[fs]",
    "PPM": rb"P[1-6]\s",
}
UNSUPPORTED_MODES = frozenset(
    {"F", "LAB"}
)  # floats without a known range; a space that Pillow cannot convert
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_photo(data: bytes, *, max_side_px: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo to upright RGB.

    The EXIF orientation is applied, transparency laid over white, CMYK (as Adobe writes it), palettes, grey
    and 16-bit pixels converted, an animation's first frame taken; colour profiles are not applied.

    Parameters
    ----------
    data
        The bytes of the file.
    max_side_px
        Shrink to this long side (antialiased; never enlarged). A JPEG several times larger is decoded at a
        half, quarter or eighth of its size to begin with, which is several times faster.
    max_pixels
        Refuse larger photos before decoding them.

    Returns
    -------
    (height, width, 3) uint8 RGB, writable.

    Raises
    ------
    PhotoError
        `what` is a short reason: "empty file", "not an image", "truncated JPEG", "damaged PNG", "too
        large: 40000 x 4000 px", "pixels of type F are not supported".
    """
    with _reasons(data):
        image, orientation, _ = _load(data, max_side_px and 2 * max_side_px, max_pixels)
        image = _rgb(image)
        if max_side_px and max(image.size) > max_side_px:
            shrink = max_side_px / max(image.size)
            size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
            image = image.resize(size, Image.Resampling.HAMMING)
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
        return np.array(image, np.uint8)


def probe_photo(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Decode a photo as cheaply as shows whether it is whole; return its upright (width, height) in pixels.

    Raises as `decode_photo`, for the same photos.
    """
    with _reasons(data):
        # A JPEG at an eighth of its size: every byte is read, but few pixels are made.
        _, orientation, (width, height) = _load(data, 1, max_pixels)
        return (height, width) if orientation >= 5 else (width, height)


def _load(data: bytes, enough_px: int | None, max_pixels: int) -> tuple[Image.Image, int, tuple[int, int]]:
    """Return the decoded image, its EXIF orientation (1 to 8) and its full size before turning.

    A JPEG may come smaller, but with a long side of at least `enough_px`.
    """
    image = Image.open(io.BytesIO(data), formats=tuple(SIGNATURES))
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError(f"too large: {width} x {height} px", fix=f"at most {max_pixels} px are decoded")
    if image.mode in UNSUPPORTED_MODES:
        raise PhotoError(f"pixels of type {image.mode} are not supported")
    if enough_px:
        scale = enough_px / max(width, height)
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    image.load()
    # After loading: Pillow has then turned a TIFF itself.
    return image, _orientation(image), (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises nearly anything on a damaged EXIF block; the pixels are fine without it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits, which Pillow clips rather than scales. Mode I has room for 32; photos use 16 of them.
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


class _Quiet:
    """Silences Pillow's warnings while any thread decodes; `catch_warnings` alone is for one thread."""

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.threads == 0:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.threads += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.threads -= 1
            if self.threads == 0:
                self.caught.__exit__(None, None, None)


_QUIET = _Quiet()


@contextmanager
def _reasons(data: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into a PhotoError with a short, stable reason; silence its warnings."""
    if not data:
        raise PhotoError("empty file")
    kind = next((k for k, start in SIGNATURES.items() if re.match(start, data, re.DOTALL)), None)
    with _QUIET:
        try:
            yield
        except (PhotoError, MemoryError):  # no memory is no fault of the photo
            raise
        except Image.DecompressionBombError as error:
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise PhotoError(f"too large: more than {limit} px", got=str(error)) from error
        except UnidentifiedImageError as error:
            what = "not an image" if kind is None else f"damaged {kind}"
            raise PhotoError(what, got=f"a file that begins with {data[:8]!r}") from error
        except (
            Exception
        ) as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
            how = "truncated" if "truncated" in str(error).lower() else "damaged"
            raise PhotoError(f"{how} {kind or 'image'}", got=f"{type(error).__name__}: {error}") from error
