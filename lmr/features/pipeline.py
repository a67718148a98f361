"""Extraction from encoded photos, as a bounded pipeline: threads decode ahead of the network.

Decoding threads also do what an extractor does to a photo before its network (shrinking, above all). Photos
are taken in order of their shape and size, so that a network sees whole batches; the results come back in the
order of the photos. However many photos there are, only a few decoded ones are held.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from lmr.features.decoding.decode import MOST_PIXELS, MOST_SCANS, decode_photo
from lmr.features.interfaces import Photo

__all__ = ["decoding_threads", "extract_photos"]

Result = TypeVar("Result", covariant=True)

AHEAD = 64
"""Photos decoded ahead of those that the network has taken, unless given."""


class _Streaming(Protocol[Result]):
    """What a `LocalExtractor` and a `GlobalExtractor` have in common here."""

    needs_gpu: bool

    def prepare(self, photo: Photo) -> Any: ...

    def stream(self, photos: Iterable[Any]) -> Iterator[Result]: ...


def extract_photos(
    extractor: _Streaming[Result],
    images: Sequence[bytes],
    sizes: Sequence[tuple[int, int]],
    *,
    decoders: int | None = None,
    ahead: int = AHEAD,
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
    decoders
        Threads that decode and prepare photos; `decoding_threads` unless given.
    ahead
        Photos that are decoded and prepared, at most, before the extractor takes them.

    Returns
    -------
    One result per photo, in the order of `images`; the same for any number of decoders and photos ahead, as
    far as the extractor's own batches allow.

    Raises
    ------
    PhotoError
        If a photo cannot be decoded; photos are checked when they are ingested.
    """
    # Photos of one shape become one size when they are shrunk, so they stand together.
    order = sorted(range(len(images)), key=lambda i: (sizes[i][1] / sizes[i][0], sizes[i][0], i))

    def prepared(i: int) -> Any:
        # What is too large for a run was left out when it was ingested.
        return extractor.prepare(decode_photo(images[i], max_pixels=MOST_PIXELS, max_scans=MOST_SCANS))

    threads = decoders or decoding_threads(extractor.needs_gpu)
    stream = extractor.stream(_ahead(prepared, order, threads=threads, ahead=ahead))
    results = dict(zip(order, stream, strict=True))
    return [results[i] for i in range(len(images))]


def decoding_threads(gpu: bool) -> int:
    """Return how many threads decode for one network.

    On a CPU one: the other cores have worker processes of their own. Beside a GPU this machine's cores are
    shared out by its GPUs, since each has one worker process.
    """
    if not gpu:
        return 1
    from lmr.features.networks.devices import gpu_count

    return max(1, len(os.sched_getaffinity(0)) // gpu_count())


def _ahead(make: Callable[[int], Any], order: Sequence[int], *, threads: int, ahead: int) -> Iterator[Any]:
    """Yield what `make` makes of each number, in order, made by threads before it is asked for."""
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for number in order:
            waiting.append(pool.submit(make, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
