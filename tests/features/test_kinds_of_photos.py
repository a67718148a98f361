"""Photos as people have them: every format, broken metadata, missing ends, deep grey, colour profiles."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from lmr.errors import PhotoError
from lmr.features.decoding import decode_photo, inspect_photo
from lmr.features.decoding.formats import FORMATS, format_of, pillow_name
from lmr.features.decoding.pixels import stretched
from tests.features.test_decode import HEIGHT, WIDTH, ending_early, exif, file, noise, png_chunk, scene
from tests.support.shared import shared


def smooth(width=320, height=240):
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)


def reason(data, **limits):
    with pytest.raises(PhotoError) as caught:
        inspect_photo(data, **limits)
    with pytest.raises(PhotoError):
        decode_photo(data, **limits)
    return caught.value.what


def test_ordinary_photos_decode_to_the_bit_as_pillow_does():
    photos = sorted(shared("data/landmarks").rglob("*.jpg"))[::40]
    assert len(photos) > 5
    for path in photos:
        with Image.open(path) as image:
            assert "icc_profile" not in image.info
            turned = image.getexif().get(0x0112, 1)
            expected = np.asarray(image.convert("RGB"))
        assert turned == 1
        np.testing.assert_array_equal(decode_photo(path.read_bytes()), expected)


MODERN = {
    "AVIF": {"quality": 95},
    "JPEG2000": {},
    "HEIF": {"quality": 95},
    "JXL": {"lossless": True},
}


@pytest.mark.parametrize("kind", MODERN)
def test_modern_formats_are_read_whatever_their_name(kind):
    for form in FORMATS:
        if form.pillow == kind:
            pytest.importorskip(form.module or "PIL")
            pillow_name(form)
            data = file(scene(), kind, **MODERN[kind])
            assert format_of(data) is form
    photo = decode_photo(data)
    np.testing.assert_allclose(photo[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=8)
    assert inspect_photo(data).width == WIDTH
    assert reason(ending_early(data, 0.4)) in {
        f"{how} {format_of(data).name}" for how in ("damaged", "truncated")
    }


def test_a_format_whose_reader_is_missing_names_the_extra(monkeypatch):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    pillow_name.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None)
        assert reason(heic) == "HEIC is read with an extra: install lmr[heic]"
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for form in FORMATS:
        assert not form.extra or f"\n{form.extra} = [" in pyproject


def test_text_that_begins_like_a_bitmap_is_no_photo():
    for text in (b"BMW models of the year\n" * 9, b"P1 is the first of the photos", b"GIF8 is a format"):
        assert format_of(text) is None


def raw_of(jpegs, tags=()):
    """Return a TIFF whose first image is a thumbnail, with previews behind it, as cameras write it."""
    thumbnail = io.BytesIO()
    directory = {271: "Maker", 330: 8, **dict(tags)}
    Image.new("RGB", (16, 12)).save(thumbnail, "TIFF", tiffinfo=directory)
    return thumbnail.getvalue() + b"\x07" * 99 + b"".join(jpegs)


def test_the_largest_preview_of_a_raw_file_is_read():
    small, large = file(np.zeros((20, 30, 3), np.uint8)), file(scene())
    lossless = large.replace(b"\xff\xc0", b"\xff\xc3").replace(
        struct.pack(">HH", HEIGHT, WIDTH), b"\xff\x00" * 2
    )
    for order in ([small, large, lossless], [lossless, large, small]):
        photo = decode_photo(raw_of(order))
        np.testing.assert_allclose(photo[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=6)
    for start in (
        b"FUJIFILMCCD-RAW 0201",
        b"\0\0\0\x18ftypcrx \0\0\0\x01",
        b"IIU\0\x18\0\0\0",
        b"IIRO\x08\0",
    ):
        assert decode_photo(start + bytes(200) + small + bytes(99) + large).shape == (HEIGHT, WIDTH, 3)
        assert reason(start + bytes(200)).endswith("without a preview")
    turned = decode_photo(raw_of([large], tags={274: 6}.items()))
    assert turned.shape == (HEIGHT, WIDTH, 3)  # a preview's own orientation is taken: it has none


# Pixels count, metadata does not.


def with_chunk(chunk):
    whole = file(scene(), "PNG")
    return whole[:33] + chunk + whole[33:]


def bad_checksum(name, body):
    return png_chunk(name, body)[:-4] + b"\0\0\0\0"


TEXT = b"Comment\0\0" + zlib.compress(b"a" * 3_000_000)
METADATA = {
    "large text": lambda: with_chunk(png_chunk(b"zTXt", TEXT)),
    "many texts": lambda: with_chunk(b"".join(png_chunk(b"zTXt", TEXT) for _ in range(40))),
    "large profile": lambda: with_chunk(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000)))),
    "text with a wrong checksum": lambda: with_chunk(bad_checksum(b"tEXt", b"a\0b")),
    "unknown chunk with a wrong checksum": lambda: with_chunk(bad_checksum(b"prVt", b"1234")),
    "damaged compressed text": lambda: with_chunk(png_chunk(b"zTXt", b"Comment\0\0not compressed")),
    "damaged physical size": lambda: with_chunk(png_chunk(b"pHYs", b"12")),
    "jpeg, damaged application segment": lambda: jpeg_with(
        b"\xff\xed\x00\x20Photoshop 3.0\x00" + b"8BIM\xff" * 3 + b"\0"
    ),
    "jpeg, comment of 60 kB": lambda: jpeg_with(b"\xff\xfe\xea\x62" + b"x" * 60_000),
    "jpeg, fill bytes": lambda: jpeg_with(b"\xff" * 3_000_000),
    "jpeg, fill bytes and an application segment": lambda: jpeg_with(
        b"\xff" * 2_000_000 + b"\xff\xe5\0\x04ab"
    ),
}


def jpeg_with(segment):
    whole = file(scene())
    return whole[:2] + segment + whole[2:]


@pytest.mark.parametrize("kind", METADATA)
def test_broken_or_large_metadata_costs_no_photo(kind):
    data = METADATA[kind]()
    np.testing.assert_allclose(decode_photo(data)[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=6)
    assert inspect_photo(data) == inspect_photo(file(scene(), "PNG"))


def test_pixels_with_a_wrong_checksum_are_still_damaged():
    whole = file(noise(), "PNG")
    at = whole.index(b"IDAT") + 200
    assert reason(whole[:at] + b"\0\0\0\0" + whole[at + 4 :]) == "damaged PNG"


# Ends that are missing.


CUT = [("RGB", {}), ("RGB", {"subsampling": 2}), ("L", {}), ("CMYK", {})]
CUT += [(mode, {"progressive": True}) for mode in ("RGB", "L")]


@pytest.mark.parametrize(("mode", "options"), CUT, ids=str)
def test_a_jpeg_that_lacks_its_last_bytes_is_used_and_marked(mode, options):
    photo = Image.fromarray(np.kron(noise(100, 90), np.ones((4, 4, 1), np.uint8))).convert(mode)
    whole = file(photo, quality=80, **options)
    for missing in (1, 2, 20, 100):
        found = inspect_photo(whole[:-missing])
        assert (found.width, found.height) == photo.size
        assert found.note.startswith("cut JPEG: ")
        assert 95 <= int(found.note.split()[2].rstrip("%")) <= 100
        there = decode_photo(whole[:-missing])[:300].astype(int)
        assert np.abs(there - decode_photo(whole)[:300]).mean() < 1
    assert reason(ending_early(whole, 0.8)) == "truncated JPEG"
    assert inspect_photo(whole).note == ""


def test_an_early_end_is_not_taken_for_a_grey_photo():
    grey = file(np.full((400, 400, 3), 128, np.uint8))
    assert inspect_photo(grey).note == ""
    assert reason(ending_early(file(noise(400, 400)), 0.94)) == "truncated JPEG"


# Grey of more than 8 bits.


def ramp(lowest, highest, dtype):
    return np.linspace(lowest, highest, 120 * 160).reshape(120, 160).astype(dtype)


GREY = {
    "16 bits": (0, 65535, np.uint16),
    "12 of 16 bits": (0, 4095, np.uint16),
    "10 of 16 bits": (0, 1023, np.uint16),
    "a band far from zero": (30_000, 31_000, np.uint16),
    "8 of 32 bits": (0, 255, np.int32),
    "16 of 32 bits": (0, 65535, np.int32),
    "32 bits": (0, 2**31 - 200, np.int32),
    "negative": (-500, 700, np.int32),
    "fractions": (0, 1, np.float32),
    "fractions to 255": (0, 255, np.float32),
    "heights in metres": (1200.5, 1800.25, np.float32),
    "negative fractions": (-1, 1, np.float32),
}


@pytest.mark.parametrize("kind", GREY)
def test_deep_grey_is_stretched_by_the_range_that_it_uses(kind):
    lowest, highest, dtype = GREY[kind]
    photo = decode_photo(file(Image.fromarray(ramp(lowest, highest, dtype)), "TIFF"))
    expected = np.linspace(0, 255, 120 * 160).reshape(120, 160)
    np.testing.assert_allclose(photo.mean(axis=2), expected, atol=1.5)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shift", [0, 2, 4, 8])
def test_colour_of_16_bits_keeps_the_bits_that_it_uses(suffix, shift):
    colour = smooth().astype(np.uint16) << shift
    data = cv2.imencode(suffix, colour[..., ::-1])[1].tobytes()
    np.testing.assert_allclose(decode_photo(data).astype(int), smooth(), atol=1)
    assert inspect_photo(data).width == 320


def test_hot_pixels_and_what_is_no_number_do_not_decide_the_range():
    values = ramp(0, 4095, np.uint16)
    values[0, 0] = 65535
    np.testing.assert_allclose(stretched(values)[1:], stretched(ramp(0, 4095, np.uint16))[1:], atol=1)
    fractions = ramp(0, 1, np.float32)
    fractions[0, :3] = np.nan, np.inf, -np.inf
    assert stretched(fractions)[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(stretched(fractions)[1:], stretched(ramp(0, 1, np.float32))[1:], atol=1)


@pytest.mark.parametrize("value", [0, 9000, 65535])
def test_one_value_alone_is_no_range(value):
    assert np.ptp(stretched(np.full((5, 5), value, np.uint16))) == 0


def test_the_cases_of_users_have_their_pixels():
    folder = shared("cases")
    plain = decode_photo((folder / "grey-16-bit/gallery/png16_full.png").read_bytes()).astype(int)
    for name in ("tif16_12bit_range.tif", "tif32_int_8bit.tif"):
        photo = decode_photo((folder / "grey-16-bit/gallery" / name).read_bytes())
        np.testing.assert_allclose(photo, plain, atol=1)
    for path in (folder / "png-metadata/gallery").iterdir():
        assert decode_photo(path.read_bytes()).std() > 30


# Colour profiles.


def swapped_profile():
    """Return an RGB profile whose red and green primaries are exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_profiles_are_applied(kind):
    lossless = {"lossless": True} if kind == "WEBP" else {}
    exchanged = np.ascontiguousarray(scene()[..., [1, 0, 2]])
    data = file(exchanged, kind, icc_profile=swapped_profile(), **lossless)
    np.testing.assert_allclose(decode_photo(data)[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=8)


@pytest.mark.parametrize(("comment", "padding"), [(3_000_000, 0), (10, 2_000_000)], ids=["text", "profile"])
def test_a_profile_is_applied_though_it_or_a_text_beside_it_is_too_large_for_pillow(comment, padding):
    profile = bytearray(swapped_profile() + bytes(padding))
    profile[:4] = struct.pack(">I", len(profile))
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * comment, zip=True)
    exchanged = np.ascontiguousarray(scene()[..., [1, 0, 2]])
    data = file(exchanged, "PNG", pnginfo=info, icc_profile=bytes(profile))
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(data)).load()
    np.testing.assert_allclose(decode_photo(data)[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=8)


def test_a_profile_that_says_srgb_changes_no_bit():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = file(smooth(), icc_profile=profile)
    np.testing.assert_array_equal(decode_photo(data), decode_photo(file(smooth())))


@pytest.mark.parametrize("profile", [b"nonsense" * 20, swapped_profile()[:300], b"\0" * 128], ids=len)
def test_a_damaged_profile_counts_as_none(profile):
    data = file(smooth(), icc_profile=profile)
    np.testing.assert_array_equal(decode_photo(data), decode_photo(file(smooth())))


def test_a_profile_of_another_kind_of_pixels_counts_as_none():
    grey = Image.fromarray(smooth()[..., 0])
    np.testing.assert_array_equal(
        decode_photo(file(grey, icc_profile=swapped_profile())), decode_photo(file(grey))
    )


# Files that are made to take long.


def many_scans(count, side=64):
    whole = file(smooth(side, side), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded():
    assert reason(many_scans(200)) == "JPEG of more than 100 scans"
    assert inspect_photo(file(smooth(), progressive=True)).note == ""
    assert reason(file(smooth(), progressive=True), max_scans=3) == "JPEG of more than 3 scans"
    # A preview's scans are not the photo's.
    preview = b"\xff\xda" * 500
    assert (
        inspect_photo(jpeg_with(b"\xff\xe5" + struct.pack(">H", 2 + len(preview)) + preview)).width == WIDTH
    )


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_bitmaps_of_decimal_numbers(kind):
    rng = np.random.default_rng(1)
    most, channels = (1, 255, 1023)[kind - 1], 3 if kind == 3 else 1
    values = rng.integers(0, most + 1, (7, 9 * channels))
    text = "\n".join(" ".join(map(str, row)) + " # a comment" for row in values)
    head = f"P{kind} # made by hand\n9 7\n" + ("" if kind == 1 else f"{most}\n")
    photo = decode_photo((head + text).encode())
    expected = 255 * (1 - values) if kind == 1 else values * 255 / most
    np.testing.assert_allclose(
        photo.reshape(7, -1)[:, :: 4 - channels if channels == 1 else 1][:, : 9 * channels], expected, atol=1
    )
    assert reason((head + text[: len(text) // 2]).encode()) == "truncated PPM"


def test_a_large_bitmap_of_decimal_numbers_is_quick():
    rows = b" ".join([b"255"] * 3_000) + b"\n"
    photo = decode_photo(b"P3\n1000 1500\n255\n" + rows * 1500)
    assert photo.shape == (1500, 1000, 3)
    assert photo.min() == 255
    assert reason(b"P3\n60000 60000\n255\n1 2 3").startswith(
        "too large: 3,600,000,000 px, more than 100,000,000"
    )


def test_orientation_stays_when_other_metadata_goes():
    data = file(scene(), exif=exif(6))
    padded = data[:2] + b"\xff" * 5000 + data[2:]
    assert decode_photo(padded).shape == (WIDTH, HEIGHT, 3)
