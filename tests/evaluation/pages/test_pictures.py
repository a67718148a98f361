"""Thumbnails and pictures of verified pairs, drawn from photos made here."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lmr.errors import LmrError, PhotoError
from lmr.evaluation.pages.pictures import data_uri, match_picture, thumbnail, thumbnails


def jpeg(width, height, colour=(120, 120, 120), orientation=None):
    image = Image.new("RGB", (width, height), colour)
    # The top quarter is white, so that one can see which way is up.
    image.paste((255, 255, 255), (0, 0, width, height // 4))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def opened(uri):
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(("size", "expected"), [((900, 300), (160, 53)), ((30, 60), (30, 60))])
def test_a_thumbnail_shrinks_and_keeps_its_shape(size, expected):
    picture = opened(thumbnail(jpeg(*size)))
    assert picture.mode == "RGB"
    assert np.abs(np.subtract(picture.size, expected)).max() <= 1


def test_a_thumbnail_is_upright():
    turned = opened(thumbnail(jpeg(400, 200, orientation=6), 100))  # to be turned by 90° clockwise
    assert turned.size == (50, 100)
    pixels = np.asarray(turned.convert("L"), dtype=int)
    assert pixels[:, 45].min() > 240  # the top has become the right side
    assert pixels[:, 5].max() < 140


def test_grey_and_png_photos_do_as_well():
    out = io.BytesIO()
    Image.new("LA", (300, 100), (7, 255)).save(out, "PNG")
    assert opened(thumbnail(out.getvalue(), 60)).size == (60, 20)


@pytest.mark.parametrize("data", [b"", b"no photo", jpeg(500, 500)[:400]])
def test_bytes_that_are_no_photo_are_refused(data):
    with pytest.raises(PhotoError, match="cannot be decoded"):
        thumbnail(data)
    with pytest.raises(PhotoError, match="cannot be decoded"):
        match_picture(jpeg(50, 50), data, [], [])


def test_sizes_of_one_photo_are_those_of_each_alone():
    photo = jpeg(640, 320)
    assert [opened(uri).size for uri in thumbnails(photo, (64, 320))] == [(64, 32), (320, 160)]


def test_a_match_picture_joins_the_inliers():
    photos = jpeg(200, 100), jpeg(300, 300)
    blank = Image.open(io.BytesIO(match_picture(*photos, [], [], height_px=200)))
    assert blank.size == (400 + 4 + 200, 200)
    joined = Image.open(io.BytesIO(match_picture(*photos, [[50, 75]], [[150, 225]], height_px=200)))
    change = np.abs(np.asarray(joined, dtype=int) - np.asarray(blank, dtype=int)).sum(axis=2)
    # In the picture the ends lie at (100, 150) and (404 + 100, 150); the line between is level.
    assert change[150, 100] > 100
    assert change[150, 504] > 100
    assert (change[149:152, 110:495].max(axis=0) > 60).all()
    assert change[:130].max() < 30
    assert change[:, :85].max() < 30
    assert change[:, 520:].max() < 30


def test_points_of_another_frame_are_refused():
    photo = jpeg(200, 100)
    match_picture(photo, photo, [[-0.5, 100.5]], [[200, 0]])
    with pytest.raises(LmrError, match="xy_2 has points outside of its photo of 200 × 100 pixels"):
        match_picture(photo, photo, [[5, 5]], [[5, 150]])
    with pytest.raises(LmrError, match="xy_1 has points outside"):
        match_picture(photo, photo, [[np.nan, 5]], [[5, 5]])
    with pytest.raises(LmrError, match="must be pairs"):
        match_picture(photo, photo, [[5, 5]], [])
    with pytest.raises(LmrError, match=r"xy_1 must be \(n, 2\) pixels"):
        match_picture(photo, photo, [5, 5], [5, 5])


def test_data_uri_holds_the_bytes():
    assert base64.b64decode(data_uri(b"\xff\xd8 bytes").partition(",")[2]) == b"\xff\xd8 bytes"
