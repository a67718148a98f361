"""Stand somewhere around a building and take its photo."""

import numpy as np

from lmr.testing.building import Building, far_to_near, paint, surfaces
from lmr.testing.geometry import Camera, Matrix, draw_plane, sight
from lmr.testing.light import Light, choose_light, expose, illuminate, lit
from lmr.testing.surroundings import draw_ground, draw_sky, draw_skyline, occlude
from lmr.testing.textures import Texture

__all__ = ["VIEWS", "draw_building", "photograph", "photo_size", "stand"]

VIEWS = ("front", "front-right", "right", "right-back", "back", "back-left", "left", "left-front")
"""Where a photographer may stand, 45 degrees apart, counted to the right from the front."""

_SMALLEST = 0.0015
"""Surfaces below this share of the frame are left out: slivers, which cost as much to paint as any."""


def photo_size(rng: np.random.Generator, long_side_px: int) -> tuple[int, int]:
    """Draw (width, height): mostly landscape 4:3 or 3:2, a quarter upright."""
    short = int(long_side_px * (0.75 if rng.random() < 0.7 else 2 / 3))
    return (short, long_side_px) if rng.random() < 0.28 else (long_side_px, short)


def stand(rng: np.random.Generator, building: Building, view: str, size: tuple[int, int]) -> Camera:
    """Choose a camera for a view of a building: direction, distance, zoom, height, tilt and framing.

    Parameters
    ----------
    rng
        The photo's.
    building
        What to look at.
    view
        One of `VIEWS`; the direction varies about it.
    size
        (width, height) of the photo, pixels.
    """
    number = VIEWS.index(view)
    # Corner views lean to one of their two sides, which links them to the photos of that side.
    lean = float(rng.choice([-9.0, 9.0])) if number % 2 else 0.0
    azimuth = np.deg2rad(45.0 * number + lean + float(np.clip(rng.normal(0, 9), -18, 18)))
    out = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    main = building.main
    seen_m = main.width_m(0) * abs(out[1]) + main.width_m(1) * abs(out[0])
    fov = float(rng.uniform(38, 64))
    # Metres that the frame must span so that the building fits its width and its height.
    span_m = max(seen_m * max(size) / size[0], building.top_m * max(size) / size[1])
    fill = float(rng.choice([rng.uniform(0.8, 1.1), rng.uniform(1.1, 1.7)], p=[0.7, 0.3]))
    distance = 0.5 * span_m / fill / np.tan(np.deg2rad(fov) / 2)
    # From the wall, not from the middle, and not closer than the other side of a street.
    half_depth = 0.5 * (main.width_m(0) * abs(out[0]) + main.width_m(1) * abs(out[1]))
    centre = out * (half_depth + max(distance, 7.0))
    centre[2] = float(rng.choice([rng.uniform(1.5, 2.0), rng.uniform(2, 0.7 * main.height_m)], p=[0.7, 0.3]))
    sideways = np.array([-out[1], out[0], 0.0])
    slack = 0.10 + 0.28 * max(fill - 0.95, 0.0)
    target = sideways * seen_m * float(rng.normal(0, slack)) + out * 0.5 * half_depth
    target[2] = building.top_m * float(np.clip(rng.normal(0.42, 0.4 * slack), 0.2, 0.8))
    return Camera.looking_at(
        target, centre=centre, fov_deg=fov, roll_deg=float(rng.normal(0, 1.6)), size=size
    )


def draw_building(
    photo: Texture,
    building: Building,
    camera: Camera,
    light: Light | None = None,
    rng: np.random.Generator | None = None,
) -> None:
    """Paint a building into a photo, in place; without `light`, in its own colours."""
    planes = surfaces(building)
    for body in far_to_near(building, camera):
        for surface in (s for s in planes if s.body == body):
            seen = sight(camera, surface.plane)
            if seen is None or seen.area_px < _SMALLEST * camera.width * camera.height:
                continue
            extent = surface.plane.polygon.max(0) * seen.px_per_m * 1.15
            face = paint(building, surface).shrunk(int(extent[0]), int(extent[1]))
            texture = face.texture
            if light is not None and rng is not None:
                texture = lit(rng, light, face, -np.cross(surface.plane.u, surface.plane.v))
            draw_plane(photo, camera, surface.plane, texture)


def horizon_px(camera: Camera) -> int:
    """Return the row of the horizon at the middle of the frame."""
    forward = camera.r[2] * (1, 1, 0)
    seen: Matrix = camera.k @ camera.r @ (forward / np.linalg.norm(forward))
    return int(np.clip(seen[1] / seen[2], -camera.height, 2 * camera.height))


def photograph(rng: np.random.Generator, building: Building, view: str, long_side_px: int) -> Texture:
    """Take one photo: (h, w, 3) uint8 RGB, its long side as asked."""
    camera = stand(rng, building, view, photo_size(rng, long_side_px))
    light = choose_light(rng)
    style, seeds = building.plan.style, building.plan.seeds
    photo = draw_sky(rng, camera.height, camera.width, light)
    row = horizon_px(camera)
    draw_skyline(rng, photo, row, light)
    draw_ground(photo, camera, light, style.ground, seeds)
    draw_building(photo, building, camera, light, rng)
    occlude(rng, photo, light, row)
    return expose(rng, photo, illuminate(rng, light, camera.height, camera.width))
