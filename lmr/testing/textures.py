"""Procedural surfaces, all cheap: cut from one noise tile, tinted through a 256-entry colour ramp.

Everything is painted in RGB, uint8, at `PX_PER_M` texture pixels per metre.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["PX_PER_M", "Rgb", "Texture", "masonry", "mix", "noise", "ornament", "ramp", "timber"]

PX_PER_M = 32
"""Texture pixels per metre: a façade of 15 m that fills a photo of 512 px is shown at about its own size."""

Texture = NDArray[np.uint8]
"""(height, width, 3) uint8 RGB, or (height, width) uint8 for tones and masks."""

Rgb = tuple[int, int, int]

_TILE = 1024
_SHARES = np.linspace(0, 1, 256).reshape(256, 1, 1)


def mix(a: Sequence[int], b: Sequence[int], share_of_b: float) -> Rgb:
    """Blend two colours linearly."""
    r, g, bl = (round(x + (y - x) * share_of_b) for x, y in zip(a, b, strict=True))
    return r, g, bl


@lru_cache(maxsize=1)
def _noise_tile() -> Texture:
    # One tile for every process: a constant of the renderer, not of a world. Octaves halve in strength less
    # than in size, which gives plaster, leaves and clouds from the same picture at different zooms.
    rng = np.random.default_rng(20181)
    total = np.zeros((_TILE, _TILE), np.float32)
    for octave, strength in ((8, 0.8), (32, 1.0), (128, 0.8), (512, 0.7), (1024, 0.6)):
        layer = rng.standard_normal((octave, octave), dtype=np.float32)
        total += strength * cv2.resize(layer, (_TILE, _TILE), interpolation=cv2.INTER_CUBIC)
    total -= total.mean()
    tile = np.clip(128 + 42 * total / total.std(), 0, 255).astype(np.uint8)
    tile.flags.writeable = False
    return np.asarray(tile, np.uint8)


def noise(rng: np.random.Generator, height: int, width: int, zoom: float = 1.0) -> Texture:
    """Cut noise from the tile, never the same twice.

    Parameters
    ----------
    rng
        Chooses what to cut.
    height, width
        Size of the result in pixels.
    zoom
        Pixels of the result per pixel of the tile; above 1 the noise is smoother, below 1 finer.

    Returns
    -------
    (height, width) uint8, mean about 128, standard deviation about 42.
    """
    tile = _noise_tile()
    h, w = (min(max(int(n / zoom), 2), _TILE - 1) for n in (height, width))
    # The sum of two windows, weighted so that the spread stays: one window alone would soon turn up again in
    # another photo, and its leaves or stains would match there.
    y, x = rng.integers(_TILE - h, size=2), rng.integers(_TILE - w, size=2)
    cuts = [tile[b : b + h, a : a + w] for a, b in zip(x, y, strict=True)]
    cut = cv2.addWeighted(cuts[0], 0.71, cuts[1], 0.71, -53)
    if (h, w) == (height, width):
        return np.asarray(cut, np.uint8)
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def ramp(tone: Texture, dark: Rgb, light: Rgb) -> Texture:
    """Colour a (h, w) tone picture: 0 becomes `dark`, 255 `light`; (h, w, 3) uint8."""
    lut = (np.array(dark) * (1 - _SHARES) + np.array(light) * _SHARES + 0.5).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([tone, tone, tone]), lut), np.uint8)


def masonry(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    colour: Rgb,
    block_m: tuple[float, float],
    contrast: float,
    joint: float,
) -> Texture:
    """Paint courses of blocks, each with its own tone, under weather stains.

    Parameters
    ----------
    rng
        Chooses tones and stains; two walls of one style differ in them.
    height, width
        Size in texture pixels.
    colour
        Mean colour.
    block_m
        Height and width of one block in metres; (0, 0) paints plaster.
    contrast
        Spread of the tones among blocks, 0 to 1.
    joint
        Darkness of the joints, 0 to 1.
    """
    stains = noise(rng, height, width, zoom=4.0)
    if block_m[0] > 0:
        bh, bw = (max(int(m * PX_PER_M), 2) for m in block_m)
        rows, cols = height // bh + 2, width // bw + 2
        # Half-block cells, so that every other course can be shifted by half a block.
        cells = np.repeat(rng.normal(128, 150 * contrast, (rows, cols)), 2, axis=1)
        cells[1::2] = np.roll(cells[1::2], 1, axis=1)
        cells = np.clip(cells, 20, 235).astype(np.uint8)
        tone = cv2.resize(cells, (cols * bw, rows * bh), interpolation=cv2.INTER_NEAREST)
        tone = tone[:height, :width]
        lines = np.zeros((2 * bh, bw), np.uint8)
        lines[0] = lines[bh] = 1
        lines[:bh, 0] = lines[bh:, bw // 2] = 1
        joints = np.tile(lines, (rows // 2 + 1, cols))[:height, :width] * np.uint8(90 * joint)
        tone = cv2.subtract(np.ascontiguousarray(tone), joints)
        tone = cv2.addWeighted(tone, 0.7, stains, 0.3, 0)
    else:
        tone = cv2.addWeighted(stains, 0.5, noise(rng, height, width), 0.25 * contrast, 64)
    return ramp(
        np.asarray(tone, np.uint8), mix(colour, (20, 16, 18), 0.42), mix(colour, (255, 250, 240), 0.3)
    )


def timber(wall: Texture, colour: Rgb, cell_m: tuple[float, float], rng: np.random.Generator) -> None:
    """Draw a half-timbered frame on a plaster wall, in place."""
    height, width = wall.shape[:2]
    ch, cw = (int(m * PX_PER_M) for m in cell_m)
    dark = mix(colour, (0, 0, 0), 0.35)
    for y in range(0, height, ch):
        for x in range(0, width, cw):
            kind = rng.integers(5)
            if kind == 0:
                cv2.line(wall, (x, y), (x + cw, y + ch), colour, 5, cv2.LINE_AA)
            elif kind == 1:
                cv2.line(wall, (x + cw, y), (x, y + ch), colour, 5, cv2.LINE_AA)
            cv2.rectangle(wall, (x - 3, y), (x + 3, y + ch), colour, -1)
            cv2.line(wall, (x + 4, y), (x + 4, y + ch), dark, 1)
        cv2.rectangle(wall, (0, y - 4), (width, y + 4), colour, -1)
        cv2.line(wall, (0, y + 5), (width, y + 5), dark, 1)


def ornament(rng: np.random.Generator, side: int, colour: Rgb) -> Texture:
    """Carve a mirror-symmetric relief, (side, side, 3): crests, medallions, frieze cells."""
    half = np.zeros((64, 32), np.uint8)
    for _ in range(int(rng.integers(5, 10))):
        x, y, a, b, angle, kind = (
            int(v) for v in rng.integers((0, 4, 3, 3, 0, 0), (32, 60, 13, 13, 180, 10))
        )
        if kind < 3:
            box = cv2.boxPoints(((x, y), (2 * a, b), angle)).astype(np.int32)
            cv2.fillConvexPoly(half, box, 255, cv2.LINE_AA)
        else:
            cv2.ellipse(half, (x, y), (a, b), angle, 0, 360, 255 * (kind % 2), -1)
    full = cv2.resize(cv2.hconcat([cv2.flip(half, 1), half]), (side, side), interpolation=cv2.INTER_AREA)
    # Light from the upper left: the relief minus its shifted self brightens one flank and darkens the other.
    shifted = cv2.copyMakeBorder(full, 2, 0, 2, 0, cv2.BORDER_CONSTANT, value=0)[:side, :side]
    tone = cv2.addWeighted(full, 0.63, shifted, -0.38, 118)
    return ramp(np.asarray(tone, np.uint8), mix(colour, (0, 0, 0), 0.7), mix(colour, (255, 255, 255), 0.5))
