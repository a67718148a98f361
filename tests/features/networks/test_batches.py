"""Batches, on a network that is a sum and a device whose memory is a number of photos."""

import gc
import weakref

import numpy as np
import pytest
import torch

from lmr.errors import LmrError
from lmr.features.networks.batches import Batches, download, upload
from lmr.features.prepared import PreparedPhoto, extract_each

CPU = torch.device("cpu")
SIZES = [(4, 6), (4, 6), (4, 6), (2, 3), (4, 6), (4, 6), (4, 6), (4, 6)]


def photos():
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]


class Device:
    """Adds up pixels; has memory for so many photos, of launches that are not finished yet too."""

    def __init__(self, memory=99):
        self.memory, self.used, self.events = memory, 0, []

    def launch(self, batch):
        if self.used + len(batch) > self.memory:
            self.events.append(("full", len(batch)))
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.used += len(batch)
        self.events.append(("launch", len(batch)))
        return download(upload([photo.images[0] for photo in batch], CPU).sum((1, 2, 3)))

    def finish(self, landing, batch):
        self.used -= len(batch)
        self.events.append(("finish", len(batch)))
        return landing.arrays()[0].tolist()

    def run(self, batches, images):
        prepared = (PreparedPhoto((image,), image.shape[:2]) for image in images)
        return list(batches.run(prepared, self.launch, self.finish))


def sums(images):
    return [float(image.sum()) for image in images]


def test_a_batch_is_of_one_size_and_is_finished_after_the_next_is_launched():
    device = Device()
    assert device.run(Batches(3 * 24), photos()) == sums(photos())
    assert device.events == [
        ("launch", 3),
        ("launch", 1),
        ("finish", 3),
        ("launch", 3),
        ("finish", 1),
        ("launch", 1),
        ("finish", 3),
        ("finish", 1),
    ]


@pytest.mark.parametrize("memory", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("pixels", [1, 24, 100, 10_000])
def test_where_memory_runs_out_the_results_are_the_same(memory, pixels):
    device, batches = Device(memory), Batches(pixels)
    assert device.run(batches, photos()) == sums(photos())
    assert device.used == 0
    launched = [count for what, count in device.events if what == "launch"]
    assert sum(launched) == len(SIZES)
    assert max(launched) <= memory
    if pixels == 10_000 and memory <= 2:
        assert batches.pixels <= 2 * 24  # later batches stay as small


def test_memory_for_less_than_one_photo_is_told():
    with pytest.raises(LmrError, match="too little memory for one photo\ngot: 6 x 4 px; CUDA out of memory"):
        Device(0).run(Batches(10_000), photos())


def test_what_made_memory_run_out_is_not_kept():
    """An exception holds its frames, and these the tensors: memory would still be full at the second try."""
    alive = []

    def launch(batch):
        assert not [ref for ref in alive if ref() is not None]
        tensor = upload([photo.images[0] for photo in batch], CPU)
        alive.append(weakref.ref(tensor))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("no")
        return download(torch.zeros(len(batch)))

    gc.disable()
    try:
        prepared = [PreparedPhoto((image,), image.shape[:2]) for image in photos()[:2]]
        assert list(Batches(10_000).run(prepared, launch, lambda landing, batch: [0] * len(batch))) == [0, 0]
    finally:
        gc.enable()
    assert len(alive) == 3


def test_photos_are_taken_as_they_are_needed():
    taken = []

    def source():
        for image in photos():
            taken.append(image)
            yield PreparedPhoto((image,), image.shape[:2])

    device = Device()
    stream = Batches(2 * 24).run(source(), device.launch, device.finish)
    next(stream)
    assert len(taken) <= 5  # two batches of two, and the photo that showed the second one's end


def test_photos_of_one_size_share_a_batch_wherever_they_stand():
    device = Device()

    def stream(prepared):
        return Batches(10_000).run(prepared, device.launch, device.finish)

    found = extract_each(photos(), lambda image: PreparedPhoto((image,), image.shape[:2]), stream)
    assert found == sums(photos())
    assert sorted(count for what, count in device.events if what == "launch") == [1, 7]
