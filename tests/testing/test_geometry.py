"""The pinhole geometry: homographies against points projected one by one, and clipping."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmr.errors import LmrError
from lmr.testing.building import design, far_to_near, surfaces
from lmr.testing.geometry import Camera, clip_near, draw_plane, plane_homography, sight
from lmr.testing.photograph import VIEWS, draw_building, stand


def _camera(azimuth_deg: float, distance_m: float = 30.0, roll_deg: float = 0.0) -> Camera:
    a = np.deg2rad(azimuth_deg)
    centre = np.array([distance_m * np.sin(a), -distance_m * np.cos(a), 2.0])
    target = np.array([0.0, 0.0, 5.0])
    return Camera.looking_at(target, centre=centre, fov_deg=55, roll_deg=roll_deg, size=(320, 240))


@settings(max_examples=20, deadline=None)
@given(st.floats(-180, 180), st.floats(25, 60), st.floats(-20, 20))
def test_homography_agrees_with_projection(azimuth: float, distance: float, roll: float) -> None:
    camera = _camera(azimuth, distance, roll)
    for surface in surfaces(design(3, (1, 2))):
        plane = surface.plane
        uv = plane.polygon * 0.9
        world = plane.origin + uv[:, :1] * plane.u + uv[:, 1:] * plane.v
        mapped = cv2.perspectiveTransform(uv[None], plane_homography(camera, plane))[0]
        np.testing.assert_allclose(mapped, camera.project(world), atol=1e-6)


def test_a_point_above_another_is_higher_in_the_photo_and_right_is_right() -> None:
    low, high, right = _camera(0).project(np.array([[0, 0, 1.0], [0, 0, 6.0], [3.0, 0, 1.0]]))
    assert high[1] < low[1] - 10
    assert right[0] > low[0] + 10


@pytest.mark.parametrize(("view", "shown", "hidden"), [(0, 0, 2), (2, 1, 3), (4, 2, 0), (6, 3, 1)])
def test_each_side_is_seen_from_its_own_direction_only(view: int, shown: int, hidden: int) -> None:
    walls = {s.side: s.plane for s in surfaces(design(4, (5, 6))) if s.body == 0 and not s.roof}
    camera = _camera(45.0 * view)
    assert sight(camera, walls[shown]) is not None
    assert sight(camera, walls[hidden]) is None


def test_roofs_and_walls_of_a_body_meet_at_the_eaves() -> None:
    for surface in surfaces(design(0, (2, 8))):
        plane = surface.plane
        assert abs(plane.u @ plane.v) < 1e-12
        assert np.linalg.norm(plane.v) == pytest.approx(1)
        corners = plane.origin + plane.polygon @ np.stack([plane.u, plane.v])
        assert corners[:, 2].min() > -1e-9


def test_the_nearer_body_is_painted_last() -> None:
    for n in range(30):
        building = design(0, (3, n))
        camera = _camera(40.0 * n)
        distances = [building.bodies[b].distance_m(camera.centre) for b in far_to_near(building, camera)]
        assert distances == sorted(distances, reverse=True)


def test_clipping_keeps_what_is_in_front() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    clipped = clip_near(square, np.array([1.0, 0, -1.5]))  # depth u - 1.5, near at 0.5: keeps u >= 2
    assert clipped[:, 0].min() == pytest.approx(2)
    assert cv2.contourArea(clipped.astype(np.float32)) == pytest.approx(8)
    assert len(clip_near(square, np.array([0, 0, -1.0]))) == 0


def test_a_marked_spot_of_a_texture_lands_where_the_homography_says() -> None:
    camera = _camera(20)
    plane = next(s.plane for s in surfaces(design(4, (5, 6))) if s.body == 0 and s.side == 0)
    extent = plane.polygon.max(0)
    texture = np.zeros((int(extent[1] * 20), int(extent[0] * 20), 3), np.uint8)
    spot = np.array([0.6, 0.5]) * texture.shape[1::-1]
    cv2.circle(texture, (int(spot[0]), int(spot[1])), 8, (255, 255, 255), -1)
    photo = np.zeros((240, 320, 3), np.uint8)
    draw_plane(photo, camera, plane, texture)
    y, x = np.nonzero(photo[..., 0] > 128)
    metres = (np.floor(spot) + 0.5) * extent / texture.shape[1::-1]
    truth = cv2.perspectiveTransform(metres[None, None], plane_homography(camera, plane))[0, 0]
    np.testing.assert_allclose([x.mean(), y.mean()], truth, atol=0.5)


def test_two_views_of_a_wall_agree_under_its_homography() -> None:
    """Planarity in pixels: one photo, warped by the truth, is the other, and is not without it."""
    building = design(1, (4, 5))
    wall = next(s.plane for s in surfaces(building) if s.body == 0 and s.side == 0)
    photos, homographies = [], []
    for azimuth in (-12, 14):
        camera = _camera(azimuth, 26)
        photo = np.zeros((240, 320, 3), np.uint8)
        draw_building(photo, building, camera)
        photos.append(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))
        homographies.append(plane_homography(camera, wall))
    first_to_second = homographies[1] @ np.linalg.inv(homographies[0])
    warped = cv2.warpPerspective(photos[0], first_to_second, (320, 240))
    # The middle of the wall, where nothing stands before it.
    w, h = wall.polygon.max(0)
    middle = np.array([[0.3 * w, 0.35 * h], [0.7 * w, 0.35 * h], [0.7 * w, 0.75 * h], [0.3 * w, 0.75 * h]])
    inside = np.zeros((240, 320), np.uint8)
    corners = cv2.perspectiveTransform(middle[None], homographies[1])[0]
    cv2.fillConvexPoly(inside, corners.astype(np.int32), 1)
    here = inside > 0
    assert here.sum() > 1500
    assert np.corrcoef(warped[here], photos[1][here])[0, 1] > 0.9
    assert np.corrcoef(photos[0][here], photos[1][here])[0, 1] < 0.6


def test_photographers_stand_outside_and_look_at_the_building() -> None:
    for n in range(40):
        rng = np.random.default_rng(n)
        building = design(n % 8, (9, n))
        camera = stand(rng, building, VIEWS[n % 8], (256, 192))
        assert all(body.distance_m(camera.centre) > 0 for body in building.bodies)
        assert 1.4 < camera.centre[2] < building.main.height_m
        assert any(sight(camera, s.plane) is not None for s in surfaces(building) if s.body == 0)


def test_a_camera_that_looks_at_itself_is_refused() -> None:
    with pytest.raises(LmrError, match="own position"):
        Camera.looking_at(np.zeros(3), centre=np.zeros(3), fov_deg=50, roll_deg=0, size=(4, 3))
