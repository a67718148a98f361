"""Extraction from encoded photos: decoding runs ahead of the network, in windows of photos of like size.

Photos are taken in order of their size, so that a network sees whole batches; the results come back in the
order of the photos. At most two windows of decoded photos are held, whatever the number of photos.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lmr.features.decode import decode_photo
from lmr.features.interfaces import Photo

__all__ = ["extract_photos"]

Result = TypeVar("Result")


def extract_photos(
    extractor: Callable[[Sequence[Photo]], list[Result]],
    images: Sequence[bytes],
    sizes: Sequence[tuple[int, int]],
    *,
    window: int = 32,
    decoders: int = 1,
) -> list[Result]:
    """Run an extractor over encoded photos.

    Parameters
    ----------
    extractor
        A `LocalExtractor` or `GlobalExtractor`.
    images
        The photos' bytes.
    sizes
        (height, width) of each, pixels; decides the order of work only.
    window
        Photos that are decoded together and handed to the extractor in one call.
    decoders
        Threads that decode; while the extractor works on one window they fill the next.

    Returns
    -------
    One result per photo, in the order of `images`. The same for any window and number of decoders, as far as
    the extractor's own batches allow.

    Raises
    ------
    PhotoError
        If a photo cannot be decoded; photos are checked when they are ingested.
    """
    order = sorted(range(len(images)), key=lambda i: (sizes[i], i))
    windows = [order[start : start + window] for start in range(0, len(order), window)]
    results: dict[int, Result] = {}
    with ThreadPoolExecutor(decoders) as pool:

        def submit(members: list[int]) -> list[Future[Photo]]:
            return [pool.submit(decode_photo, images[i]) for i in members]

        ahead = submit(windows[0]) if windows else []
        for number, members in enumerate(windows):
            photos = [future.result() for future in ahead]
            ahead = submit(windows[number + 1]) if number + 1 < len(windows) else []
            results.update(zip(members, extractor(photos), strict=True))
    return [results[i] for i in range(len(images))]
