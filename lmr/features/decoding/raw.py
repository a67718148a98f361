"""Camera raw files: the largest JPEG preview inside, which is what the camera showed of the photo."""

from PIL import Image

from lmr.features.decoding.jpeg import size_of

__all__ = ["is_raw_tiff", "orientation_of", "preview"]

_MAKE, _ORIENTATION, _SUB_IMAGES, _DNG_VERSION = 271, 274, 330, 50706
_MOST_PREVIEWS = 1000


def is_raw_tiff(image: Image.Image) -> bool:
    """Tell whether a TIFF is a camera's raw file (DNG, NEF, ARW): its first image is often a thumbnail."""
    tags = image.getexif()
    return _DNG_VERSION in tags or (_MAKE in tags and _SUB_IMAGES in tags)


def preview(data: bytes) -> bytes:
    """Return the file from its largest JPEG preview on; empty when there is none.

    What comes after a JPEG's end does not disturb a decoder. Sensor data may be a JPEG too, a lossless one.
    """
    best, most, at = b"", 0, -1
    for _ in range(_MOST_PREVIEWS):
        at = data.find(b"\xff\xd8\xff", at + 1)
        if at < 0:
            break
        size = size_of(data, at)
        if size and size[0] * size[1] > most:
            best, most = data[at:], size[0] * size[1]
    return best


def orientation_of(data: bytes) -> int:
    """Return the EXIF orientation of a raw file that is a kind of TIFF; 1 for others."""
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0II*\0" + data[4:] if data[:2] == b"II" else b"Exif\0\0" + data)
        return int(exif.get(_ORIENTATION, 1))
    except Exception:  # no TIFF, or one that Pillow cannot follow: the preview is upright as far as is known
        return 1
