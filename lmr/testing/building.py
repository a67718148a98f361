"""A building in space: a main body, perhaps a tower or a wing, each a box under a roof."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lmr.testing.facade import Face, Plan, paint_face, plan
from lmr.testing.geometry import Camera, Matrix, Plane
from lmr.testing.styles import STYLES
from lmr.testing.textures import PX_PER_M, masonry

__all__ = ["SIDES", "Body", "Building", "Surface", "design", "far_to_near", "paint", "surfaces", "wall_plane"]

SIDES = ("front", "right", "back", "left")

_UP = np.array([0.0, 0.0, 1.0])
# Per side: the way to the right as seen from outside, and the way out.
_RIGHT = np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, -1.0, 0]])
_OUT = np.array([[0, -1.0, 0], [1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0]])


@dataclass(frozen=True, kw_only=True)
class Body:
    """A box on the ground with a roof; metres. A gable roof has its gables in front and at the back."""

    x: tuple[float, float]
    y: tuple[float, float]
    height_m: float
    roof: Literal["flat", "hip", "gable"]
    roof_m: float

    def width_m(self, side: int) -> float:
        """Return the length of the wall on a side."""
        return self.x[1] - self.x[0] if side % 2 == 0 else self.y[1] - self.y[0]

    def upper_left(self, side: int) -> Matrix:
        """Return the corner at the eaves that is on the left as seen from outside."""
        x, y = (
            (self.x[0], self.y[0]),
            (self.x[1], self.y[0]),
            (self.x[1], self.y[1]),
            (self.x[0], self.y[1]),
        )[side]
        return np.array([x, y, self.height_m])

    def distance_m(self, point: Matrix) -> float:
        """Return the distance on the map from a point to the body."""
        dx = max(self.x[0] - point[0], 0.0, point[0] - self.x[1])
        dy = max(self.y[0] - point[1], 0.0, point[1] - self.y[1])
        return float(np.hypot(dx, dy))


@dataclass(frozen=True)
class Building:
    """A building: its plan, and its bodies, the main one first."""

    plan: Plan
    bodies: tuple[Body, ...]

    @property
    def main(self) -> Body:
        """The body that the others lean on."""
        return self.bodies[0]

    @property
    def top_m(self) -> float:
        """Height of the highest ridge."""
        return max(b.height_m + b.roof_m for b in self.bodies)


@dataclass(frozen=True)
class Surface:
    """One plane of a building: a wall (`roof` False) or a slope of its roof."""

    body: int
    side: int
    roof: bool
    plane: Plane


def design(style: int, seeds: tuple[int, ...]) -> Building:
    """Design a building of a style; the seeds decide everything else."""
    rng = np.random.default_rng([*seeds, 0])
    look = STYLES[style]
    rhythm = plan(look, seeds)
    w, d = rng.uniform(11, 20), rng.uniform(10, 17)
    height = rhythm.ground_m + rhythm.storey_m * int(rng.integers(1, 4)) + rng.uniform(0.8, 1.6)
    roof = look.roofs[int(rng.integers(len(look.roofs)))]
    rise = {"flat": 0.0, "hip": 0.28 * min(w, d), "gable": w * rng.uniform(0.3, 0.5)}[roof]
    main = Body(x=(-w / 2, w / 2), y=(-d / 2, d / 2), height_m=height, roof=roof, roof_m=rise)
    bodies = [main]
    kind, t = rng.random(), rng.uniform(3.8, 6.0)
    tall = height * rng.uniform(1.35, 2.0)
    spire = t * rng.uniform(0.7, 2.4)
    if kind < 0.3:  # a tower beside the front
        y = -d / 2 + rng.uniform(-1.2, 1.0)
        x = w / 2 if rng.random() < 0.5 else -w / 2 - t
        bodies.append(Body(x=(x, x + t), y=(y, y + t), height_m=tall, roof="hip", roof_m=spire))
    elif kind < 0.5:  # a tower that rises behind
        x = rng.uniform(-w / 2, w / 2 - t)
        bodies.append(
            Body(x=(x, x + t), y=(0.5, 0.5 + t), height_m=1.1 * tall + rise, roof="hip", roof_m=spire)
        )
    elif kind < 0.75:  # a lower wing
        length, low = rng.uniform(5, 10), max(height * rng.uniform(0.5, 0.8), rhythm.ground_m + 1)
        x = w / 2 if rng.random() < 0.5 else -w / 2 - length
        wing = Body(x=(x, x + length), y=(-d / 2 + 2, d / 2 - 1), height_m=low, roof="hip", roof_m=1.5)
        bodies.append(wing)
    return Building(rhythm, tuple(bodies))


def surfaces(building: Building) -> list[Surface]:
    """List the planes of a building, walls and slopes of roofs."""
    found = []
    for b, body in enumerate(building.bodies):
        for side in range(4):
            found.append(Surface(b, side, False, wall_plane(body, side)))
            slope = _slope_plane(body, side)
            if slope is not None:
                found.append(Surface(b, side, True, slope))
    return found


def _gable_m(body: Body, side: int) -> float:
    return body.roof_m if body.roof == "gable" and side % 2 == 0 else 0.0


def wall_plane(body: Body, side: int) -> Plane:
    """Return the plane of a wall; metres count from the upper left corner of its bounding rectangle."""
    w, h, g = body.width_m(side), body.height_m, _gable_m(body, side)
    outline = [[0, g], [w, g], [w, g + h], [0, g + h]]
    if g:
        outline.insert(1, [w / 2, 0])
    return Plane(body.upper_left(side) + g * _UP, _RIGHT[side], -_UP, np.array(outline, float))


def _slope_plane(body: Body, side: int) -> Plane | None:
    w, rise = body.width_m(side), body.roof_m
    if body.roof == "flat" or (body.roof == "gable" and side % 2 == 0):
        return None
    # A hip roof's ridge runs along the longer walls, half the shorter wall behind every eave.
    run = (body.width_m(0) if body.roof == "gable" else min(body.width_m(0), body.width_m(1))) / 2
    inset = 0.0 if body.roof == "gable" else min(run, w / 2)
    length = float(np.hypot(run, rise))
    v = (_OUT[side] * run - _UP * rise) / length
    outline = np.array([[inset, 0], [w - inset, 0], [w, length], [0, length]], float)
    return Plane(body.upper_left(side) - v * length, _RIGHT[side], v, outline)


def paint(building: Building, surface: Surface) -> Face:
    """Paint a surface of a building; the same picture in every photo, before any light falls on it."""
    body, rhythm = building.bodies[surface.body], building.plan
    if not surface.roof:
        width = body.width_m(surface.side)
        number = 4 * surface.body + surface.side
        return paint_face(rhythm, number, width, body.height_m, _gable_m(body, surface.side))
    w, h = (int(m * PX_PER_M) for m in surface.plane.polygon.max(0))
    rng = np.random.default_rng([*rhythm.seeds, 4, surface.body, surface.side])
    tiles = masonry(rng, h, w, colour=rhythm.style.roof, block_m=(0.35, 0.3), contrast=0.25, joint=1.0)
    return Face(tiles, np.zeros((h, w), np.uint8))


def far_to_near(building: Building, camera: Camera) -> list[int]:
    """Order the bodies for painting; they do not intersect, so nearer footprints hide farther ones."""
    return sorted(range(len(building.bodies)), key=lambda b: -building.bodies[b].distance_m(camera.centre))
