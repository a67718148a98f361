import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from lmr.errors import PhotoError
from lmr.features.pipeline import decoding_threads, extract_photos


def png(value, width, height):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (value, 0, 0)).save(out, "png")
    return out.getvalue()


class Reds:
    """An extractor that tells the red of each photo and remembers what it was given."""

    needs_gpu = False

    def __init__(self, slow_s=0.0):
        self.seen, self.threads, self.held, self.most, self.slow_s = [], set(), 0, 0, slow_s
        self.lock = threading.Lock()

    def prepare(self, photo):
        self.threads.add(threading.get_ident())
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
        return photo

    def stream(self, photos):
        for photo in photos:
            self.seen.append(photo.shape[:2])
            time.sleep(self.slow_s)
            with self.lock:
                self.held -= 1
            yield int(photo[0, 0, 0])


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
@pytest.mark.parametrize("decoders", [1, 3])
def test_results_come_in_the_order_of_the_photos(ahead, decoders):
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 4, (7, 2))]
    images = [png(value, w, h) for value, (h, w) in enumerate(sizes)]
    extractor = Reds()
    assert extract_photos(extractor, images, sizes, decoders=decoders, ahead=ahead) == list(range(7))
    changes = sum(a != b for a, b in zip(extractor.seen, extractor.seen[1:], strict=False))
    assert changes == len(set(sizes)) - 1  # photos of one size follow each other
    assert threading.get_ident() not in extractor.threads
    assert len(extractor.threads) <= decoders


def test_photos_are_decoded_ahead_but_only_so_many():
    images = [png(value, 4, 4) for value in range(40)]
    extractor = Reds(slow_s=0.005)
    extract_photos(extractor, images, [(4, 4)] * 40, decoders=2, ahead=5)
    # Those that wait, and the one that the network has.
    assert 3 <= extractor.most <= 7


def test_no_photos_need_no_work():
    extractor = Reds()
    assert extract_photos(extractor, [], []) == []
    assert extractor.seen == []


def test_a_photo_that_cannot_be_decoded_is_an_error():
    with pytest.raises(PhotoError):
        extract_photos(Reds(), [png(1, 2, 2), b"nothing"], [(2, 2), (1, 1)])


def test_the_cores_of_a_machine_are_shared_out_by_its_gpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert decoding_threads(gpu=True) == 4
    assert decoding_threads(gpu=False) == 1
