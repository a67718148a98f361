"""Photos from bytes: what cameras and web sites make of them, as upright RGB, or a short reason why not."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from lmr.errors import PhotoError
from lmr.features.decoding import jpeg, netpbm, png, raw
from lmr.features.decoding.formats import Format, format_of, pillow_name
from lmr.features.decoding.pixels import stretched, to_rgb
from lmr.features.interfaces import Photo

__all__ = [
    "MAX_PIXELS",
    "MAX_SCANS",
    "MOST_PIXELS",
    "MOST_SCANS",
    "Inspected",
    "decode_at_least",
    "decode_photo",
    "inspect_photo",
    "probe_photo",
]

MAX_PIXELS = 100_000_000
"""Largest photo decoded, in pixels: 300 MB of RGB. A small file can claim far more (a decompression bomb)."""

MOST_PIXELS = 178_000_000
"""Largest limit of pixels that can be set: Pillow refuses more."""

MAX_SCANS = 100
"""Most scans of a JPEG; cameras and web sites write 1 to 12."""

MOST_SCANS = 1000
"""Largest limit of scans that can be set."""

MIN_WHOLE_ROWS = 0.95
"""A JPEG whose end is missing is used when this share of its rows decodes."""

UNSUPPORTED_MODES = frozenset({"LAB"})  # a space that Pillow cannot convert
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


@dataclass(frozen=True)
class Inspected:
    """What a look at a photo has shown.

    Attributes
    ----------
    width, height
        Upright size, pixels.
    note
        What is not as it should be with a photo that can be used; empty for most.
    shrunk
        The photo as a smaller JPEG, whose size the above is then; empty where it stays as it is.
    """

    width: int
    height: int
    note: str = ""
    shrunk: bytes = b""


@dataclass(frozen=True)
class _Loaded:
    image: Image.Image
    size: tuple[int, int]
    """Full (width, height) before turning; the image may be smaller."""
    orientation: int
    profile: bytes = b""
    note: str = ""


def decode_photo(
    data: bytes, *, max_side_px: int | None = None, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS
) -> Photo:
    """Decode a photo to upright RGB.

    The EXIF orientation is applied, transparency laid over white, CMYK, palettes and grey of up to 32 bits
    converted, colour profiles applied, an animation's first frame and a raw file's preview taken.

    Parameters
    ----------
    data
        The bytes of the file.
    max_side_px
        Shrink to this long side (antialiased; never enlarged). A JPEG several times larger is decoded at a
        half, quarter or eighth of its size to begin with, which is several times faster.
    max_pixels
        Refuse larger photos before decoding them.
    max_scans
        Refuse JPEGs of more scans before decoding them.

    Returns
    -------
    (height, width, 3) uint8 RGB, writable.

    Raises
    ------
    PhotoError
        `what` is a short reason: "empty file", "not an image", "truncated JPEG", "damaged PNG", "too
        large: 40000 x 4000 px, more than 100,000,000 px".
    """
    with _reasons(data):
        loaded = _load(data, max_side_px and 2 * max_side_px, max_pixels, max_scans)
        image = to_rgb(loaded.image, loaded.profile)
        if max_side_px and max(image.size) > max_side_px:
            shrink = max_side_px / max(image.size)
            size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
            image = image.resize(size, Image.Resampling.HAMMING)
        if loaded.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[loaded.orientation])
        return np.array(image, np.uint8)


def inspect_photo(data: bytes, *, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS) -> Inspected:
    """Decode a photo as cheaply as shows whether it can be used.

    Raises as `decode_photo`, for the same photos.
    """
    with _reasons(data):
        # A JPEG at an eighth of its size: every byte is read, but few pixels are made.
        loaded = _load(data, 1, max_pixels, max_scans)
        width, height = loaded.size if loaded.orientation < 5 else loaded.size[::-1]
        return Inspected(width, height, loaded.note)


def decode_at_least(
    data: bytes, side_px: int, *, max_pixels: int = MAX_PIXELS, max_scans: int = MAX_SCANS
) -> tuple[Photo, Inspected]:
    """Decode a photo to upright RGB as cheaply as a long side of at least `side_px` allows.

    Returns what it decodes, and what `inspect_photo` does. Raises as these, for the same photos.
    """
    with _reasons(data):
        loaded = _load(data, side_px, max_pixels, max_scans)
        width, height = loaded.size if loaded.orientation < 5 else loaded.size[::-1]
        image = to_rgb(loaded.image, loaded.profile)
        if loaded.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[loaded.orientation])
        return np.asarray(image, np.uint8), Inspected(width, height, loaded.note)


def probe_photo(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the upright (width, height) of a photo in pixels; raises as `inspect_photo`."""
    found = inspect_photo(data, max_pixels=max_pixels)
    return found.width, found.height


def _load(data: bytes, enough_px: int | None, max_pixels: int, max_scans: int) -> _Loaded:
    """Decode a photo; a JPEG may come smaller, but with a long side of at least `enough_px`."""
    form = format_of(data)
    if form is None:
        raise PhotoError("not an image", got=f"a file that begins with {data[:8]!r}")
    if not form.pillow:
        return _load_preview(data, form, enough_px, max_pixels, max_scans)
    if form.name == "JPEG":
        data = jpeg.without_padding(data)
        jpeg.check_scans(data, max_scans)
    elif form.name == "PPM" and netpbm.is_text(data):
        _open(data, form, max_pixels)
        data = netpbm.as_binary(data)
    try:
        image = _open(data, form, max_pixels)
        if form.name == "TIFF" and raw.is_raw_tiff(image) and (inner := _larger_preview(data, image)):
            return _load(inner, enough_px, max_pixels, max_scans)
        loaded = _decoded(image, enough_px)
        return _with_low_bits(data, loaded) if form.name in ("PNG", "TIFF") else loaded
    except (PhotoError, MemoryError):
        raise
    except Exception as error:
        # Pixels count, metadata does not.
        if form.name == "PNG":
            image = _open(png.without_metadata(data), form, max_pixels)
            return _decoded(image, enough_px, png.embedded_profile(data))
        if form.name == "JPEG" and "truncated" in str(error).lower():
            return _decoded_until_cut(data, form, max_pixels, error)
        if form.name == "JPEG":
            return _decoded(_open(jpeg.without_metadata(data), form, max_pixels), enough_px)
        raise


def _open(data: bytes, form: Format, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=(pillow_name(form),))
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        size = f"{int(count[0]):,} px" if count else "more"
        raise _too_large(size, max_pixels) from error
    if image.width * image.height > max_pixels:
        raise _too_large(f"{image.width} x {image.height} px", max_pixels)
    if image.mode in UNSUPPORTED_MODES:
        raise PhotoError(f"pixels of type {image.mode} are not supported")
    return image


def _too_large(size: str, max_pixels: int) -> PhotoError:
    return PhotoError(
        f"too large: {size}, more than {max_pixels:,} px",
        fix=f"shrink the photo, or raise ingest.max_pixels (at most {MOST_PIXELS:,})",
    )


def _decoded(image: Image.Image, enough_px: int | None, profile: bytes = b"") -> _Loaded:
    width, height = image.size
    if enough_px:
        scale = enough_px / max(width, height)
        image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
    image.load()
    profile = profile or image.info.get("icc_profile") or b""
    # After loading: Pillow has then turned a TIFF itself.
    return _Loaded(image, (width, height), _orientation(image), profile)


def _with_low_bits(data: bytes, loaded: _Loaded) -> _Loaded:
    """Return a colour photo that uses less than 14 of its 16 bits as stretched by the range that it uses.

    Pillow keeps the upper 8 bits only, which is all that is to be seen of most such photos.
    """
    image = loaded.image
    bits = image.tag_v2.get(258, ()) if isinstance(image, TiffImagePlugin.TiffImageFile) else data[24:25]
    if image.mode not in ("RGB", "RGBA") or set(bits) != {16} or np.asarray(image)[..., :3].max() >= 64:
        return loaded
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        return loaded
    rgb = np.ascontiguousarray(stretched(pixels[..., 2::-1]))
    return replace(loaded, image=Image.fromarray(rgb))


def _decoded_until_cut(data: bytes, form: Format, max_pixels: int, error: Exception) -> _Loaded:
    """Decode a JPEG whose last bytes are missing, if nearly all of its rows are there."""
    ended = _ended(data, form, max_pixels)
    share = _decoded_share(data, ended, form, max_pixels)
    if share < MIN_WHOLE_ROWS:
        raise PhotoError("truncated JPEG", got=f"{share:.0%} of its rows; {error}") from error
    loaded = _decoded(ended, None)
    note = f"cut JPEG: {share:.0%} of its rows decode"
    return _Loaded(loaded.image, loaded.size, loaded.orientation, loaded.profile, note)


def _ended(data: bytes, form: Format, max_pixels: int) -> Image.Image:
    image = _open(data + b"\xff\xd9", form, max_pixels)
    image.load()
    return image


def _decoded_share(data: bytes, ended: Image.Image, form: Format, max_pixels: int) -> float:
    """Return the share of a cut JPEG's rows that is decoded: what its last scan has reached."""
    if not jpeg.is_complete(data):
        return 0.0
    pixels = np.asarray(ended)
    before = np.asarray(_ended(jpeg.without_last_scan(data), form, max_pixels))
    changed = (pixels != before).reshape(*pixels.shape[:2], -1).any(axis=2)
    rows = np.flatnonzero(changed.any(axis=1))
    if not len(rows):
        # Nothing of a finer scan is nothing lost; nothing of the only one is all.
        return float(jpeg.ends_in_refinement(data))
    height, width = changed.shape
    # Blocks are 8 pixels high, and the last row of them may be there in part.
    reached = max(rows[-1] + 1 - 8, 0) + 8 * (np.flatnonzero(changed[rows[-1]])[-1] + 1) / width
    return float(min(reached / height, 1.0))


def _load_preview(
    data: bytes, form: Format, enough_px: int | None, max_pixels: int, max_scans: int
) -> _Loaded:
    inner = raw.preview(data)
    if not inner:
        raise PhotoError(
            f"camera raw file ({form.name}) without a preview", fix="develop it, and give the JPEG"
        )
    loaded = _load(inner, enough_px, max_pixels, max_scans)
    orientation = loaded.orientation if loaded.orientation > 1 else raw.orientation_of(data)
    return _Loaded(loaded.image, loaded.size, orientation, loaded.profile, loaded.note)


def _larger_preview(data: bytes, image: Image.Image) -> bytes:
    """Return the preview inside a raw file that is a TIFF, if it is larger than the file's first image."""
    inner = raw.preview(data)
    size = jpeg.size_of(inner)
    return inner if size and size[0] * size[1] > image.width * image.height else b""


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises nearly anything on a damaged EXIF block; the pixels are fine without it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


class _Quiet:
    """Silences Pillow's warnings while any thread decodes; `catch_warnings` alone is for one thread."""

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.threads == 0:
                self.caught = warnings.catch_warnings()
                self.caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|pillow_|lmr\.features\.decoding")
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
    with _QUIET:
        try:
            yield
        except (PhotoError, MemoryError):  # no memory is no fault of the photo
            raise
        except (
            Exception
        ) as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
            form = format_of(data)
            how = "truncated" if "truncated" in str(error).lower() else "damaged"
            raise PhotoError(
                f"{how} {form.name if form else 'image'}", got=f"{type(error).__name__}: {error}"
            ) from error
