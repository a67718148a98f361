"""Sixty kinds of odd and damaged files, each made here, each with its stated outcome."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from lmr.errors import PhotoError
from lmr.features.decoding import decode_photo, probe_photo

WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def scene(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a photo with a red, a green, a blue and a white quarter (left to right, top to bottom)."""
    photo = np.empty((height, width, 3), np.uint8)
    photo[: height // 2, : width // 2], photo[: height // 2, width // 2 :] = RED, GREEN
    photo[height // 2 :, : width // 2], photo[height // 2 :, width // 2 :] = BLUE, WHITE
    return photo


def noise(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def file(image: Image.Image | np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Return a PNG of these raw rows, each of which begins with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def png16(colour: np.ndarray) -> bytes:
    """Return `colour` (h, w, 3) as a PNG of 16 bits per channel, which Pillow cannot write."""
    big = (colour.astype(">u2") * 257).astype(">u2")
    return png(colour.shape[1], colour.shape[0], 16, 2, b"".join(b"\0" + row.tobytes() for row in big))


def on_transparency(mode: str) -> Image.Image:
    """Return the scene, its white quarter black but transparent."""
    rgba = np.dstack([scene(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[HEIGHT // 2 :, WIDTH // 2 :] = 0
    return Image.fromarray(rgba).convert(mode)


def animated(kind: str, **options: object) -> bytes:
    frames = [
        Image.fromarray(scene()),
        Image.new("RGB", (WIDTH, HEIGHT)),
        Image.new("RGB", (WIDTH, HEIGHT), RED),
    ]
    return file(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


def indexed(**options: object) -> bytes:
    palette = Image.fromarray(scene()).quantize(4)
    return file(palette, "PNG", **options)


def transparent_palette() -> bytes:
    """Return an indexed PNG in which transparency stands as bytes, one per colour (Pillow warns of it)."""
    image = Image.new("P", (WIDTH, HEIGHT), 3)
    image.putpalette([*RED, *GREEN, *BLUE, 0, 0, 0])
    image.paste(0, (0, 0, WIDTH // 2, HEIGHT // 2))
    image.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT // 2))
    image.paste(2, (0, HEIGHT // 2, WIDTH // 2, HEIGHT))
    return file(image, "PNG", transparency=b"\xff\xff\xff\x00")


def colour_key() -> bytes:
    photo = scene()
    photo[HEIGHT // 2 :, WIDTH // 2 :] = (1, 2, 3)
    return file(photo, "PNG", transparency=(1, 2, 3))


def broken_exif() -> bytes:
    good = file(scene(), exif=exif(6))
    at = good.index(b"Exif\0\0") + 6
    return good[:at] + b"II*\0\xff\xff\xff\x7f" + good[at + 8 :]


WHOLE: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: file(scene()),
    "jpeg progressive": lambda: file(scene(), progressive=True),
    "jpeg with subsampled colour": lambda: file(scene(), subsampling=2),
    "jpeg cmyk of adobe": lambda: file(Image.fromarray(scene()).convert("CMYK")),
    "jpeg with a profile of another space": lambda: file(scene(), icc_profile=b"not a profile at all" * 9),
    "jpeg with broken exif": broken_exif,
    "jpeg of an orientation that does not exist": lambda: file(scene(), exif=exif(17)),
    "jpeg with bytes after its end": lambda: file(scene()) + b"\0" * 999,
    "mpo, two views": lambda: file(
        scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))], quality=95
    ),
    "png": lambda: file(scene(), "PNG"),
    "png of 16 bits": lambda: png16(scene()),
    "png indexed": indexed,
    "png indexed, transparency as bytes": transparent_palette,
    "png transparent": lambda: file(on_transparency("RGBA"), "PNG"),
    "png with a colour key": colour_key,
    "png interlaced with text": lambda: file(scene(), "PNG", pnginfo=None, compress_level=0),
    "png animated": lambda: animated("PNG", default_image=False),
    "gif": lambda: file(scene(), "GIF"),
    "gif animated": lambda: animated("GIF"),
    "webp lossless": lambda: file(scene(), "WEBP", lossless=True),
    "webp transparent": lambda: file(on_transparency("RGBA"), "WEBP", lossless=True),
    "webp animated": lambda: animated("WEBP", lossless=True),
    "tiff": lambda: file(scene(), "TIFF"),
    "tiff compressed, cmyk": lambda: file(
        Image.fromarray(scene()).convert("CMYK"), "TIFF", compression="tiff_lzw"
    ),
    "bmp": lambda: file(scene(), "BMP"),
    "ppm": lambda: file(scene(), "PPM"),
}


@pytest.mark.parametrize("make", WHOLE.values(), ids=WHOLE)
def test_decodes_to_the_same_photo(make: Callable[[], bytes]) -> None:
    data = make()
    photo = decode_photo(data)
    assert photo.shape == (HEIGHT, WIDTH, 3)
    assert photo.dtype == np.uint8
    assert photo.flags.writeable
    assert photo.flags.c_contiguous
    # Colour at the edges of the quarters smears when chroma is subsampled.
    inner = (slice(None, HEIGHT // 2 - 4), slice(None, WIDTH // 2 - 4))
    for corner in (photo, photo[:, ::-1], photo[::-1], photo[::-1, ::-1]):
        assert np.ptp(corner[inner].astype(int), axis=(0, 1)).max() <= 6
    np.testing.assert_allclose(photo[5::40, 5::60].astype(int), scene()[5::40, 5::60], atol=6)
    assert probe_photo(data) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_upright(orientation: int, kind: str) -> None:
    # EXIF says where the stored first row and column are in the upright photo; these undo it.
    upright = scene()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = file(np.ascontiguousarray(stored), kind, exif=exif(orientation), **lossless)
    np.testing.assert_allclose(decode_photo(data).astype(int), upright, atol=6)
    assert probe_photo(data) == (WIDTH, HEIGHT)
    assert decode_photo(data, max_side_px=48).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.fromarray(np.full((9, 7), 77, np.uint8)), "JPEG"),
        (Image.fromarray(np.full((9, 7), 77, np.uint8)), "PNG"),
        (Image.fromarray(np.full((9, 7), 77 * 257, np.uint16)), "PNG"),
        (Image.fromarray(np.full((9, 7), 77 * 257, np.uint16)), "TIFF"),
        (Image.fromarray(np.full((9, 7), 77 * 257, np.uint16)), "PPM"),
        (Image.fromarray(np.full((9, 7), 77, np.uint8)).convert("LA"), "PNG"),
    ],
    ids=["jpeg grey", "png grey", "png grey 16", "tiff grey 16", "pgm grey 16", "png grey and alpha"],
)
def test_grey_becomes_three_equal_channels(image: Image.Image, kind: str) -> None:
    photo = decode_photo(file(image, kind))
    assert photo.shape == (9, 7, 3)
    np.testing.assert_array_equal(photo, 77)


def test_black_and_white() -> None:
    photo = decode_photo(file(Image.new("1", (5, 4), 1), "PNG"))
    np.testing.assert_array_equal(photo, np.full((4, 5, 3), 255))


def test_alpha_is_laid_over_white_in_proportion() -> None:
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    np.testing.assert_allclose(decode_photo(file(half, "PNG")), 127, atol=1)


def ending_early(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def corrupted(data: bytes, at: float, count: int) -> bytes:
    start = int(len(data) * at)
    return data[:start] + bytes(255 - b for b in data[start : start + count]) + data[start + count :]


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "empty file"),
    "one byte": (lambda: b"\xff", "not an image"),
    "text": (lambda: b"this photo is no longer available", "not an image"),
    "a web page": (lambda: b"<!DOCTYPE html><html><title>404</title></html>" * 20, "not an image"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an image"),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "not an image"),
    "zeros": (lambda: bytes(5000), "not an image"),
    "noise": (lambda: noise().tobytes(), "not an image"),
    "jpeg, two bytes": (lambda: file(noise())[:2], "not an image"),
    "jpeg, header only": (lambda: ending_early(file(noise()), 0.01), "truncated JPEG"),
    "jpeg, half": (lambda: ending_early(file(noise()), 0.5), "truncated JPEG"),
    "jpeg, nine tenths": (lambda: ending_early(file(noise()), 0.9), "truncated JPEG"),
    "jpeg progressive, half": (lambda: ending_early(file(noise(), progressive=True), 0.5), "truncated JPEG"),
    "jpeg cmyk, half": (
        lambda: ending_early(file(Image.fromarray(noise()).convert("CMYK")), 0.5),
        "truncated JPEG",
    ),
    "jpeg without its first byte": (lambda: file(noise())[1:], "not an image"),
    "jpeg of no pixels": (lambda: jpeg_claiming(0, 0), "damaged JPEG"),
    "jpeg claiming 60000 x 60000": (
        lambda: jpeg_claiming(60_000, 60_000),
        "too large: 3,600,000,000 px, more than 100,000,000 px",
    ),
    "jpeg claiming 12000 x 12000": (
        lambda: jpeg_claiming(12_000, 12_000),
        "too large: 12000 x 12000 px, more than 100,000,000 px",
    ),
    "png, half": (lambda: ending_early(file(noise(), "PNG"), 0.5), "truncated PNG"),
    "png, header only": (lambda: file(noise(), "PNG")[:20], "truncated PNG"),
    "png, wrong checksum": (lambda: corrupted(file(noise(), "PNG"), 0.5, 40), "damaged PNG"),
    "png, 0 x 0": (lambda: png(0, 0, 8, 2, b""), "damaged PNG"),
    "png claiming 40000 x 4000": (
        lambda: png(40_000, 4_000, 8, 2, b""),
        "too large: 40000 x 4000 px, more than 100,000,000 px",
    ),
    "gif, half": (lambda: ending_early(file(noise(), "GIF"), 0.5), "truncated GIF"),
    "gif, 0 x 0": (lambda: b"GIF89a\0\0\0\0\0\0\0;", "damaged GIF"),
    "webp, half": (lambda: ending_early(file(noise(), "WEBP"), 0.5), "damaged WEBP"),
    "riff, but sound": (lambda: b"RIFF\x24\0\0\0WAVEfmt ", "not an image"),
    "tiff, half": (lambda: ending_early(file(noise(), "TIFF"), 0.5), "truncated TIFF"),
    "tiff compressed, half": (
        lambda: corrupted(file(noise(), "TIFF", compression="tiff_lzw"), 0.3, 9999),
        "damaged TIFF",
    ),
    "tiff in lab": (lambda: file(Image.new("LAB", (8, 8)), "TIFF"), "pixels of type LAB are not supported"),
    "bmp, half": (lambda: ending_early(file(noise(), "BMP"), 0.5), "truncated BMP"),
    "ppm, half": (lambda: ending_early(file(noise(), "PPM"), 0.5), "truncated PPM"),
}


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(file(noise()))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("read", [decode_photo, probe_photo])
@pytest.mark.parametrize(("make", "reason"), DAMAGED.values(), ids=DAMAGED)
def test_says_why_not(make: Callable[[], bytes], reason: str, read: Callable[[bytes], object]) -> None:
    with pytest.raises(PhotoError) as caught:
        read(make())
    assert caught.value.what == reason


def test_no_jpeg_that_lacks_a_tenth_passes_the_probe() -> None:
    for progressive in (False, True):
        data = file(noise(200, 160), progressive=progressive, quality=75)
        for share in np.linspace(0.05, 0.9, 25):
            with pytest.raises(PhotoError):
                probe_photo(ending_early(data, share))


def test_flipped_bits_never_crash() -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        whole = file(noise(40, 30), kind)
        for _ in range(40):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 8):
                data[at] = rng.integers(256)
            outcomes.add(outcome(bytes(data)))
    assert "decoded" in outcomes
    assert {"damaged PNG", "damaged WEBP", "not an image"} <= outcomes
    assert all(
        what == "decoded" or what.startswith(("damaged", "trunc", "not", "too", "pix")) for what in outcomes
    )


def outcome(data: bytes) -> str:
    """Return the reason why a file cannot be decoded, after checking that probing it says the same."""
    said = []
    for read in (decode_photo, probe_photo):
        try:
            read(data, max_pixels=10**6)
            said.append("decoded")
        except PhotoError as error:
            said.append(error.what)
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize("max_side_px", [1, 20, 95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_shrinks_to_the_side(max_side_px: int, kind: str) -> None:
    data = file(scene(), kind)
    photo = decode_photo(data, max_side_px=max_side_px)
    assert photo.shape == (max(1, round(HEIGHT * max_side_px / WIDTH)), max_side_px, 3)
    assert probe_photo(data) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("max_side_px", [96, 5000, None])
def test_never_enlarges(max_side_px: int | None) -> None:
    assert decode_photo(file(scene()), max_side_px=max_side_px).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_shrinking_does_not_alias(kind: str) -> None:
    # Stripes of one pixel: sampling every eighth would give black or white, their mean is grey.
    stripes = np.zeros((800, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    photo = decode_photo(file(stripes, kind), max_side_px=150)
    assert photo.shape == (100, 150, 3)
    np.testing.assert_allclose(photo[:, 1:-1], 127.5, atol=2)


def test_fast_shrinking_of_a_jpeg_is_close_to_shrinking_it_whole() -> None:
    y, x = np.mgrid[:600, :800]
    photo = np.stack([128 + 100 * np.sin(x / 40), 128 + 100 * np.cos(y / 30), (x + y) / 8], axis=2)
    data = file(photo.astype(np.uint8))
    small = decode_photo(data, max_side_px=100).astype(float)
    whole = Image.fromarray(decode_photo(data)).resize((100, 75), Image.Resampling.BOX)
    assert np.abs(small - np.asarray(whole)).mean() < 1.5


def test_a_bound_of_pixels_can_be_set() -> None:
    data = file(scene(), "PNG")
    for read in (decode_photo, probe_photo):
        with pytest.raises(PhotoError, match="too large: 96 x 64 px"):
            read(data, max_pixels=WIDTH * HEIGHT - 1)
        read(data, max_pixels=WIDTH * HEIGHT)


def test_tells_what_the_decoder_said() -> None:
    with pytest.raises(PhotoError) as caught:
        decode_photo(ending_early(file(noise()), 0.5))
    assert caught.value.got is not None
    assert "bytes not processed" in caught.value.got
