"""Screenshots of the pages, of a rendered world: `python docs/screenshots.py`, which needs Chromium.

It renders a world of landmarks and runs the five steps on it with two workers. VLAD describes the photos,
since rendered buildings look alike to a network that was trained on photos. Then it writes what a browser
shows of the report, of a query, of the run's course, of a search with one photo and of groups into
docs/pictures as JPEGs: on a desk, in the dark, and on a phone. Look at them after a change of a page.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import lmr
from lmr.testing import World, write_world

FOLDER = Path(__file__).parent / "pictures"
WORLD = World(
    landmarks=8,
    gallery_per_landmark=(3, 7),
    queries=10,
    distractors=16,
    queries_without_landmark=1,
    long_side_px=480,
    seed=5,
)
SHOWN_PX, QUALITY, MOST_BYTES = 900, 72, 60_000
DARK = "--blink-settings=preferredColorScheme=0"


@dataclass(frozen=True)
class Shot:
    """A screenshot: its name, the page below the run's folder, and the window in pixels."""

    name: str
    page: str
    width_px: int
    height_px: int
    options: tuple[str, ...] = ()


SHOTS = (
    Shot("report", "report/index.html", 1180, 1180),
    Shot("report-phone", "report/index.html", 500, 1000),
    Shot("report-dark", "report/index.html", 1180, 900, (DARK,)),
    Shot("query", "report/index.html#q=0", 1180, 1180),
    Shot("run", "report/run.html", 1180, 1000),
    Shot("search", "found.html", 1180, 1000),
    Shot("search-phone", "found.html", 500, 1000),
    Shot("groups", "groups/index.html", 1180, 1000),
)


def main() -> None:
    """Render, run, and take the screenshots."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        world, out = Path(folder, "world"), Path(folder, "landmarks")
        write_world(WORLD, world)
        photos = world / "gallery", world / "queries"
        chosen = {"descriptor": "vlad", "settings": {"ingest.photos_per_shard": 10}}
        lmr.retrieve(*photos, out, solution=world / "solution.csv", workers=2, **chosen)
        asked = min((world / "queries").iterdir())
        for words in (["search", out, asked, "--page", out / "found.html"], ["group", out, "--workers", "2"]):
            subprocess.run([sys.executable, "-m", "lmr", *map(str, words)], check=True)
        for shot in SHOTS:
            take(browser, shot, out, Path(folder, "shot.png"))


def take(browser: str, shot: Shot, run: Path, png: Path) -> None:
    """Let a browser show a page, and write what it shows as a small JPEG."""
    size = f"--window-size={shot.width_px},{shot.height_px}"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", size]
    patience = ["--allow-file-access-from-files", "--virtual-time-budget=4000", f"--screenshot={png}"]
    subprocess.run(
        [*command, *patience, *shot.options, f"file://{run}/{shot.page}"], check=True, capture_output=True
    )
    (FOLDER / f"{shot.name}.jpg").write_bytes(small_jpeg(cv2.imread(str(png))))


def small_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture as a JPEG of at most `MOST_BYTES`, as sharp as that allows."""
    for width_px in range(min(SHOWN_PX, picture.shape[1]), 300, -40):
        size = width_px, round(picture.shape[0] * width_px / picture.shape[1])
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        if len(jpeg) <= MOST_BYTES:
            return jpeg
    raise SystemExit(f"a screenshot takes more than {MOST_BYTES:,} bytes however small it is")


if __name__ == "__main__":
    main()
