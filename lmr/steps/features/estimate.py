"""How long networks will take on CPUs, measured on a few of the run's own photos before it starts."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lmr import storage
from lmr.errors import ClusterError, PhotoError
from lmr.features.decoding import decode_photo
from lmr.features.interfaces import GlobalExtractor, LocalExtractor
from lmr.runtime.graph import Plan
from lmr.runtime.steps import Each, Step
from lmr.runtime.threads import limit_threads
from lmr.steps.features.local import LocalSettings, open_local
from lmr.steps.features.network import open_network
from lmr.steps.photos.ingest import IngestSettings
from lmr.steps.photos.listing import Photos

__all__ = ["Estimate", "estimate_networks"]

PHOTOS = 4  # looked at, of which the first only warms up
ENOUGH_S = 5.0


@dataclass(frozen=True)
class Estimate:
    """How long a network takes on this machine's CPU.

    Attributes
    ----------
    step
        The step that runs it.
    photos
        How many it has still to see.
    seconds_per_photo
        With one thread, decoding included; None where torch is not installed on this machine.
    measured
        On how many photos that was measured.
    """

    step: str
    photos: int
    seconds_per_photo: float | None
    measured: int


def estimate_networks(plan: Plan, gallery: Photos) -> list[Estimate]:
    """Measure each network that a plan runs on CPUs, on a few photos of the gallery; a few seconds in all.

    The shards of gallery and queries are counted together. A plan without such a network costs nothing.
    """
    photos: dict[Any, int] = {}
    steps: dict[Any, Step] = {}
    for need in plan:
        step = need.step
        if need.missing and step.weights and step.placement.get("device") == "cpu":
            steps.setdefault(step.make, step)
            images = step.inputs["images"]
            assert isinstance(images, Each)
            left = -(-images.step.rows * len(need.missing) // step.shards)
            photos[step.make] = photos.get(step.make, 0) + left
    estimates = []
    for make, step in steps.items():
        try:
            times = list(_seconds(_open(step), _some(gallery)))
        except ClusterError:  # no torch here; the workers may have it
            times = []
        seconds = sum(times) / len(times) if times else None
        estimates.append(Estimate(step.name, photos[make], seconds, len(times)))
    return estimates


def _open(step: Step) -> LocalExtractor | GlobalExtractor:
    run = step.placement["weights"], step.placement["device"], step.implied.get("code")
    if isinstance(step.settings, LocalSettings):
        return open_local(step.settings, *run)
    return open_network(step.settings, *run)


def _seconds(extractor: LocalExtractor | GlobalExtractor, images: Iterable[bytes]) -> Iterator[float]:
    """Yield the seconds that each photo took; not the first's, unless that alone took long enough."""
    limit_threads()  # as a task has them
    spent = 0.0
    for number, image in enumerate(images):
        start = time.perf_counter()
        extractor([decode_photo(image)])
        taken = time.perf_counter() - start
        spent += taken
        if number > 0 or spent > ENOUGH_S:
            yield taken
        if spent > ENOUGH_S:
            return


def _some(photos: Photos) -> Iterator[bytes]:
    """Yield the bytes of a few photos, from all over the gallery, that can be decoded."""
    found = 0
    for place in range(0, len(photos), max(1, len(photos) // (2 * PHOTOS))):
        try:
            (image,) = storage.read_outside([photos.piece(place)], most_bytes=IngestSettings.max_bytes)
            if isinstance(image, Exception):
                continue
            decode_photo(image, max_side_px=32)
        except PhotoError:
            continue
        yield image
        found += 1
        if found == PHOTOS:
            return
