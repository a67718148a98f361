"""The structure of JPEG files: segments, scans, padding, and what of a cut file is there; decodes nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from lmr.errors import PhotoError

__all__ = [
    "Segment",
    "check_scans",
    "is_complete",
    "ends_in_refinement",
    "size_of",
    "without_last_scan",
    "without_metadata",
    "without_padding",
]

_SOS, _EOI, _DHT, _JPG, _DAC = 0xDA, 0xD9, 0xC4, 0xC8, 0xCC
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, _JPG, _DAC}
_LOSSLESS_FRAMES = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_KEPT_METADATA = frozenset({0xE0, 0xE1, 0xEE})
"""JFIF, EXIF (the orientation) and Adobe's segment (the colour space)."""

_MOST_PADDING = 1024
_MOST_MARKERS = 10_000
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Segment:
    """A marker and what follows it: `data[start:stop]`, from its 0xFF to the end of its parameters."""

    marker: int
    start: int
    stop: int


def _segments(data: bytes, at: int = 0, *, scans: bool = False) -> Iterator[Segment]:
    """Yield the segments of a file, past its first marker: to the first scan, or all of them with `scans`."""
    at += 2
    while (at := data.find(b"\xff", at)) >= 0 and (at := _after_fill(data, at)) < len(data):
        marker, at = data[at], at + 1
        if marker == 0 or marker in _STANDALONE:
            continue
        if marker == _EOI or at + 2 > len(data):
            return
        segment = Segment(marker, at - 2, at + int.from_bytes(data[at : at + 2], "big"))
        yield segment
        at = segment.stop
        if marker == _SOS:
            if not scans or not (after := _AFTER_SCAN.search(data, at)):
                return
            at = after.start()


def _after_fill(data: bytes, at: int) -> int:
    """Return the place of the first byte that is not 0xFF; any number of these may stand before a marker."""
    while chunk := data[at : at + 65536]:
        if rest := chunk.lstrip(b"\xff"):
            return at + len(chunk) - len(rest)
        at += len(chunk)
    return at


def _all_segments(data: bytes) -> Iterator[Segment]:
    return islice(_segments(data, scans=True), _MOST_MARKERS)


def check_scans(data: bytes, max_scans: int) -> None:
    """Refuse a file whose pixels are gone over more often than cameras and web sites ever do.

    A decoder goes over all pixels for each scan, so that a small file may keep it busy for minutes.
    """
    # The two bytes also stand inside of previews; they are counted exactly only when there are many.
    if data.count(b"\xff\xda") <= max_scans:
        return
    scans = (segment for segment in _segments(data, scans=True) if segment.marker == _SOS)
    if len(list(islice(scans, max_scans + 1))) > max_scans:
        raise PhotoError(
            f"JPEG of more than {max_scans} scans",
            fix="save the photo anew; raise ingest.max_scans for files that are trusted",
        )


def without_padding(data: bytes) -> bytes:
    """Return the file without long padding between the segments of its header, which is read byte by byte."""
    pieces, end, padding = [data[:2]], 2, 0
    for segment in islice(_segments(data), _MOST_MARKERS):
        padding += segment.start - end
        pieces.append(data[segment.start : segment.stop])
        end = segment.stop
    return b"".join([*pieces, data[end:]]) if padding > _MOST_PADDING else data


def without_metadata(data: bytes) -> bytes:
    """Return the file without the comments and application segments that say nothing of its pixels."""
    pieces, end = [data[:2]], 2
    for segment in islice(_segments(data), _MOST_MARKERS):
        if segment.marker < 0xE0 or segment.marker in _KEPT_METADATA:
            pieces.append(data[segment.start : segment.stop])
        end = segment.stop
    return b"".join([*pieces, data[end:]])


def size_of(data: bytes, at: int = 0) -> tuple[int, int] | None:
    """Return (width, height) of the JPEG that begins at a place; None where none that can be decoded does."""
    for segment in islice(_segments(data, at), 200):
        if segment.marker in _FRAMES:
            height, width = (int.from_bytes(data[segment.start + i :][:2], "big") for i in (5, 7))
            return None if segment.marker in _LOSSLESS_FRAMES else (width, height)
    return None


def without_last_scan(data: bytes) -> bytes:
    """Return the file without the pixels of its last scan."""
    stops = [segment.stop for segment in _all_segments(data) if segment.marker == _SOS]
    return data[: stops[-1]] if stops else data


def ends_in_refinement(data: bytes) -> bool:
    """Tell whether the last scan adds one more bit to what earlier ones have brought."""
    scans = [data[segment.start : segment.stop] for segment in _all_segments(data) if segment.marker == _SOS]
    return bool(scans) and scans[-1][-1] >> 4 > 0


def is_complete(data: bytes) -> bool:
    """Tell whether there is a scan, begun at least, for every bit of every coefficient."""
    missing_bits: dict[int, list[int]] = {}
    for segment in _all_segments(data):
        body = data[segment.start + 4 : segment.stop]
        if segment.marker in _FRAMES:
            missing_bits = {identity: [99] * 64 for identity in body[6::3]}
        elif segment.marker == _SOS and len(body) >= 4:
            first, last, bits = body[-3], body[-2], body[-1] & 15
            for identity in body[1 : 1 + 2 * body[0] : 2]:
                if identity in missing_bits and first <= last < 64:
                    missing_bits[identity][first : last + 1] = [bits] * (last - first + 1)
    return bool(missing_bits) and not any(map(any, missing_bits.values()))
