"""What stands around, behind and before a building: sky, ground, skyline, and what walks into the picture."""

import cv2
import numpy as np

from lmr.testing.geometry import Camera, Plane, draw_plane
from lmr.testing.light import Light
from lmr.testing.textures import Rgb, Texture, masonry, mix, noise, ramp

__all__ = [
    "draw_car",
    "draw_ground",
    "draw_lamp",
    "draw_person",
    "draw_sky",
    "draw_skyline",
    "draw_tree",
    "occlude",
]


def _dye(rng: np.random.Generator, strength: float) -> Rgb:
    """Draw a colour of cloth or paint, more often muted than loud."""
    grey = int(rng.integers(25, 225))
    loud = tuple(int(v) for v in rng.integers(20, 235, 3))
    return mix((grey, grey, grey), loud, strength * float(rng.random()))


def _shade(colour: Rgb, light: Light, strength: float = 1.0) -> Rgb:
    level = strength * (light.ambient + 0.6 * light.direct) * light.tint
    r, g, b = (int(np.clip(c * v, 0, 255)) for c, v in zip(colour, level, strict=True))
    return r, g, b


def draw_sky(rng: np.random.Generator, height: int, width: int, light: Light) -> Texture:
    """Return a fresh photo of nothing but sky: a gradient, clouds, stars by night."""
    t = np.linspace(0, 1.3, height)[:, None].clip(0, 1)
    column = (np.array(light.zenith) * (1 - t) + np.array(light.horizon) * t).astype(np.uint8)
    sky = cv2.resize(column[:, None], (width, height), interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.75:
        # Clouds are drawn small and stretched: soft, and cheap.
        cover = noise(rng, height // 8 + 2, width // 8 + 2, zoom=float(rng.uniform(0.4, 1.2)))
        cover = cv2.resize(cv2.blur(cover, (3, 2)), (width, height), interpolation=cv2.INTER_CUBIC)
        lift = {"day": 1.0, "overcast": 0.4, "dusk": 0.6, "night": 0.15}[light.kind]
        slope = np.clip((np.arange(256) - rng.uniform(100, 150)) * lift, 0, 90 * lift).astype(np.uint8)
        sky = cv2.add(sky, cv2.merge([cv2.LUT(cover, slope)] * 3))
    if light.kind == "night":
        for x, y in zip(rng.integers(0, width, 40), rng.integers(0, max(height // 2, 1), 40), strict=True):
            sky[y, x] = 200
    return np.asarray(sky, np.uint8)


def draw_ground(photo: Texture, camera: Camera, light: Light, colour: Rgb, seeds: tuple[int, ...]) -> None:
    """Pave the ground plane; the same paving wherever one building is photographed from."""
    far = _shade(mix(colour, (110, 116, 110), 0.5), light, 0.9)
    horizon = Plane(
        np.array([-900.0, 900, 0]),
        np.array([1.0, 0, 0]),
        np.array([0, -1.0, 0]),
        np.array([[0, 0], [1800, 0], [1800, 1800], [0, 1800.0]]),
    )
    draw_plane(photo, camera, horizon, np.full((8, 8, 3), far, np.uint8))
    rng = np.random.default_rng([*seeds, 5])
    grass = colour[1] > colour[0]
    block = (
        (0.0, 0.0)
        if grass or rng.random() < 0.3
        else (float(rng.uniform(0.15, 0.3)), float(rng.uniform(0.2, 0.4)))
    )
    tile = masonry(rng, 480, 480, colour=_shade(colour, light), block_m=block, contrast=0.3, joint=0.7)
    near = Plane(
        np.array([-40.0, 40, 0]),
        np.array([1.0, 0, 0]),
        np.array([0, -1.0, 0]),
        np.array([[0, 0], [80, 0], [80, 80], [0, 80.0]]),
    )
    draw_plane(photo, camera, near, tile)


def draw_skyline(rng: np.random.Generator, photo: Texture, horizon_px: int, light: Light) -> None:
    """Draw far houses and trees along the horizon, other ones in every photo."""
    h, w = photo.shape[:2]
    haze = light.horizon
    x = -int(rng.integers(0, 40))
    reach = 0.5 * rng.uniform(0.3, 1.0) * h * 0.4
    while x < w:
        width, height = int(rng.integers(w // 16, w // 6)), int(rng.uniform(0.15, 1.0) * reach)
        top = horizon_px - height
        if rng.random() < 0.62:
            tone = mix(_shade(mix((190, 176, 156), _dye(rng, 1.0), 0.5), light, 0.8), haze, 0.35)
            cv2.rectangle(photo, (x, top), (x + width, horizon_px), tone, -1)
            if rng.random() < 0.5:
                roof = np.array([[x - 2, top], [x + width // 2, top - width // 4], [x + width + 2, top]])
                cv2.fillConvexPoly(photo, roof, mix(_shade((140, 82, 66), light, 0.8), haze, 0.3))
            step = int(rng.integers(7, 13))
            dark = mix(tone, (0, 0, 0), 0.3)
            for yy in range(top + 5, horizon_px - 6, step + 3):
                for xx in range(x + 4, x + width - 5, step):
                    on = rng.random() < light.lit_share
                    cv2.rectangle(
                        photo, (xx, yy), (xx + step // 2, yy + step // 2), (232, 190, 110) if on else dark, -1
                    )
        else:
            tone = mix(_shade((60, 96, 50), light, 0.8), haze, 0.25)
            for _ in range(5):
                at = (x + int(rng.integers(width)), horizon_px - int(rng.integers(1, max(height // 2, 2))))
                cv2.circle(
                    photo,
                    at,
                    int(rng.integers(5, 6 + width // 3)),
                    mix(tone, (0, 0, 0), 0.2 * rng.random()),
                    -1,
                )
        x += int(width * rng.uniform(0.7, 1.4))


def draw_tree(rng: np.random.Generator, photo: Texture, x: int, foot: int, height: int, light: Light) -> None:
    """Draw a tree with a crown of leaves, `height` pixels tall, standing at (x, foot)."""
    trunk = _shade((84, 64, 48), light)
    cv2.line(photo, (x, foot), (x, foot - height // 2), trunk, max(height // 22, 2))
    size = max(int(height * 0.75), 8)
    crown = np.zeros((size, size), np.uint8)
    for _ in range(22):
        cx, cy = (int(v) for v in size / 2 + rng.normal(0, size / 7, 2))
        cv2.circle(crown, (cx, cy), int(rng.uniform(0.06, 0.17) * size), 255, -1)
    leaves = noise(rng, size, size)
    crown[leaves < 72] = 0  # the sky shines through
    if rng.random() < 0.15:
        dark, light_green = (88, 40, 18), (206, 134, 52)
    else:
        dark, light_green = (22, 44, 20), (124, 152, 74)
    paint = ramp(leaves, _shade(dark, light), _shade(light_green, light))
    x0, y0 = x - size // 2, foot - height
    a, b = max(y0, 0), min(y0 + size, photo.shape[0])
    c, d = max(x0, 0), min(x0 + size, photo.shape[1])
    if a < b and c < d:
        part = (slice(a - y0, b - y0), slice(c - x0, d - x0))
        np.copyto(photo[a:b, c:d], paint[part], where=crown[part][..., None] > 0)


def draw_person(
    rng: np.random.Generator, photo: Texture, x: int, foot: int, height: int, light: Light
) -> None:
    """Draw someone standing at (x, foot), `height` pixels tall."""
    coat, legs = (_shade(_dye(rng, 0.9), light, 0.9) for _ in range(2))
    skin = _shade(mix((92, 62, 46), (232, 190, 160), rng.random()), light)
    u = height / 8
    w = int(u * rng.uniform(0.85, 1.15))

    def at(dx: float, dy: float) -> tuple[int, int]:
        return int(x + dx * u), int(foot - dy * u)

    thick = max(int(0.75 * u), 1)
    cv2.line(photo, at(-0.4, 0.3), at(-0.3, 3.8), legs, thick)
    cv2.line(photo, at(0.5, 0.3), at(0.3, 3.8), legs, thick)
    cv2.ellipse(photo, at(0, 5.2), (w, int(1.7 * u)), 0, 0, 360, coat, -1)
    cv2.line(photo, at(-0.9, 6.3), at(-1.2, 3.8), mix(coat, (0, 0, 0), 0.25), max(int(0.5 * u), 1))
    cv2.line(
        photo, at(0.9, 6.3), at(rng.uniform(0.6, 1.8), 4.4), mix(coat, (0, 0, 0), 0.25), max(int(0.5 * u), 1)
    )
    cv2.circle(photo, at(0, 7.4), max(int(0.62 * u), 1), skin, -1)
    hair = _shade(mix((30, 22, 18), (190, 160, 110), rng.random() ** 2), light)
    cv2.ellipse(photo, at(0, 7.6), (max(int(0.62 * u), 1), max(int(0.5 * u), 1)), 0, 180, 360, hair, -1)


def draw_car(rng: np.random.Generator, photo: Texture, x: int, foot: int, length: int, light: Light) -> None:
    """Draw a parked car from its side, `length` pixels long, its wheels on `foot`."""
    body = _shade(_dye(rng, 0.8), light)
    u = length / 10
    hull = np.array(
        [[0, -1], [0.2, -2.2], [2.2, -2.6], [3.4, -4], [7, -4], [8.3, -2.6], [9.8, -2.2], [10, -1]]
    )
    glass = np.array([[2.7, -2.6], [3.6, -3.7], [6.8, -3.7], [7.8, -2.6]])
    cv2.fillPoly(photo, [(hull * u + (x, foot)).astype(np.int32)], body, cv2.LINE_AA)
    cv2.fillPoly(photo, [(glass * u + (x, foot)).astype(np.int32)], _shade((60, 74, 86), light), cv2.LINE_AA)
    for wheel in (2.2, 7.8):
        at = (int(x + wheel * u), int(foot - 0.9 * u))
        cv2.circle(photo, at, max(int(0.95 * u), 2), (24, 24, 26), -1, cv2.LINE_AA)
        cv2.circle(photo, at, max(int(0.5 * u), 1), _shade((170, 172, 176), light), -1, cv2.LINE_AA)
    pillar = (np.array([[5.2, -2.6], [5.2, -3.7]]) * u + (x, foot)).astype(int)
    cv2.line(photo, tuple(map(int, pillar[0])), tuple(map(int, pillar[1])), body, max(int(0.25 * u), 1))


def draw_lamp(photo: Texture, x: int, foot: int, height: int, light: Light) -> None:
    """Draw a street lamp."""
    iron = _shade((46, 50, 50), light, 1.2)
    cv2.line(photo, (x, foot), (x, foot - height), iron, max(height // 40, 2))
    cv2.line(
        photo,
        (x - height // 12, foot - height),
        (x + height // 12, foot - height),
        iron,
        max(height // 60, 2),
    )
    on = light.kind in ("dusk", "night")
    for side in (-1, 1):
        bulb = (x + side * height // 12, foot - height + height // 24)
        cv2.circle(
            photo, bulb, max(height // 26, 2), (255, 226, 160) if on else _shade((220, 220, 212), light), -1
        )


def occlude(rng: np.random.Generator, photo: Texture, light: Light, horizon_px: int) -> None:
    """Let things stand between camera and building: often few and small, sometimes many or large."""
    h, w = photo.shape[:2]
    crowd = rng.random()
    count = int(rng.integers(0, 4)) if crowd < 0.68 else int(rng.integers(3, 10)) if crowd < 0.93 else 2
    largest = 0.35 if crowd < 0.68 else 0.55 if crowd < 0.93 else 1.15
    sizes = np.sort(rng.uniform(0.12, largest, count))  # far first
    if crowd >= 0.93:
        sizes = np.sort(rng.uniform(0.5, largest, count))
    for size in sizes:
        height, x = int(size * h), int(rng.uniform(-0.05, 1.05) * w)
        # Feet sink towards the lower edge as things come nearer.
        foot = int(min(max(horizon_px, 0.55 * h) + 0.75 * height, 1.2 * h))
        kind = rng.random()
        if kind < 0.4:
            draw_person(rng, photo, x, foot, height, light)
        elif kind < 0.65:
            draw_tree(rng, photo, x, foot, int(1.7 * height), light)
        elif kind < 0.85:
            draw_car(rng, photo, x - height, foot, 2 * height, light)
        else:
            draw_lamp(photo, x, foot, int(1.8 * height), light)
    if rng.random() < 0.12:  # a branch hangs into the picture
        draw_tree(rng, photo, int(rng.choice([0, w])), int(0.75 * h), int(0.8 * h), light)
