"""Pixels of any kind as 8-bit sRGB: grey of 16 and 32 bits, colour profiles, transparency."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

__all__ = ["stretched", "to_rgb"]

_DEPTHS = (8, 10, 12, 14, 16, 24, 31)
"""Bits that cameras and scanners use of a larger number."""

_TAIL = 0.0005
"""Share of the darkest and of the brightest pixels that does not decide which range is used: hot pixels."""

_NARROW = 1 / 8
"""What uses less than this share of its range is stretched to all of it."""

_SAMPLES = 1 << 20
_SAME_COLOUR = 3
_COLOUR_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def to_rgb(image: Image.Image, profile: bytes = b"") -> Image.Image:
    """Return the image in 8-bit sRGB.

    Grey pixels of more than 8 bits are stretched by the range that they use, transparency is laid over
    white, CMYK and palettes are converted, and a colour profile that is another than sRGB is applied.

    Parameters
    ----------
    image
        A decoded image.
    profile
        Its embedded ICC profile; one that cannot be used counts as none.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(stretched(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    if image.mode not in _COLOUR_SPACES:
        image = image.convert("RGB")
    transform = _to_srgb(profile, image.mode) if profile else None
    return image.convert("RGB") if transform is None else transform.apply(image)


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers of any range as 8 bits.

    Whole numbers are taken as 8, 10, 12, 14, 16, 24 or 31 bits, fractions as from 0 to 1, to 255 or to
    65535: the smallest of these that holds them. When they use a small part of that only, or are negative,
    the part that they use is stretched to all of the range.

    Parameters
    ----------
    values
        (h, w) grey values; those that are no numbers count as 0.
    """
    sample = values.reshape(-1)[:: max(1, values.size // _SAMPLES)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return np.zeros(values.shape, np.uint8)
    low, high = (float(v) for v in np.quantile(sample, [_TAIL, 1 - _TAIL], method="nearest"))
    ends = [2.0**bits - 1 for bits in _DEPTHS]
    if values.dtype.kind == "f":
        ends = [1.0, 255.0, 65535.0]
    end = next((e for e in ends if high <= e), high)
    start, span = 0.0, end
    if low < 0 or (low < high and high - low < _NARROW * end):
        start, span = low, max(high - low, 1e-30)
    scaled = values.astype(np.float32)
    scaled -= start
    # 256 equal parts, as dropping the low bits makes them.
    scaled *= 255.0 / span if values.dtype.kind == "f" or start else 256.0 / (span + 1)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


@lru_cache(maxsize=32)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns pixels of a mode into sRGB; None where there is nothing to do, or no way."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _COLOUR_SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # a damaged profile: without it the photo is read as most software reads it
    if mode == "CMYK":
        return transform
    # Most profiles say sRGB, in one of many ways. Such photos stay as they are, to the bit.
    probe = _probe_colours() if mode == "RGB" else Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    before, after = np.asarray(probe.convert("RGB"), int), np.asarray(transform.apply(probe), int)
    return None if np.abs(before - after).max() <= _SAME_COLOUR else transform


def _probe_colours() -> Image.Image:
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3))
