"""Paint one face of one building: storeys of the style's windows, and what only this building has."""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.testing.styles import Style, Window, wall, windows
from lmr.testing.textures import PX_PER_M, Rgb, Texture, mix, noise, ornament, ramp

__all__ = ["Face", "Plan", "paint_face", "plan"]

_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVX"))


@dataclass(frozen=True)
class Face:
    """A painted face.

    Attributes
    ----------
    texture
        (h, w, 3) uint8 RGB, `PX_PER_M` pixels per metre, row 0 at the top.
    glass
        (h, w) uint8: 0 off the panes, else the window's label 1 to 255, by which a photo lights some windows.
    """

    texture: Texture
    glass: Texture

    def shrunk(self, width_px: int, height_px: int) -> "Face":
        """Return the face at the size at which it is seen, if smaller: cheaper to light, no aliasing."""
        h, w = self.glass.shape
        if width_px >= w and height_px >= h:
            return self
        size = max(min(width_px, w), 2), max(min(height_px, h), 2)
        texture = cv2.resize(self.texture, size, interpolation=cv2.INTER_AREA)
        glass = cv2.resize(self.glass, size, interpolation=cv2.INTER_NEAREST)
        return Face(np.asarray(texture, np.uint8), np.asarray(glass, np.uint8))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the faces of one building share: the rhythm of its storeys and bays; lengths in metres."""

    style: Style
    seeds: tuple[int, ...]
    storey_m: float
    ground_m: float
    bay_m: float
    window_scale: tuple[float, float]
    cornice_m: float
    courses: bool
    pilasters: bool
    arcade: bool
    frieze: bool
    accent: Rgb


def plan(style: Style, seeds: tuple[int, ...]) -> Plan:
    """Draw a building's rhythm; spacing and scale vary by more than RANSAC forgives."""
    rng = np.random.default_rng([*seeds, 1])
    scale = rng.uniform(0.78, 1.15), rng.uniform(0.78, 1.12)
    return Plan(
        style=style,
        seeds=seeds,
        storey_m=style.window_m[0] * scale[1] + rng.uniform(1.1, 2.0),
        ground_m=rng.uniform(3.6, 5.0),
        bay_m=style.window_m[1] * scale[0] + rng.uniform(1.1, 2.6),
        window_scale=scale,
        cornice_m=rng.uniform(0.4, 1.0),
        courses=bool(rng.random() < 0.5),
        pilasters=bool(rng.random() < (0.7 if style.name == "classical" else 0.25)),
        arcade=bool(rng.random() < 0.35),
        frieze=bool(rng.random() < 0.5),
        accent=(int(rng.integers(40, 200)), int(rng.integers(30, 150)), int(rng.integers(30, 170))),
    )


def _resized(window: Window, scale: tuple[float, float]) -> Window:
    h, w = window.shape.shape
    size = max(int(w * scale[0]), 4), max(int(h * scale[1]), 4)
    paint, shape, glass = (cv2.resize(p, size) for p in (window.paint, window.shape, window.glass))
    return Window(np.asarray(paint, np.uint8), np.asarray(shape, np.uint8), np.asarray(glass, np.uint8))


class _Painter:
    """A face under the brush: lengths in texture pixels, x to the right, y down from the eaves."""

    def __init__(self, plan: Plan, rng: np.random.Generator, width_m: float, height_m: float) -> None:
        self.plan, self.style, self.rng = plan, plan.style, rng
        self.h, self.w = int(height_m * PX_PER_M), int(width_m * PX_PER_M)
        self.texture = wall(self.style, rng, self.h, self.w)
        self.glass = np.zeros((self.h, self.w), np.uint8)
        self.dark = mix(self.style.trim, (0, 0, 0), 0.5)
        self.light = mix(self.style.trim, (255, 255, 255), 0.4)

    def clip(self, x: int, y: int, part: Texture) -> tuple[slice, slice, slice, slice]:
        """Return the slices (rows, columns of the face; rows, columns of the part) where they overlap."""
        y0, x0 = max(y, 0), max(x, 0)
        y1, x1 = min(y + part.shape[0], self.h), min(x + part.shape[1], self.w)
        return slice(y0, y1), slice(x0, x1), slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)

    def stamp(self, x: int, y: int, part: Texture, mask: NDArray[np.bool_] | None = None) -> None:
        """Put a picture with its upper left corner at (x, y)."""
        rows, cols, part_rows, part_cols = self.clip(x, y, part)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return
        target, source = self.texture[rows, cols], part[part_rows, part_cols]
        if mask is None:
            target[:] = source
        else:
            cv2.copyTo(source, mask[part_rows, part_cols].view(np.uint8), target)

    def band(self, y: int, thickness: int) -> None:
        """Draw a horizontal moulding with a lit upper and a shaded lower edge."""
        cv2.rectangle(self.texture, (0, y), (self.w, y + thickness), self.style.trim, -1)
        cv2.rectangle(self.texture, (0, y), (self.w, y + max(thickness // 4, 1)), self.light, -1)
        cv2.rectangle(self.texture, (0, y + thickness), (self.w, y + thickness + 4), self.dark, -1)

    def window(self, centre: int, sill: int, window: Window) -> None:
        """Set a window with its lower edge at `sill`, and give it a habit of its own."""
        h, w = window.shape.shape
        x, y = centre - w // 2, sill - h
        glass = window.glass > 127
        rows, cols, part_rows, part_cols = self.clip(x, y, window.shape)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return
        self.stamp(x, y, window.paint, window.shape > 127)
        label = np.uint8(self.rng.integers(1, 256))
        np.copyto(self.glass[rows, cols], label, where=glass[part_rows, part_cols])
        habit, amount = self.rng.random(), self.rng.uniform(0.25, 0.75)
        colour = mix((232, 226, 210), tuple(int(v) for v in self.rng.integers(40, 220, 3)), 0.5)
        if habit < 0.22:  # a blind
            part = np.zeros_like(glass)
            part[: int(h * amount)] = glass[: int(h * amount)]
            self.stamp(x, y, np.full((h, w, 3), colour, np.uint8), part)
        elif habit < 0.36:  # a curtain at one side
            part = np.zeros_like(glass)
            part[:, : int(w * amount)] = glass[:, : int(w * amount)]
            self.stamp(x, y, np.full((h, w, 3), colour, np.uint8), part)
        elif habit < 0.48:  # a box of flowers
            for cx in range(x + w // 5, x + w - w // 5, 5):
                cy = sill - 8 - int(self.rng.integers(0, 8))
                cv2.circle(self.texture, (cx, cy), int(self.rng.integers(2, 6)), (52, 104, 44), -1)
                if self.rng.random() < 0.6:
                    cv2.circle(self.texture, (cx, cy - 3), 2, tuple(int(c) for c in self.plan.accent), -1)
        elif habit < 0.53:  # an air conditioner
            cv2.rectangle(
                self.texture, (centre - 14, sill - 26), (centre + 14, sill - 6), (206, 206, 200), -1
            )
            cv2.circle(self.texture, (centre - 3, sill - 16), 8, (90, 92, 92), 2, cv2.LINE_AA)

    def portal(self, centre: int, floor: int, height: int) -> None:
        """Draw a door in an arch of several rims."""
        half = int(height * self.rng.uniform(0.28, 0.36))
        springing = floor - height + half
        shades = (self.style.trim, self.dark, self.light, self.dark)
        for i, shade in enumerate(shades):
            inset = 5 * i
            cv2.rectangle(
                self.texture, (centre - half + inset, springing), (centre + half - inset, floor), shade, -1
            )
            axes = (half - inset, int((half - inset) * (1.4 if self.style.head == "pointed" else 1.0)))
            cv2.ellipse(self.texture, (centre, springing), axes, 0, 180, 360, shade, -1, cv2.LINE_AA)
        leaf = mix(self.plan.accent, (60, 40, 28), 0.5)
        x0, x1 = centre - half + 22, centre + half - 22
        if x1 - x0 < 12:
            return
        cv2.rectangle(self.texture, (x0, springing), (x1, floor), leaf, -1)
        rows, cols = int(self.rng.integers(2, 5)), int(self.rng.integers(2, 4))
        for r in range(rows):
            for c in range(cols):
                cell_w, cell_h = (x1 - x0) // cols, (floor - springing) // rows
                a = (x0 + c * cell_w + 4, springing + r * cell_h + 4)
                b = (x0 + (c + 1) * cell_w - 4, springing + (r + 1) * cell_h - 4)
                cv2.rectangle(self.texture, a, b, mix(leaf, (0, 0, 0), 0.4), 2)
        cv2.circle(self.texture, (centre + 6, (springing + floor) // 2), 3, (210, 180, 90), -1)

    def shop(self, x0: int, x1: int, floor: int, height: int) -> None:
        """Draw a shop window under a striped awning."""
        cv2.rectangle(self.texture, (x0, floor - height), (x1, floor - 14), (44, 50, 56), -1)
        cv2.rectangle(self.glass, (x0, floor - height), (x1, floor - 14), int(self.rng.integers(1, 256)), -1)
        cv2.rectangle(self.texture, (x0, floor - height), (x1, floor - 14), self.style.frame, 4)
        stripe = max((x1 - x0) // int(self.rng.integers(5, 10)), 4)
        for i, x in enumerate(range(x0 - 4, x1 + 4, stripe)):
            colour = self.plan.accent if i % 2 else (238, 234, 224)
            cv2.rectangle(
                self.texture, (x, floor - height - 16), (x + stripe, floor - height + 10), colour, -1
            )

    def clock(self, centre: tuple[int, int], radius: int) -> None:
        """Draw a clock; its hands, painted once, are a detail of this face."""
        cv2.circle(self.texture, centre, radius + 6, self.dark, -1, cv2.LINE_AA)
        cv2.circle(self.texture, centre, radius, (240, 236, 222), -1, cv2.LINE_AA)
        for angle in np.arange(12) * np.pi / 6:
            spoke = np.array([np.sin(angle), np.cos(angle)])
            a, b = (tuple(int(v) for v in np.array(centre) + radius * k * spoke) for k in (0.75, 0.92))
            cv2.line(self.texture, a, b, (30, 30, 34), 3, cv2.LINE_AA)
        for length, angle in zip((0.5, 0.75), self.rng.uniform(0, 2 * np.pi, 2), strict=True):
            tip = np.array(centre) + radius * length * np.array([np.sin(angle), np.cos(angle)])
            cv2.line(self.texture, centre, (int(tip[0]), int(tip[1])), (30, 30, 34), 4, cv2.LINE_AA)

    def sign(self, centre: int, y: int, width: int) -> None:
        """Letter a board with a random word."""
        word = "".join(self.rng.choice(_LETTERS, int(self.rng.integers(4, 10))))
        board = mix(self.plan.accent, (250, 246, 236), 0.1 if self.rng.random() < 0.5 else 0.85)
        ink = (34, 30, 30) if sum(board) > 380 else (244, 238, 222)
        width = min(width, 26 * len(word))
        cv2.rectangle(self.texture, (centre - width // 2, y), (centre + width // 2, y + 30), board, -1)
        cv2.rectangle(self.texture, (centre - width // 2, y), (centre + width // 2, y + 30), self.dark, 2)
        scale = width / (30.0 * len(word))
        at = (centre - width // 2 + 8, y + 24)
        cv2.putText(self.texture, word, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 2, cv2.LINE_AA)

    def banner(self, x: int, y: int, height: int) -> None:
        """Hang a coloured cloth with a crest."""
        cloth = tuple(int(v) for v in self.rng.integers(30, 225, 3))
        width = height // 3
        cv2.rectangle(self.texture, (x, y), (x + width, y + height), cloth, -1)
        self.stamp(
            x + 3, y + height // 4, ornament(self.rng, max(width - 6, 8), mix(cloth, (255, 255, 255), 0.5))
        )
        cv2.rectangle(self.texture, (x, y), (x + width, y + height), mix(cloth, (0, 0, 0), 0.5), 2)

    def ivy(self, x: int, height: int, width: int) -> None:
        """Grow leaves from the ground."""
        leaves = noise(self.rng, height, width)
        falloff = np.linspace(-70, 60, height)[:, None] - 70 * np.abs(np.linspace(-1, 1, width)) ** 2
        mask = noise(self.rng, height, width, zoom=3.0) + falloff > 128
        self.stamp(x, self.h - height, ramp(leaves, (14, 36, 12), (112, 146, 62)), mask)

    def scrawl(self, x: int, y: int) -> None:
        """Spray graffiti."""
        steps = self.rng.normal((9, 0), 14, (9, 2))
        points = (np.cumsum(steps, axis=0) + np.array([x, y])).astype(np.int32)
        colour = tuple(int(v) for v in self.rng.integers(0, 255, 3))
        cv2.polylines(self.texture, [points], False, colour, 5, cv2.LINE_AA)


def paint_face(plan: Plan, face: int, width_m: float, height_m: float, gable_m: float = 0.0) -> Face:
    """Paint a face of a building.

    Parameters
    ----------
    plan
        The building's rhythm.
    face
        Number of the face; with the plan's seeds it decides every individual detail.
    width_m, height_m
        Size of the wall without its gable.
    gable_m
        Height of the gable above the wall; the texture covers its bounding rectangle.
    """
    rng = np.random.default_rng([*plan.seeds, 2, face])
    p = _Painter(plan, rng, width_m, height_m + gable_m)
    eaves = int(gable_m * PX_PER_M)
    ground = p.h - int(min(plan.ground_m, 0.6 * height_m) * PX_PER_M)
    family = [_resized(w, plan.window_scale) for w in windows(plan.style)]
    storey, margin = int(plan.storey_m * PX_PER_M), rng.uniform(0.3, 1.0)
    bays = max(int((width_m - margin) / plan.bay_m), 1)
    # Uneven bays and storeys: an even lattice of shared windows would pass RANSAC between any two buildings.
    widths = rng.uniform(0.8, 1.2, bays)
    edges = (np.cumsum(widths) - widths / 2) / widths.sum() - 0.5
    pitch = plan.bay_m * PX_PER_M
    centres = [int(p.w / 2 + edge * bays * pitch) for edge in edges]
    cornice = int(plan.cornice_m * PX_PER_M)
    storeys = max((ground - eaves - cornice) // storey, 0)
    floors = [ground - i * storey - int(storey * rng.uniform(0.0, 0.16)) * (i > 0) for i in range(storeys)]
    grand_storey = int(rng.integers(0, max(storeys, 1))) if rng.random() < 0.5 and storeys > 1 else -1

    for i in range(storeys):
        sill = floors[i] - int(0.3 * PX_PER_M)
        kind = 2 if i == grand_storey else int(i == storeys - 1)
        for x in centres:
            if rng.random() < 0.95:
                p.window(x, sill, family[kind if kind != 2 or plan.bay_m > 2.9 else 0])
        if plan.courses:
            p.band(floors[i], 6)
    if eaves and rng.random() < 0.75:
        radius = int(min(0.22 * gable_m, 0.1 * width_m) * PX_PER_M)
        if rng.random() < 0.5 and radius > 12:
            p.clock((p.w // 2, int(0.68 * eaves)), radius)
        else:
            p.window(p.w // 2, int(0.95 * eaves), family[int(rng.integers(3))])
    if plan.pilasters and bays > 1:
        for x in [(a + b) // 2 for a, b in pairwise(centres)]:
            cv2.rectangle(p.texture, (x - 9, eaves + cornice), (x + 9, ground), plan.style.trim, -1)
            cv2.rectangle(p.texture, (x + 5, eaves + cornice), (x + 9, ground), p.dark, -1)
            cv2.rectangle(p.texture, (x - 14, eaves + cornice), (x + 14, eaves + cornice + 16), p.light, -1)

    _ground_floor(p, centres, ground, family)
    _details(p, eaves, ground, cornice)
    return Face(p.texture, p.glass)


def _ground_floor(p: _Painter, centres: list[int], ground: int, family: list[Window]) -> None:
    rng, height = p.rng, p.h - ground
    p.band(ground, 8)
    cv2.rectangle(p.texture, (0, p.h - 12), (p.w, p.h), mix(p.style.wall, (40, 40, 40), 0.5), -1)
    door = int(rng.choice([len(centres) // 2, len(centres) // 2, int(rng.integers(len(centres)))]))
    shops = rng.random() < 0.3
    for i, x in enumerate(centres):
        half = int(0.42 * p.plan.bay_m * PX_PER_M)
        if i == door:
            p.portal(x, p.h, int(rng.uniform(0.72, 0.9) * height))
        elif shops:
            p.shop(x - half, x + half, p.h, int(0.7 * height))
        elif p.plan.arcade:
            cv2.rectangle(p.texture, (x - half, p.h - height // 2), (x + half, p.h), (46, 42, 42), -1)
            cv2.ellipse(p.texture, (x, p.h - height // 2), (half, height // 3), 0, 180, 360, (46, 42, 42), -1)
            cv2.ellipse(
                p.texture, (x, p.h - height // 2), (half, height // 3), 0, 180, 360, p.light, 5, cv2.LINE_AA
            )
        else:
            p.window(x, p.h - int(0.22 * height), family[1])


def _details(p: _Painter, eaves: int, ground: int, cornice: int) -> None:
    """Add the cornice, its frieze, and a handful of things that no other building has."""
    rng = p.rng
    p.band(eaves, cornice // 2)
    if p.plan.frieze:
        # One motif per building, so that its faces share it and its neighbours do not.
        cell = ornament(np.random.default_rng([*p.plan.seeds, 3]), max(cornice, 14), p.style.trim)
        row = np.tile(cell, (1, p.w // cell.shape[1] + 1, 1))[:, : p.w]
        p.stamp(0, eaves + cornice // 2 + 4, row)
    for _ in range(int(rng.integers(6, 13))):
        kind = rng.integers(6)
        x = int(rng.integers(8, max(p.w - 60, 9)))
        y = int(rng.integers(eaves + 2 * cornice, max(ground, eaves + 2 * cornice + 1)))
        if kind == 0:
            p.stamp(x, y, ornament(rng, int(rng.integers(28, 60)), p.style.trim))
        elif kind == 1:
            p.banner(x, y, int(rng.integers(60, 150)))
        elif kind == 2 and rng.random() < 0.4:
            p.ivy(x - 40, int(rng.uniform(0.3, 0.8) * p.h), int(rng.integers(60, 150)))
        elif kind == 3:
            cv2.rectangle(
                p.texture, (x, eaves + cornice), (x + 5, p.h), mix(p.style.frame, (90, 90, 90), 0.5), -1
            )
        elif kind == 4:
            p.scrawl(x, p.h - int(rng.integers(20, 80)))
        elif kind == 5:
            p.stamp(
                x, p.h - int(rng.integers(70, 110)), ornament(rng, int(rng.integers(24, 40)), p.plan.accent)
            )
    if rng.random() < 0.5:
        p.sign(int(rng.uniform(0.3, 0.7) * p.w), ground - 8, int(0.6 * p.w))
