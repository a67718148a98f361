"""The light of one photo, and what camera and compression make of it."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.testing.facade import Face
from lmr.testing.textures import Rgb, Texture, mix

__all__ = ["Light", "choose_light", "expose", "illuminate", "lit"]


@dataclass(frozen=True, kw_only=True)
class Light:
    """The light of one photo.

    Attributes
    ----------
    kind
        Day, overcast, dusk or night.
    sun
        (3,) unit vector towards the sun, world frame.
    ambient, direct
        Strengths of sky and sun; 1 is full daylight together.
    tint
        Colour of the light, per channel, about 1.
    zenith, horizon
        Colours of the sky.
    lit_share
        Share of windows with their lamps on.
    """

    kind: Literal["day", "overcast", "dusk", "night"]
    sun: NDArray[np.float64]
    ambient: float
    direct: float
    tint: NDArray[np.float64]
    zenith: Rgb
    horizon: Rgb
    lit_share: float


def choose_light(rng: np.random.Generator) -> Light:
    """Draw the light: two thirds by day, the rest overcast, dusk or night."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 1.2)
    sun = np.array(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    chance = rng.random()
    if chance < 0.5:
        zenith = mix((62, 118, 196), (120, 160, 214), rng.random())
        return Light(
            kind="day",
            sun=sun,
            ambient=rng.uniform(0.66, 0.85),
            direct=rng.uniform(0.35, 0.6),
            tint=np.array([1.04, 1.0, 0.94]),
            zenith=zenith,
            horizon=(206, 220, 232),
            lit_share=0.0,
        )
    if chance < 0.72:
        grey = mix((150, 156, 164), (212, 214, 216), rng.random())
        return Light(
            kind="overcast",
            sun=sun,
            ambient=rng.uniform(0.78, 1.0),
            direct=0.08,
            tint=np.array([0.97, 1.0, 1.04]),
            zenith=grey,
            horizon=mix(grey, (240, 240, 240), 0.5),
            lit_share=0.05,
        )
    if chance < 0.9:
        return Light(
            kind="dusk",
            sun=sun,
            ambient=rng.uniform(0.5, 0.72),
            direct=rng.uniform(0.2, 0.45),
            tint=np.array([1.18, 0.92, 0.82]),
            zenith=(56, 66, 118),
            horizon=(232, 152, 104),
            lit_share=0.3,
        )
    return Light(
        kind="night",
        sun=sun,
        ambient=rng.uniform(0.2, 0.36),
        direct=0.0,
        tint=np.array([0.82, 0.9, 1.2]),
        zenith=(10, 12, 26),
        horizon=(38, 38, 56),
        lit_share=rng.uniform(0.3, 0.7),
    )


def _scaled(texture: Texture, factors: NDArray[np.float64]) -> Texture:
    lut = np.clip(np.arange(256)[:, None] * factors, 0, 255).astype(np.uint8).reshape(256, 1, 3)
    return np.asarray(cv2.LUT(texture, lut), np.uint8)


def lit(rng: np.random.Generator, light: Light, face: Face, outward: NDArray[np.float64]) -> Texture:
    """Light a face of a building: sun by its normal, floodlights by night, lamps and sky in its windows.

    Parameters
    ----------
    rng
        The photo's; decides which windows shine.
    light
        The photo's light.
    face
        The painted surface.
    outward
        (3,) unit normal, world frame.
    """
    strength = light.ambient + light.direct * max(float(outward @ light.sun), 0.0)
    shaded = _scaled(face.texture, strength * light.tint)
    if light.kind == "night":
        # Floodlights at the foot of the wall: a warm copy, fading upwards.
        warm = _scaled(face.texture, rng.uniform(0.35, 0.75) * np.array([1.2, 0.95, 0.6]))
        fade = np.linspace(rng.uniform(0.0, 0.5), 1.0, len(warm), dtype=np.float32)[:, None, None]
        shaded = cv2.add(shaded, (warm * fade).astype(np.uint8))
    if face.glass.any():
        levels = np.where(rng.random(256) < light.lit_share, rng.uniform(0.5, 1.0, 256), 0.0)
        lamp = levels[:, None] * np.array([230, 180, 96])
        mirror = (
            rng.uniform(0.0, 0.3, (256, 1))
            * np.array(light.horizon)
            * (light.ambient if light.kind != "night" else 0)
        )
        glow = np.where(levels[:, None] > 0, lamp, mirror)
        glow[0] = 0
        lut = np.clip(glow, 0, 255).astype(np.uint8).reshape(256, 1, 3)
        shaded = cv2.add(shaded, cv2.LUT(cv2.merge([face.glass] * 3), lut))
    return np.asarray(shaded, np.uint8)


def illuminate(rng: np.random.Generator, light: Light, height: int, width: int) -> NDArray[np.float32]:
    """Return the (height, width) light over the frame: a gradient, a fall-off, often a shadow's edge."""
    y, x = np.mgrid[0:24, 0:32].astype(np.float32)
    x, y = x / 15.5 - 1, y / 11.5 - 1
    slope = rng.normal(0, 0.13, 2)
    field = 1 + slope[0] * x + slope[1] * y - rng.uniform(0, 0.16) * (x**2 + y**2)
    field = cv2.resize(field.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    if light.kind in ("day", "dusk") and rng.random() < 0.45:
        # The shadow of something behind the photographer: a half-plane, or a band.
        angle, depth = rng.uniform(0, np.pi), rng.uniform(0.45, 0.75)
        middle = np.array([width, height]) * rng.uniform(0.15, 0.85, 2)
        along = np.array([np.cos(angle), np.sin(angle)]) * 2 * (width + height)
        across = np.array([-along[1], along[0]]) * (1.0 if rng.random() < 0.5 else 0.04 * rng.uniform(0.5, 3))
        corners = np.array([middle - along, middle + along, middle + along + across, middle - along + across])
        shadow = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(shadow, corners.astype(np.int32), 255)
        soft = cv2.blur(shadow, (9, 9)).astype(np.float32) / 255
        field = field * (1 - (1 - depth) * soft)
    return np.asarray(field, np.float32)


def expose(rng: np.random.Generator, photo: Texture, field: NDArray[np.float32]) -> Texture:
    """Apply frame light, exposure, white balance, blur and sensor noise; (h, w, 3) uint8."""
    h, w = photo.shape[:2]
    gain = float(np.exp(rng.normal(0, 0.16))) * np.exp(rng.normal(0, 0.06, 3))
    gamma = float(np.exp(rng.normal(0, 0.1)))
    lut = (255 * (np.arange(256) / 255) ** gamma)[:, None] * gain
    toned = cv2.LUT(photo, np.clip(lut, 0, 255).astype(np.uint8).reshape(256, 1, 3))
    blur = rng.random()
    if blur < 0.12:
        toned = cv2.filter2D(toned, -1, _shake(rng))
    else:
        toned = cv2.GaussianBlur(toned, (0, 0), 0.55 if blur < 0.75 else float(rng.uniform(0.7, 1.5)))
    developed = cv2.multiply(toned, cv2.merge([field] * 3), dtype=cv2.CV_32F)
    # Half a frame of grain, shown twice: drawing random numbers is the dear part.
    grain = rng.standard_normal((h // 2 + 1, w), dtype=np.float32) * np.float32(rng.gamma(2.0, 1.6))
    grain = np.concatenate([grain, grain[::-1]])[:h]
    return np.asarray(cv2.add(developed, cv2.merge([grain] * 3), dtype=cv2.CV_8U), np.uint8)


def _shake(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the kernel of a camera moved while the shutter was open."""
    length, angle = int(rng.integers(3, 8)), float(rng.uniform(0, np.pi))
    middle, tip = (length - 1) / 2, np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    a, b = (tuple(round(float(v)) for v in middle + sign * tip) for sign in (-1, 1))
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, a, b, 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)
