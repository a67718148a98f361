"""The kinds of photos that lmr reads, in one list: how each is recognised, and what reads it."""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache

from PIL import Image, features

from lmr.errors import PhotoError

__all__ = ["FORMATS", "HEADER_BYTES", "PHOTO_SUFFIXES", "Format", "format_of", "pillow_name"]

HEADER_BYTES = 64
"""First bytes of a file that are enough for `format_of`."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of photo.

    Attributes
    ----------
    name
        The name that reasons give it.
    begins
        Regular expression for the first bytes.
    suffixes
        Suffixes that such files usually have, in lower case. They only save a look into the file.
    pillow
        Name of the Pillow plugin that reads it; empty for camera raw files, whose preview is read.
    feature
        Feature that Pillow must be built with, if it is an optional one.
    module
        Python module that adds the plugin to Pillow, if Pillow does not bring it.
    extra
        Extra of lmr that installs this module.
    """

    name: str
    begins: bytes
    suffixes: tuple[str, ...]
    pillow: str = ""
    feature: str = ""
    module: str = ""
    extra: str = ""


# Only kinds of photos: Pillow also opens, for instance, EPS by running Ghostscript.
FORMATS = (
    Format(
        name="JPEG",
        begins=rb"\xff\xd8\xff",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
        pillow="JPEG",
    ),
    Format(name="PNG", begins=rb"\x89PNG", suffixes=(".png", ".apng"), pillow="PNG"),
    Format(name="WEBP", begins=rb"RIFF.{4}WEBP", suffixes=(".webp",), pillow="WEBP", feature="webp"),
    # Camera raw files that are a kind of TIFF with a signature of their own stand before TIFF.
    Format(name="CR2", begins=rb"II\*\0.{4}CR", suffixes=(".cr2",)),
    Format(name="ORF", begins=rb"IIR[OS]\x08\0|MMOR\0", suffixes=(".orf",)),
    Format(name="RW2", begins=rb"IIU\0", suffixes=(".rw2",)),
    Format(name="RAF", begins=rb"FUJIFILMCCD-RAW", suffixes=(".raf",)),
    Format(name="CR3", begins=rb".{4}ftypcrx ", suffixes=(".cr3",)),
    Format(
        name="TIFF",
        begins=rb"II[*+]\0|MM\0[*+]",
        suffixes=(".tif", ".tiff", ".dng", ".nef", ".arw", ".pef"),
        pillow="TIFF",
    ),
    Format(name="GIF", begins=rb"GIF8[79]a", suffixes=(".gif",), pillow="GIF"),
    # Two letters are too few to tell a bitmap from text: the size of its header is one of these.
    Format(
        name="BMP",
        begins=rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0{3}",
        suffixes=(".bmp", ".dib"),
        pillow="BMP",
    ),
    Format(
        name="JPEG2000",
        begins=rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
        suffixes=(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        pillow="JPEG2000",
        feature="jpg_2000",
    ),
    Format(
        name="AVIF",
        begins=rb".{4}ftyp(?:avi[fs]|m(?:if1|sf1|iaf)(?:.{4}){1,12}?avi[fs])",
        suffixes=(".avif", ".avifs"),
        pillow="AVIF",
        feature="avif",
    ),
    Format(
        name="HEIC",
        begins=rb".{4}ftyp(?:he(?:ic|ix|im|is|vc|vx|vm|vs)|m(?:if1|sf1|iaf))",
        suffixes=(".heic", ".heif", ".heics", ".heifs", ".hif"),
        pillow="HEIF",
        module="pillow_heif",
        extra="heic",
    ),
    Format(
        name="JPEG XL",
        begins=rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
        suffixes=(".jxl",),
        pillow="JXL",
        module="pillow_jxl",
        extra="jxl",
    ),
    Format(
        name="PPM",
        begins=rb"P(?:[1-6]\s+(?:#|\d)|f\s+(?:#|\d))",
        suffixes=(".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        pillow="PPM",
    ),
)

PHOTO_SUFFIXES = frozenset(suffix for form in FORMATS for suffix in form.suffixes)
"""Suffixes of files that are taken for photos without a look into them: what is inside is checked later."""


def format_of(data: bytes) -> Format | None:
    """Return the kind of photo that a file is by its first `HEADER_BYTES`, or None if it is no photo."""
    head = data[:HEADER_BYTES]
    return next((form for form in FORMATS if re.match(form.begins, head, re.DOTALL)), None)


@cache
def pillow_name(form: Format) -> str:
    """Return the name by which Pillow opens this kind, after its plugin is loaded.

    Raises
    ------
    PhotoError
        If what reads this kind is not installed; the reason names the extra that installs it.
    """
    if form.module:
        if importlib.util.find_spec(form.module) is None:
            raise PhotoError(f"{form.name} is read with an extra: install lmr[{form.extra}]")
        plugin = importlib.import_module(form.module)
        if form.pillow not in Image.OPEN:
            plugin.register_heif_opener()
    elif form.feature and not features.check(form.feature):
        raise PhotoError(
            f"{form.name} is not read by the installed Pillow: install pillow>=11.3 from a wheel"
        )
    return form.pillow
