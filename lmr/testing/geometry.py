"""A pinhole camera, planes in space, and painting them far to near: the only geometry that is needed.

World frame: x to the right of the front, y into the building, z up, in metres; the ground is z = 0.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.testing.textures import Texture

__all__ = ["Camera", "Matrix", "Plane", "Sight", "clip_near", "draw_plane", "plane_homography", "sight"]

Matrix = NDArray[np.float64]

_NEAR_M = 0.5


@dataclass(frozen=True)
class Camera:
    """An undistorted pinhole camera.

    Attributes
    ----------
    k
        (3, 3) intrinsics, pixels.
    r
        (3, 3) rotation, world to camera (x right, y down, z forward).
    centre
        (3,) position in the world, metres.
    width, height
        Size of the photo in pixels.
    """

    k: Matrix
    r: Matrix
    centre: Matrix
    width: int
    height: int

    @classmethod
    def looking_at(
        cls, target: Matrix, *, centre: Matrix, fov_deg: float, roll_deg: float, size: tuple[int, int]
    ) -> "Camera":
        """Build a camera of `size` (width, height); `fov_deg` spans the photo's long side."""
        forward = np.asarray(target, float) - centre
        norm = float(np.linalg.norm(forward))
        if norm < 1e-6:
            raise LmrError("a camera cannot look at its own position", got=f"{centre}", fix="move the target")
        forward /= norm
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(np.deg2rad(roll_deg)), np.sin(np.deg2rad(roll_deg))
        r = np.stack([c * right + s * down, c * down - s * right, forward])
        width, height = size
        focal = 0.5 * max(size) / np.tan(np.deg2rad(fov_deg) / 2)
        k = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return cls(k, r, np.asarray(centre, float), width, height)

    def project(self, points: Matrix) -> Matrix:
        """Project (n, 3) world points, all in front of the camera, to (n, 2) pixels."""
        seen = (self.k @ self.r @ (np.asarray(points, float) - self.centre).T).T
        return np.asarray(seen[:, :2] / seen[:, 2:])


@dataclass(frozen=True)
class Plane:
    """A convex polygon in space with its own frame.

    Attributes
    ----------
    origin
        (3,) world position of (u, v) = (0, 0): the texture's upper left corner.
    u, v
        (3,) unit vectors, right and down as seen from outside.
    polygon
        (n, 2) corners (u, v), metres, clockwise as seen from outside.
    """

    origin: Matrix
    u: Matrix
    v: Matrix
    polygon: Matrix

    def faces(self, camera: Camera) -> bool:
        """Tell whether the camera is on the outer side."""
        # u right, v down: their cross product points away from who sees the outside.
        return bool(np.cross(self.u, self.v) @ (camera.centre - self.origin) < 0)


def plane_homography(camera: Camera, plane: Plane) -> Matrix:
    """Return the (3, 3) homography from (u, v) metres on the plane to pixels of the photo.

    For two cameras, ``H2 @ inv(H1)`` takes pixels of the one photo to pixels of the other: the ground truth
    for matching.
    """
    columns = np.stack([plane.u, plane.v, plane.origin - camera.centre], axis=1)
    return np.asarray(camera.k @ camera.r @ columns)


def clip_near(polygon: Matrix, depth: Matrix) -> Matrix:
    """Cut (n, 2) `polygon` where the (3,) affine `depth` form in (u, v, 1) falls below the near distance."""
    z = np.c_[polygon, np.ones(len(polygon))] @ depth - _NEAR_M
    kept: list[Matrix] = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if z[i] >= 0:
            kept.append(polygon[i])
        if (z[i] >= 0) != (z[j] >= 0):
            kept.append(polygon[i] + (polygon[j] - polygon[i]) * z[i] / (z[i] - z[j]))
    return np.asarray(kept).reshape(-1, 2)


@dataclass(frozen=True)
class Sight:
    """How a plane appears in a photo, as if nothing stood before it.

    Attributes
    ----------
    outline
        (n, 2) its convex outline inside the frame, pixels.
    area_px
        Area of that outline.
    px_per_m
        Pixels per metre along u and along v, at the outline's middle.
    """

    outline: Matrix
    area_px: float
    px_per_m: tuple[float, float]


def sight(camera: Camera, plane: Plane) -> Sight | None:
    """Look at a plane: None if it is turned away, behind the camera or outside the frame."""
    if not plane.faces(camera):
        return None
    homography = plane_homography(camera, plane)
    polygon = clip_near(plane.polygon, homography[2])
    if len(polygon) < 3:
        return None
    corners = cv2.perspectiveTransform(polygon[None], homography)[0].astype(np.float32)
    frame = np.array(
        [[-1, -1], [camera.width, -1], [camera.width, camera.height], [-1, camera.height]], np.float32
    )
    area, outline = cv2.intersectConvexConvex(corners, frame)
    if area < 1 or outline is None:
        return None
    outline = outline[:, 0].astype(float)
    middle = cv2.perspectiveTransform(outline.mean(0)[None, None], np.linalg.inv(homography))[0, 0]
    step = 0.05
    near = cv2.perspectiveTransform((middle + np.array([[0, 0], [step, 0], [0, step]]))[None], homography)[0]
    along_u, along_v = (float(np.linalg.norm(near[i] - near[0])) / step for i in (1, 2))
    return Sight(outline, float(area), (along_u, along_v))


def draw_plane(photo: Texture, camera: Camera, plane: Plane, texture: Texture) -> None:
    """Paint a texture, stretched over the plane's bounding rectangle, into a photo, in place.

    What hides what is the caller's business: draw far planes first. So is the texture's resolution: sampling
    is bilinear, and a texture much finer than it is seen (`Sight.px_per_m`) aliases.
    """
    seen = sight(camera, plane)
    if seen is None:
        return
    x0, y0 = (int(v) for v in np.maximum(np.floor(seen.outline.min(0)), 0))
    x1, y1 = (int(v) for v in np.minimum(np.ceil(seen.outline.max(0)) + 1, (camera.width, camera.height)))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, np.round((seen.outline - (x0, y0)) * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    step_x, step_y = plane.polygon.max(0) / texture.shape[1::-1]
    # Texture pixel i covers [i, i + 1) steps: its middle is half a step in.
    to_metres = np.array([[step_x, 0, step_x / 2], [0, step_y, step_y / 2], [0, 0, 1]])
    to_photo = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ plane_homography(camera, plane) @ to_metres
    size = (x1 - x0, y1 - y0)
    warped = cv2.warpPerspective(
        texture, to_photo, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    cv2.copyTo(np.asarray(warped, np.uint8), mask, photo[y0:y1, x0:x1])
