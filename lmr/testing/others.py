"""Photos that show no building: landscapes, rooms and close-ups of surfaces."""

import cv2
import numpy as np

from lmr.testing.geometry import Camera, Plane, draw_plane
from lmr.testing.light import choose_light, expose, illuminate
from lmr.testing.photograph import photo_size
from lmr.testing.surroundings import draw_sky, draw_tree, occlude
from lmr.testing.textures import Rgb, Texture, masonry, mix, noise, ornament, ramp

__all__ = ["closeup", "landscape", "room"]


def _colour(rng: np.random.Generator, low: int = 30, high: int = 230) -> Rgb:
    r, g, b = (int(v) for v in rng.integers(low, high, 3))
    return r, g, b


def landscape(rng: np.random.Generator, long_side_px: int) -> Texture:
    """Photograph hills under a sky, a meadow or a lake before them, and trees."""
    w, h = photo_size(rng, long_side_px)
    light = choose_light(rng)
    photo = draw_sky(rng, h, w, light)
    level = light.ambient + 0.4 * light.direct
    horizon = int(h * rng.uniform(0.45, 0.65))
    ridges = int(rng.integers(2, 5))
    for i in range(ridges):
        # A ridge is a sum of octaves; nearer ones are lower, greener and clearer.
        line = np.zeros(w)
        for octave in (3, 7, 17, 41):
            line += np.interp(
                np.linspace(0, 1, w), np.linspace(0, 1, octave), rng.normal(0, 1 / octave, octave)
            )
        base = horizon - (ridges - i) * 0.07 * h * rng.uniform(0.6, 1.4)
        tops = base - line * 0.3 * h
        mask = np.arange(h)[:, None] > tops[None]
        near = (i + 1) / ridges
        rock = mix((118, 116, 122), (84, 108, 60), near)
        tone = ramp(noise(rng, h, w, zoom=1.5), mix(rock, (0, 0, 0), 0.35), mix(rock, (255, 255, 255), 0.2))
        lut = np.clip(np.arange(256)[:, None] * level * light.tint, 0, 255)
        lut = lut * (0.45 + 0.55 * near) + np.array(light.horizon) * (0.55 - 0.55 * near)
        np.copyto(photo, cv2.LUT(tone, lut.astype(np.uint8).reshape(256, 1, 3)), where=mask[..., None])
    below = h - horizon
    if rng.random() < 0.45:  # a lake mirrors what is above it
        mirror = cv2.resize(np.ascontiguousarray(photo[max(horizon - below, 0) : horizon][::-1]), (w, below))
        waves = noise(rng, below, max(w // 6, 2))
        shimmer = cv2.resize(waves, (w, below))
        photo[horizon:] = cv2.addWeighted(mirror, 0.75, cv2.merge([shimmer] * 3), 0.12 * min(level, 1.0), 0)
    else:
        field = _colour(rng, 60, 150)
        field = mix(field, (96, 136, 62), 0.7)
        meadow = ramp(noise(rng, below, w), mix(field, (0, 0, 0), 0.45), mix(field, (255, 255, 200), 0.25))
        lut = np.clip(np.arange(256)[:, None] * level * light.tint, 0, 255).astype(np.uint8)
        photo[horizon:] = cv2.LUT(meadow, lut.reshape(256, 1, 3))
    for size in np.sort(rng.uniform(0.08, 0.7, int(rng.integers(0, 9)))):
        draw_tree(rng, photo, int(rng.integers(w)), int(horizon + 0.4 * size * h), int(size * h), light)
    if rng.random() < 0.3:
        occlude(rng, photo, light, horizon)
    return expose(rng, photo, illuminate(rng, light, h, w))


def _shelf(rng: np.random.Generator, wall: Texture, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    wood = mix((120, 80, 50), _colour(rng), 0.2)
    cv2.rectangle(wall, (x0, y0), (x1, y1), mix(wood, (0, 0, 0), 0.5), -1)
    rows = int(rng.integers(2, 5))
    for r in range(rows):
        floor = y0 + (r + 1) * (y1 - y0) // rows
        x = x0 + 4
        while x < x1 - 12:
            width, height = int(rng.integers(4, 11)), int(rng.uniform(0.5, 0.9) * (y1 - y0) / rows)
            cv2.rectangle(wall, (x, floor - height), (x + width, floor), _colour(rng), -1)
            x += width + 1
        cv2.rectangle(wall, (x0, floor - 3), (x1, floor + 3), wood, -1)


def _picture(rng: np.random.Generator, wall: Texture, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    cv2.rectangle(wall, (x0 - 5, y0 - 5), (x1 + 5, y1 + 5), _colour(rng, 20, 160), -1)
    canvas = ramp(noise(rng, y1 - y0, x1 - x0, zoom=6.0), _colour(rng), _colour(rng))
    for _ in range(int(rng.integers(2, 7))):
        at = int(rng.integers(x1 - x0)), int(rng.integers(y1 - y0))
        cv2.circle(canvas, at, int(rng.integers(4, 30)), _colour(rng), -1, cv2.LINE_AA)
    wall[y0:y1, x0:x1] = canvas


def room(rng: np.random.Generator, long_side_px: int) -> Texture:
    """Photograph a room from inside: three walls with pictures, shelves and doors, floor and ceiling."""
    size = photo_size(rng, long_side_px)
    w, d, h = rng.uniform(4, 8), rng.uniform(4, 8), rng.uniform(2.5, 3.6)
    eye = np.array([rng.uniform(-0.3, 0.3) * w, -d * 0.47, rng.uniform(1.2, 1.8)])
    target = np.array([rng.uniform(-0.3, 0.3) * w, d / 2, rng.uniform(0.9, 1.6)])
    fov, roll = float(rng.uniform(60, 85)), float(rng.normal(0, 1.5))
    camera = Camera.looking_at(target, centre=eye, fov_deg=fov, roll_deg=roll, size=size)
    photo = np.full((size[1], size[0], 3), 128, np.uint8)
    down, px = np.array([0, 0, -1.0]), 70
    paper = mix((206, 200, 188), _colour(rng, 90, 235), 0.5)

    def plane(
        origin: tuple[float, float, float], u: tuple[int, int, int], v: object, a: float, b: float
    ) -> Plane:
        outline = np.array([[0, 0], [a, 0], [a, b], [0, b]], float)
        return Plane(np.array(origin, float), np.array(u, float), np.asarray(v, float), outline)

    walls = [
        (plane((-w / 2, d / 2, h), (1, 0, 0), down, w, h), 1.0),
        (plane((-w / 2, -d / 2, h), (0, 1, 0), down, d, h), 0.82),
        (plane((w / 2, d / 2, h), (0, -1, 0), down, d, h), 0.9),
    ]
    shade = float(rng.uniform(0.6, 1.0))
    for surface, light in walls:
        tw, th = (int(m * px) for m in surface.polygon.max(0))
        colour = mix(paper, (0, 0, 0), 1 - light * shade)
        wall = masonry(rng, th, tw, colour=colour, block_m=(0.0, 0.0), contrast=0.2, joint=0.0)
        cv2.rectangle(wall, (0, th - 10), (tw, th), mix(colour, (255, 255, 255), 0.4), -1)
        x = int(rng.integers(20, 90))
        while x < tw - 100:
            width = int(rng.integers(50, 150))
            x1 = min(x + width, tw - 20)
            kind = rng.random()
            if kind < 0.45:
                top = int(rng.integers(40, th // 2 - 10))
                _picture(rng, wall, (x, top, x1, min(top + int(rng.integers(40, 110)), th - 40)))
            elif kind < 0.75:
                _shelf(rng, wall, (x, int(th * rng.uniform(0.15, 0.5)), x1, th - 12))
            else:
                cv2.rectangle(wall, (x, int(0.25 * th)), (min(x + 66, x1), th), _colour(rng, 60, 200), -1)
                cv2.circle(wall, (x + 10, int(0.65 * th)), 4, (220, 200, 120), -1)
            x = x1 + int(rng.integers(15, 90))
        draw_plane(photo, camera, surface, wall)
    floor = masonry(
        rng,
        300,
        300,
        colour=mix((140, 112, 84), _colour(rng, 60, 190), 0.45),
        block_m=(0.3, 1.0 if rng.random() < 0.5 else 0.6),
        contrast=0.4,
        joint=0.8,
    )
    draw_plane(photo, camera, plane((-w / 2, d / 2, 0), (1, 0, 0), (0, -1, 0), w, d), floor)
    ceiling = np.full((4, 4, 3), int(235 * shade), np.uint8)
    draw_plane(photo, camera, plane((-w / 2, -d / 2, h), (1, 0, 0), (0, 1, 0), w, d), ceiling)
    lamp = choose_light(rng)
    return expose(rng, photo, illuminate(rng, lamp, size[1], size[0]))


def closeup(rng: np.random.Generator, long_side_px: int) -> Texture:
    """Photograph a surface from near: tiles, pebbles, a wall with posters, a carved frieze."""
    w, h = photo_size(rng, long_side_px)
    colour, kind = _colour(rng, 60, 210), int(rng.integers(4))
    if kind == 0:
        cell = int(rng.integers(40, 90))
        motifs = [ornament(rng, cell, _colour(rng, 60, 230)) for _ in range(3)]
        rows = [
            np.hstack([motifs[int(k)] for k in rng.integers(0, 3, w // cell + 1)])
            for _ in range(h // cell + 1)
        ]
        photo = np.ascontiguousarray(np.vstack(rows)[:h, :w])
    elif kind == 1:
        photo = np.full((h, w, 3), mix(colour, (0, 0, 0), 0.7), np.uint8)
        for _ in range(260):
            at, axes = (
                (int(rng.integers(w)), int(rng.integers(h))),
                (int(rng.integers(8, 34)), int(rng.integers(6, 26))),
            )
            tone = mix(colour, _colour(rng), 0.4)
            cv2.ellipse(photo, at, axes, float(rng.uniform(0, 180)), 0, 360, mix(tone, (0, 0, 0), 0.4), -1)
            cv2.ellipse(photo, at, (axes[0] - 3, axes[1] - 3), float(rng.uniform(0, 180)), 0, 360, tone, -1)
    else:
        block = (float(rng.uniform(0.4, 1.5)), float(rng.uniform(0.8, 3.0)))
        photo = masonry(rng, h, w, colour=colour, block_m=block, contrast=0.35, joint=0.8)
        for _ in range(int(rng.integers(1, 8)) if kind == 2 else 0):
            x, y = int(rng.integers(0, w - 90)), int(rng.integers(0, h - 90))
            _picture(rng, photo, (x, y, x + int(rng.integers(40, 90)), y + int(rng.integers(40, 90))))
    light = choose_light(rng)
    lut = np.clip(np.arange(256)[:, None] * (light.ambient + 0.3 * light.direct) * light.tint, 0, 255)
    photo = np.asarray(cv2.LUT(photo, lut.astype(np.uint8).reshape(256, 1, 3)), np.uint8)
    return expose(rng, photo, illuminate(rng, light, h, w))
