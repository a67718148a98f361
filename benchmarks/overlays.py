"""Overlays on real photos: false confident pairs and right pairs, with and without what verification does.

    python benchmarks/overlays.py [--gallery 300] [--marked 40] [--right 30] [--long-side-px 640]

Each overlay is drawn on unrelated development photos and on both photos of right pairs. All of them stand in
a gallery of plain photos, in which overlays are looked for. Then every two of the unrelated photos are
verified, and every right pair. An overlay hides what lies below it: "own features" is verification by those
features alone that the photos have without the overlay too, the most that finding it can reach. RootSIFT,
`verify.min_inliers` of the default. Pairs of unrelated photos that
are confident without an overlay are left out: frames of one video may show one corridor.
"""

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
from _shared import shared
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from lmr.features.local.rootsift import RootSift
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.overlays import find_overlays
from lmr.retrieval.verification.verify import Features, verify_pairs
from lmr.steps.verification.overlays import OverlaySettings
from lmr.steps.verification.verify import VerifySettings

Photo = NDArray[np.uint8]
PLACE_PX, ALIKE = 3.0, 0.8  # of a feature that an overlay has left as it was
FONT = cv2.FONT_HERSHEY_SIMPLEX


def caption(photo: Photo) -> None:
    """Write an agency's line along the bottom."""
    height, width = photo.shape[:2]
    cv2.rectangle(photo, (0, height - 36), (width, height), (235, 235, 235), -1)
    cv2.putText(photo, "Picture agency / A. Photographer 2019", (12, height - 12), FONT, 0.8, (20, 20, 20), 2)


def date_stamp(photo: Photo) -> None:
    """Write a camera's date."""
    place = (photo.shape[1] - 190, photo.shape[0] - 14)
    cv2.putText(photo, "2004 07 21", place, FONT, 0.8, (30, 140, 255), 2)


def logo(photo: Photo) -> None:
    """Draw a logo in the corner."""
    for k in range(6):
        cv2.circle(photo, (20 + 14 * k, 24), 4 + 2 * (k % 3), (200, 30 + 40 * k, 30), -1)
        cv2.rectangle(photo, (12 + 14 * k, 36), (22 + 14 * k, 40 + 3 * k), (20, 200, 40 * k), -1)


def frame(photo: Photo) -> None:
    """Draw an ornamented frame."""
    height, width = photo.shape[:2]
    cv2.rectangle(photo, (0, 0), (width - 1, height - 1), (250, 250, 250), 24)
    for x in range(10, width, 40):
        for y in (10, height - 10):
            cv2.drawMarker(photo, (x, y), (40, 40, 160), x % 7, 14, 2)


def across(photo: Photo) -> None:
    """Draw a half-transparent watermark through the middle."""
    height, width = photo.shape[:2]
    drawn = photo.copy()
    for line, text in enumerate(("SAMPLE", "agency.test")):
        place = (width // 2 - 180, height // 2 - 20 + 90 * line)
        cv2.putText(drawn, text, place, FONT, 3.0 - 1.1 * line, (255, 255, 255), 5)
    cv2.circle(drawn, (width // 2, height // 2 + 20), 150, (255, 255, 255), 3)
    photo[:] = cv2.addWeighted(drawn, 0.6, photo, 0.4, 0)


def tiled(photo: Photo) -> None:
    """Draw a half-transparent watermark all over."""
    drawn = photo.copy()
    for y in range(60, photo.shape[0], 110):
        for x in range(10, photo.shape[1], 210):
            cv2.putText(drawn, "(c) agency", (x, y), FONT, 1.0, (255, 255, 255), 2)
    photo[:] = cv2.addWeighted(drawn, 0.6, photo, 0.4, 0)


OVERLAYS: dict[str, Callable[[Photo], None]] = {
    "caption": caption,
    "date stamp": date_stamp,
    "logo": logo,
    "frame": frame,
    "watermark across the middle": across,
    "watermark all over": tiled,
}
WAYS = ("nothing", "evidence", "overlays found", "both", "own features")
FOUND = ("overlays found", "both")


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=300, help="photos without an overlay")
    parser.add_argument("--marked", type=int, default=40, help="unrelated photos that bear the overlay")
    parser.add_argument("--right", type=int, default=30, help="pairs of one landmark, both with the overlay")
    parser.add_argument("--overlays", nargs="+", choices=list(OVERLAYS), default=list(OVERLAYS))
    parser.add_argument("--long-side-px", type=int, default=640)
    options = parser.parse_args()
    with open(shared("data/landmarks") / "photos.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "gallery"]
    distractors = [row["id"] for row in rows if not row["landmark"]]
    by_landmark: dict[str, list[str]] = {}
    for row in rows:
        if row["landmark"]:
            by_landmark.setdefault(row["landmark"], []).append(row["id"])
    two = [ids[i : i + 2] for i in (0, 2) for ids in by_landmark.values() if len(ids) > i + 1]
    unrelated = distractors[:: len(distractors) // options.marked][: options.marked]
    right = [name for pair in two[: options.right] for name in pair]
    rest = [name for name in distractors if name not in unrelated]
    others = rest[:: max(1, len(rest) // options.gallery)][: options.gallery]
    photos = [read(name, options.long_side_px) for name in unrelated + right]
    plain = described([read(name, options.long_side_px) for name in others])
    wrong_pairs = np.array(list(combinations(range(len(unrelated)), 2)))
    right_pairs = np.arange(len(unrelated), len(photos)).reshape(-1, 2)
    unmarked = described(photos)
    nowhere = np.zeros(len(unmarked.xy), np.bool_)
    alike = confident(unmarked, wrong_pairs, "nothing", nowhere)
    found = confident(unmarked, right_pairs, "nothing", nowhere)
    table = Table(title=f"{(~alike).sum()} unrelated pairs and {found.sum()} right pairs, in shares")
    for name in ("overlay", *(f"{kind}: {way}" for kind in ("false", "recall") for way in WAYS)):
        table.add_column(name, justify="right" if ":" in name else "left")
    figures: dict[str, dict[str, list[float]]] = {}
    for name, draw in [("none", lambda photo: None), *((name, OVERLAYS[name]) for name in options.overlays)]:
        marked = [photo.copy() for photo in photos]
        for photo in marked:
            draw(photo)
        features = described(marked)
        spent = time.process_time()
        overlays = marked_by(features, plain, options.long_side_px)
        seconds = time.process_time() - spent
        drawn = ~own_features(features, unmarked)
        shares: dict[str, list[float]] = {"false": [], "recall": []}
        for way in WAYS:
            left_out = overlays if way in FOUND else drawn & (way == "own features")
            wrong = confident(features, wrong_pairs, way, left_out)
            kept = confident(features, right_pairs, way, left_out)
            shares["false"].append(round(float(wrong[~alike].mean()), 4))
            shares["recall"].append(round(float(kept[found].mean()), 4))
        figures[name] = {**shares, "seconds": [round(seconds, 1)]}
        table.add_row(name, *(f"{share:.3f}" for kind in shares.values() for share in kind))
        print(name, shares, f"{seconds:.1f} s to find them", file=sys.stderr, flush=True)
    Console(width=140).print(table)
    print(json.dumps(figures))


def read(name: str, long_side_px: int) -> Photo:
    """Read a photo and shrink it."""
    path = shared("data/landmarks") / "gallery" / f"{name}.jpg"
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert photo is not None
    zoom = min(1.0, long_side_px / max(photo.shape[:2]))
    return np.asarray(cv2.resize(photo, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), np.uint8)


def described(photos: list[Photo]) -> Features:
    """Return the RootSIFT of photos, with their frames."""
    found = RootSift(max_features=1000)(photos)
    return Features(
        xy=np.concatenate([one.xy for one in found]),
        descriptors=to_float(np.concatenate([one.descriptor for one in found])),
        offsets=np.cumsum([0] + [len(one.xy) for one in found]),
        frame=np.array([photo.shape[1::-1] for photo in photos], np.float32),
    )


def confident(
    features: Features, pairs: NDArray[np.int64], way: str, left_out: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which pairs are confident matches, with some features left out."""
    rows = np.where(left_out[:, None], np.float32(0), features.descriptors)
    frames = features.frame if way in ("evidence", "both", "own features") else None
    both = Features(xy=features.xy, descriptors=rows, offsets=features.offsets, frame=frames)
    return np.asarray(verify_pairs(both, both, pairs).inliers > VerifySettings().min_inliers)


def own_features(marked: Features, unmarked: Features) -> NDArray[np.bool_]:
    """Tell which features the photos have without the overlay too: at the place, with the descriptor."""
    own = np.zeros(len(marked.xy), np.bool_)
    for lo, hi, low, high in zip(
        marked.offsets, marked.offsets[1:], unmarked.offsets, unmarked.offsets[1:], strict=False
    ):
        near = np.linalg.norm(marked.xy[lo:hi, None] - unmarked.xy[None, low:high], axis=2) < PLACE_PX
        alike = marked.descriptors[lo:hi] @ unmarked.descriptors[low:high].T > ALIKE
        own[lo:hi] = (near & alike).any(axis=1)
    return own


def marked_by(features: Features, plain: Features, side_px: int) -> NDArray[np.bool_]:
    """Look for overlays in the gallery of all photos, and mark their features."""
    settings = OverlaySettings()
    kept, owners, start = [], [], 0
    for side, first in ((features, 0), (plain, len(features.xy))):
        for lo, hi in zip(side.offsets, side.offsets[1:], strict=False):
            kept.append(first + np.arange(lo, min(hi, lo + settings.sample_features)))
            owners.append(np.full(len(kept[-1]), start))
            start += 1
    assert features.frame is not None
    assert plain.frame is not None
    rows = np.concatenate(kept)
    found = find_overlays(
        np.concatenate([features.xy, plain.xy])[rows],
        np.concatenate([features.descriptors, plain.descriptors])[rows],
        np.concatenate(owners),
        np.concatenate([features.frame, plain.frame]),
        side_px=side_px,
        least_share=settings.least_share,
    )
    frames = np.repeat(features.frame, np.diff(features.offsets), axis=0)
    return found.mark(features.xy, features.descriptors, frames, side_px=side_px)


if __name__ == "__main__":
    main()
