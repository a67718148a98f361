"""Overlays that recur all over a gallery are found in rendered photos, and nothing else is."""

import numpy as np
import pytest

from lmr.features.local.rootsift import RootSift
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.overlays import find_overlays
from lmr.retrieval.verification.verify import Features, verify_pairs
from tests.retrieval.verification.test_overlays import CONFIDENT
from tests.support.overlays import across, caption, noise_photo

SIDE = 320
PHOTOS, MARKED = 40, 12


def described(photos):
    """Return places, descriptors, the photo of each, and frames."""
    found = RootSift(max_features=250)(photos)
    xy = np.concatenate([one.xy for one in found])
    rows = to_float(np.concatenate([one.descriptor for one in found]))
    owner = np.repeat(np.arange(len(photos)), [len(one.xy) for one in found])
    return xy, rows, owner, np.array([photo.shape[1::-1] for photo in photos], np.float32)


def unrelated(count, seed=0):
    rng = np.random.default_rng(seed)
    # Of three sizes, as photos of a gallery are.
    return [noise_photo(rng, SIDE, (240, 214, 180)[i % 3]) for i in range(count)]


@pytest.mark.parametrize("overlay", [caption, across])
def test_what_recurs_is_found_and_the_photos_own_features_are_not(overlay):
    photos = unrelated(PHOTOS)
    plain = described(photos)
    for photo in photos[:MARKED]:
        overlay(photo)
    xy, rows, owner, frames = described(photos)
    found = find_overlays(xy, rows, owner, frames, side_px=SIDE)
    assert found.photos.max() >= MARKED - 2
    marked = found.mark(xy, rows, frames[owner], side_px=SIDE)
    assert np.bincount(owner, marked)[:MARKED].min() >= 8
    # Photos without it lose what looks like it at its place: a small part, as it covers one.
    xy, rows, owner, frames = plain
    assert found.mark(xy, rows, frames[owner], side_px=SIDE).mean() < 0.1


def test_nothing_recurs_in_unrelated_photos_nor_in_copies_of_one():
    photos = unrelated(PHOTOS - 10) + [unrelated(1, seed=7)[0].copy() for _ in range(10)]
    xy, rows, owner, frames = described(photos)
    assert len(find_overlays(xy, rows, owner, frames, side_px=SIDE).photos) == 0


def test_few_photos_show_no_overlay():
    photos = unrelated(5)
    for photo in photos:
        caption(photo)
    xy, rows, owner, frames = described(photos)
    assert len(find_overlays(xy, rows, owner, frames, side_px=SIDE).photos) == 0
    nothing = find_overlays(xy[:0], rows[:0], owner[:0], frames[:0], side_px=SIDE)
    assert nothing.descriptor.shape == (0, 128)
    assert not nothing.mark(xy, rows, frames[owner], side_px=SIDE).any()


def test_a_watermark_across_unrelated_photos_makes_no_confident_match():
    photos = unrelated(PHOTOS)
    for photo in photos[:MARKED]:
        across(photo)
    xy, rows, owner, frames = described(photos)
    offsets = np.searchsorted(owner, np.arange(PHOTOS + 1))
    pairs = np.array([(i, j) for i in range(6) for j in range(i)])

    def confident(kept):
        left = np.where(kept[:, None], rows, np.float32(0))
        both = Features(xy=xy, descriptors=left, offsets=offsets, frame=frames)
        return (verify_pairs(both, both, pairs).inliers > CONFIDENT).mean()

    assert confident(np.ones(len(xy), bool)) > 0.5  # it fills the inside, as what copies share does
    overlays = find_overlays(xy, rows, owner, frames, side_px=SIDE)
    assert confident(~overlays.mark(xy, rows, frames[owner], side_px=SIDE)) == 0
