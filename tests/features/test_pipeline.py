import io

import numpy as np
import pytest
from PIL import Image

from lmr.errors import PhotoError
from lmr.features.pipeline import extract_photos


def png(value, width, height):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (value, 0, 0)).save(out, "png")
    return out.getvalue()


class Reds:
    """An extractor that tells the red of each photo and remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, photos):
        self.calls.append([photo.shape[:2] for photo in photos])
        return [int(photo[0, 0, 0]) for photo in photos]


@pytest.mark.parametrize("window", [1, 2, 3, 100])
@pytest.mark.parametrize("decoders", [1, 3])
def test_results_come_in_the_order_of_the_photos(window, decoders):
    rng = np.random.default_rng(0)
    sizes = [(int(h), int(w)) for h, w in rng.integers(1, 4, (7, 2))]
    images = [png(value, w, h) for value, (h, w) in enumerate(sizes)]
    extractor = Reds()
    assert extract_photos(extractor, images, sizes, window=window, decoders=decoders) == list(range(7))
    assert max(map(len, extractor.calls)) <= window
    seen = [size for call in extractor.calls for size in call]
    assert seen == sorted(sizes)  # photos of one size follow each other


def test_no_photos_need_no_call():
    extractor = Reds()
    assert extract_photos(extractor, [], []) == []
    assert extractor.calls == []


def test_a_photo_that_cannot_be_decoded_is_an_error():
    with pytest.raises(PhotoError):
        extract_photos(Reds(), [png(1, 2, 2), b"nothing"], [(2, 2), (1, 1)])
