"""One agency's caption on unrelated photos makes no confident match; landmarks are found behind it."""

import csv
from itertools import combinations

import cv2
import numpy as np
import pytest

from lmr.features.local.rootsift import RootSift
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.verify import Features, verify_pairs
from tests.support.shared import shared

CONFIDENT = 10  # RootSIFT's verify.min_inliers
UNRELATED, PAIRS = 8, 8


def caption(photo):
    cv2.rectangle(photo, (0, photo.shape[0] - 36), (photo.shape[1], photo.shape[0]), (235, 235, 235), -1)
    place = (12, photo.shape[0] - 12)
    cv2.putText(photo, "Picture agency / A. Photographer 2019", place, *FONT, (20, 20, 20), 2)


def date_stamp(photo):
    place = (photo.shape[1] - 190, photo.shape[0] - 14)
    cv2.putText(photo, "2004 07 21", place, *FONT, (30, 140, 255), 2)


def logo(photo):
    for k in range(6):
        cv2.circle(photo, (20 + 14 * k, 24), 4 + 2 * (k % 3), (200, 30 + 40 * k, 30), -1)
        cv2.rectangle(photo, (12 + 14 * k, 36), (22 + 14 * k, 40 + 3 * k), (20, 200, 40 * k), -1)


def frame(photo):
    height, width = photo.shape[:2]
    cv2.rectangle(photo, (0, 0), (width - 1, height - 1), (250, 250, 250), 24)
    for x in range(10, width, 40):
        for y in (10, height - 10):
            cv2.drawMarker(photo, (x, y), (40, 40, 160), x % 7, 14, 2)


FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.8)
OVERLAYS = {"caption": caption, "date stamp": date_stamp, "logo": logo, "frame": frame}


def photos_of(names):
    folder = shared("data/landmarks")
    loaded = []
    for name in names:
        photo = cv2.imread(str(folder / name), cv2.IMREAD_COLOR_RGB)
        zoom = 640 / max(photo.shape[:2])
        loaded.append(cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA))
    return loaded


def features_of(photos, framed):
    found = RootSift(max_features=600)(photos)
    return Features(
        xy=np.concatenate([one.xy for one in found]),
        descriptors=to_float(np.concatenate([one.descriptor for one in found])),
        offsets=np.cumsum([0] + [len(one.xy) for one in found]),
        frame=np.array([photo.shape[1::-1] for photo in photos], np.float32) if framed else None,
    )


def confident(photos, pairs, *, framed=True):
    features = features_of(photos, framed)
    return verify_pairs(features, features, np.array(pairs)).inliers > CONFIDENT


def listed():
    with open(shared("data/landmarks") / "photos.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_overlays_make_no_confident_match_of_unrelated_photos():
    names = [
        f"gallery/{row['id']}.jpg" for row in listed() if row["set"] == "gallery" and not row["landmark"]
    ]
    plain = photos_of(names[:: len(names) // UNRELATED][:UNRELATED])
    pairs = list(combinations(range(UNRELATED), 2))
    # Frames of one video may show one corridor: what agrees without an overlay is not its doing.
    alike = confident(plain, pairs)
    assert alike.mean() < 0.1
    before, after = [], []
    for overlay in OVERLAYS.values():
        marked = [photo.copy() for photo in plain]
        for photo in marked:
            overlay(photo)
        before.append((confident(marked, pairs, framed=False) & ~alike).mean())
        after.append((confident(marked, pairs) & ~alike).mean())
    assert max(before) > 0.5  # or the overlays would show nothing
    assert max(after) <= 0.01


@pytest.mark.slow
def test_right_pairs_stay_confident_with_a_caption_and_without():
    by_landmark = {}
    for row in listed():
        if row["landmark"] and row["set"] == "gallery":
            by_landmark.setdefault(row["landmark"], []).append(f"gallery/{row['id']}.jpg")
    names = [name for group in list(by_landmark.values())[::5] for name in group[:2] if len(group) > 1]
    photos = photos_of(names[: 2 * PAIRS])
    pairs = [(i, i + 1) for i in range(0, len(photos), 2)]
    plain = confident(photos, pairs, framed=False)
    assert plain.sum() >= 3
    np.testing.assert_array_equal(confident(photos, pairs), plain)
    for photo in photos:
        caption(photo)
    assert (confident(photos, pairs) & plain).sum() >= plain.sum() - 1
