"""Eight styles of architecture: wall, colours, and a family of windows that all buildings of the style share.

Shared windows are what makes the world hard: local features of one building are found on others of its
style, so votes mislead; the windows' spacing and size differ, so geometry does not.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from lmr.testing.textures import PX_PER_M, Rgb, Texture, masonry, mix, ornament, timber

__all__ = ["STYLES", "Style", "Window", "wall", "windows"]

Head = Literal["flat", "round", "pointed"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """What buildings of one style have in common; colours are RGB, lengths metres."""

    name: str
    wall: Rgb
    block_m: tuple[float, float]
    contrast: float
    trim: Rgb
    frame: Rgb
    roof: Rgb
    head: Head
    panes: tuple[int, int]
    window_m: tuple[float, float]
    surround: Literal["lintel", "pediment", "shutters", "plain"]
    roofs: tuple[Literal["flat", "hip", "gable"], ...]
    ground: Rgb


STYLES: tuple[Style, ...] = (
    Style(name="brick", wall=(158, 84, 66), block_m=(0.2, 0.5), contrast=0.35, trim=(226, 216, 200),
          frame=(238, 236, 230), roof=(84, 88, 98), head="flat", panes=(3, 2), window_m=(2.0, 1.25),
          surround="lintel", roofs=("hip", "gable"), ground=(140, 134, 128)),
    Style(name="sandstone", wall=(205, 178, 132), block_m=(0.45, 0.9), contrast=0.25, trim=(222, 203, 165),
          frame=(92, 70, 52), roof=(120, 104, 90), head="round", panes=(4, 2), window_m=(2.3, 1.3),
          surround="lintel", roofs=("flat", "hip"), ground=(176, 164, 142)),
    Style(name="plaster", wall=(228, 196, 150), block_m=(0.0, 0.0), contrast=0.5, trim=(244, 236, 220),
          frame=(240, 236, 226), roof=(172, 92, 62), head="flat", panes=(3, 2), window_m=(1.7, 1.1),
          surround="shutters", roofs=("hip", "gable"), ground=(160, 150, 138)),
    Style(name="gothic", wall=(148, 145, 138), block_m=(0.4, 0.7), contrast=0.4, trim=(178, 175, 166),
          frame=(70, 70, 74), roof=(66, 74, 84), head="pointed", panes=(5, 2), window_m=(3.0, 1.3),
          surround="plain", roofs=("gable", "hip"), ground=(120, 134, 92)),
    Style(name="classical", wall=(222, 216, 202), block_m=(0.6, 1.2), contrast=0.12, trim=(240, 236, 226),
          frame=(120, 112, 100), roof=(150, 150, 146), head="flat", panes=(3, 2), window_m=(2.2, 1.2),
          surround="pediment", roofs=("flat",), ground=(190, 184, 172)),
    Style(name="works", wall=(112, 66, 54), block_m=(0.2, 0.5), contrast=0.4, trim=(150, 100, 80),
          frame=(52, 62, 62), roof=(96, 96, 96), head="round", panes=(4, 3), window_m=(2.6, 2.0),
          surround="plain", roofs=("flat", "gable"), ground=(104, 104, 104)),
    Style(name="timber", wall=(236, 226, 204), block_m=(0.0, 0.0), contrast=0.3, trim=(86, 56, 38),
          frame=(84, 52, 36), roof=(138, 72, 52), head="flat", panes=(3, 3), window_m=(1.4, 1.2),
          surround="plain", roofs=("gable",), ground=(150, 142, 130)),
    Style(name="modern", wall=(186, 188, 190), block_m=(1.2, 2.4), contrast=0.15, trim=(120, 126, 132),
          frame=(46, 50, 56), roof=(110, 112, 116), head="flat", panes=(1, 3), window_m=(1.9, 2.2),
          surround="plain", roofs=("flat",), ground=(132, 134, 138)),
)  # fmt: skip


@dataclass(frozen=True)
class Window:
    """One member of a style's family: `paint` (h, w, 3), masks `shape` and `glass` (h, w), 0 or 255."""

    paint: Texture
    shape: Texture
    glass: Texture


def wall(style: Style, rng: np.random.Generator, height: int, width: int) -> Texture:
    """Paint the bare wall of a style; every wall's blocks and stains are its own."""
    tinted = mix(style.wall, tuple(int(v) for v in rng.integers(60, 240, 3)), 0.12)
    texture = masonry(
        rng, height, width, colour=tinted, block_m=style.block_m, contrast=style.contrast, joint=0.6
    )
    if style.name == "timber":
        timber(texture, style.trim, (float(rng.uniform(1.3, 1.9)), float(rng.uniform(1.1, 1.7))), rng)
    return texture


@lru_cache(maxsize=len(STYLES))
def windows(style: Style) -> tuple[Window, ...]:
    """Return the style's three windows: two ordinary ones and a grand one, the same in every world."""
    rng = np.random.default_rng([20183, STYLES.index(style)])
    rows, cols = style.panes
    plain = _window(style, rng, rows, cols)
    return (
        plain,
        _window(style, rng, max(rows - 1, 1), cols),
        _window(style, rng, rows + 2, cols + 1, grand=True),
    )


def _head(mask: Texture, head: Head, box: tuple[int, int, int, int], value: int) -> None:
    """Fill a window opening (x0, y0, x1, y1) with the style's head."""
    x0, y0, x1, y1 = box
    half = (x1 - x0) // 2
    if head == "flat":
        cv2.rectangle(mask, (x0, y0), (x1, y1), value, -1)
        return
    rise = half if head == "round" else int(1.5 * half)
    cv2.rectangle(mask, (x0, y0 + rise), (x1, y1), value, -1)
    if head == "round":
        cv2.ellipse(mask, (x0 + half, y0 + rise), (half, rise), 0, 180, 360, value, -1)
    else:
        t = np.linspace(0, 1, 9)
        left = np.stack([x0 + half * t**1.6, y0 + rise - rise * t**0.8], 1)
        right = np.stack([x1 - half * t[::-1] ** 1.6, y0 + rise - rise * t[::-1] ** 0.8], 1)
        cv2.fillPoly(mask, [np.vstack([left, right]).astype(np.int32)], value)


def _window(style: Style, rng: np.random.Generator, rows: int, cols: int, *, grand: bool = False) -> Window:
    # Painted at twice the texture's resolution with a border for surround and sill, then halved.
    s = 2 * PX_PER_M
    scale = 1.25 if grand else 1.0
    oh, ow = (int(m * s * scale) for m in style.window_m)
    side = int(0.62 * ow) if style.surround == "shutters" else int(0.22 * s)
    top = int((0.75 if style.surround == "pediment" else 0.35) * s)
    h, w = oh + top + int(0.3 * s), ow + 2 * side
    box = (side, top, side + ow, top + oh)
    shape, glass = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    paint = np.full((h, w, 3), style.trim, np.uint8)
    dark, light = mix(style.trim, (0, 0, 0), 0.45), mix(style.trim, (255, 255, 255), 0.5)
    grown = (box[0] - int(0.16 * s), box[1] - int(0.16 * s), box[2] + int(0.16 * s), box[3])
    _head(shape, style.head, grown, 255)
    _head(glass, style.head, (box[0] + 5, box[1] + 5, box[2] - 5, box[3] - 5), 255)
    opening = np.zeros((h, w), np.uint8)
    _head(opening, style.head, box, 255)
    edge = cv2.dilate(opening, np.ones((7, 7), np.uint8))
    paint[edge > 0] = dark
    paint[opening > 0] = style.frame
    # Sill, with its shadow.
    cv2.rectangle(shape, (grown[0] - 8, box[3]), (grown[2] + 8, box[3] + 20), 255, -1)
    cv2.rectangle(paint, (grown[0] - 8, box[3]), (grown[2] + 8, box[3] + 11), light, -1)
    cv2.rectangle(paint, (grown[0] - 8, box[3] + 12), (grown[2] + 8, box[3] + 20), dark, -1)
    if style.surround == "lintel":
        key = np.array(
            [
                [w // 2 - 14, box[1]],
                [w // 2 - 20, box[1] - 26],
                [w // 2 + 20, box[1] - 26],
                [w // 2 + 14, box[1]],
            ]
        )
        cv2.fillPoly(shape, [key], 255)
        cv2.fillPoly(paint, [key], light)
        cv2.polylines(paint, [key], True, dark, 2)
    elif style.surround == "pediment":
        tip = np.array([[grown[0] - 14, box[1] - 14], [w // 2, 4], [grown[2] + 14, box[1] - 14]])
        cv2.fillPoly(shape, [tip], 255)
        cv2.fillPoly(paint, [tip], light)
        cv2.polylines(paint, [tip], True, dark, 4, cv2.LINE_AA)
    elif style.surround == "shutters":
        tone = mix((52, 92, 74), tuple(int(v) for v in rng.integers(20, 160, 3)), 0.3)
        for x0, x1 in ((2, box[0] - 6), (box[2] + 6, w - 3)):
            cv2.rectangle(shape, (x0, box[1]), (x1, box[3]), 255, -1)
            cv2.rectangle(paint, (x0, box[1]), (x1, box[3]), tone, -1)
            for y in range(box[1] + 8, box[3] - 4, 9):
                cv2.line(paint, (x0 + 4, y), (x1 - 4, y), mix(tone, (0, 0, 0), 0.4), 3)
    bar = 5 if style.panes[0] > 1 else 8
    for i in range(1, cols):
        x = box[0] + i * ow // cols
        cv2.line(glass, (x, 0), (x, h), 0, bar)
    for i in range(1, rows):
        y = box[1] + i * oh // rows
        cv2.line(glass, (0, y), (w, y), 0, bar if i != rows // 2 else bar + 3)
    panes = np.linspace(0.15, 0.6, h)[:, None, None] * np.array([70, 84, 100]) + np.array([26, 32, 42])
    paint = np.where(glass[..., None] > 0, panes.astype(np.uint8), paint)
    if grand:
        crest = ornament(rng, int(0.5 * s), style.trim)
        cv2.circle(shape, (w // 2, top // 2), int(0.25 * s), 255, -1)
        y0, x0 = max(top // 2 - len(crest) // 2, 0), w // 2 - len(crest) // 2
        paint[y0 : y0 + len(crest), x0 : x0 + len(crest)] = crest
    size = (w // 2, h // 2)
    half = [
        np.asarray(cv2.resize(p, size, interpolation=cv2.INTER_AREA), np.uint8) for p in (paint, shape, glass)
    ]
    return Window(half[0], half[1], half[2])
