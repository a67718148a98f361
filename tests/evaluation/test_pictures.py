"""Thumbnails, made from photos drawn here."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from lmr.errors import PhotoError
from lmr.evaluation.pictures import data_uri, thumbnail, thumbnails


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


def test_sizes_of_one_photo_are_those_of_each_alone():
    photo = jpeg(640, 320)
    assert [opened(uri).size for uri in thumbnails(photo, (64, 320))] == [(64, 32), (320, 160)]


def test_data_uri_holds_the_bytes():
    assert base64.b64decode(data_uri(b"\xff\xd8 bytes").partition(",")[2]) == b"\xff\xd8 bytes"
