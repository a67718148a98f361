"""Near copies of photos: which are found, which different photos are taken for copies, and what it costs.

    python benchmarks/duplicates.py [--every 10] [--descriptor-photos 150]

Copies of real photos are made here: smaller, encoded again, brighter, slightly cropped. For each measure
(perceptual hashes of 64 and 256 bits, and the embedded global descriptor lite0) the last table says which
share of the copies lies within a limit, and how many pairs of different photos of the gallery do: of one
landmark, and of different ones. Seconds of hashing stand beside those of RootSIFT on the same photos.
"""

import argparse
import csv
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import imagehash
import numpy as np
from _shared import shared
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from lmr.features.decoding.decode import decode_photo
from lmr.features.local.rootsift import RootSift
from lmr.features.networks.onnx_models import load_lite0
from lmr.features.perceptual import HASH_SIDE_PX, perceptual_hash

out = Console(width=110)
Measured = NDArray[np.float64]


def copies(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the same picture as others leave it: what was done, and the file."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    w, h = image.size
    yield "half size", saved(image.resize((w // 2, h // 2)), quality=85)
    yield "quarter size, quality 40", saved(image.resize((w // 4, h // 4)), quality=40)
    yield "quality 30", saved(image, quality=30)
    yield "WebP", saved(image, "WEBP", quality=60)
    yield "brighter", saved(Image.eval(image, lambda v: min(255, int(v * 1.2 + 10))), quality=85)
    for share in (0.02, 0.05, 0.1):
        x, y = int(w * share / 2), int(h * share / 2)
        yield f"{share:.0%} cropped", saved(image.crop((x, y, w - x, h - y)), quality=85)


def saved(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """Return the bytes of a file."""
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def bits_64(data: bytes) -> NDArray[Any]:
    """Return the hash of 64 bits."""
    photo = Image.fromarray(decode_photo(data, max_side_px=HASH_SIDE_PX))
    return np.asarray(imagehash.phash(photo).hash).ravel()


def bits_256(data: bytes) -> NDArray[Any]:
    """Return the hash that lmr uses, bit by bit; of a plain photo, bits that nothing is near to."""
    found = perceptual_hash(decode_photo(data, max_side_px=HASH_SIDE_PX))
    return np.full(256, 2, np.uint8) if found is None else np.unpackbits(found)


def differing(a: NDArray[Any], b: NDArray[Any]) -> Measured:
    """Return in how many bits hashes differ, all of `a` (n, bits) against all of `b`."""
    plain = (a == 2).all(1)
    far = np.stack([(b != one).sum(1) for one in a]).astype(float)
    far[plain] = np.inf
    return far


def apart(a: NDArray[Any], b: NDArray[Any]) -> Measured:
    """Return 1 - the cosine of unit descriptors."""
    return np.asarray(1 - a.astype(float) @ b.astype(float).T)


def measure(
    name: str,
    look: Callable[[bytes], NDArray[Any]],
    far: Callable[[NDArray[Any], NDArray[Any]], Measured],
    limits: Sequence[float],
    gallery: Sequence[bytes],
    landmarks: Sequence[str],
    every: int,
) -> dict[str, Any]:
    """Measure one way to tell copies, print its table, and return its figures."""
    start = time.perf_counter()
    known = np.stack([look(data) for data in gallery])
    seconds = (time.perf_counter() - start) / len(gallery)
    of_copy: dict[str, list[float]] = defaultdict(list)
    for i in range(0, len(gallery), every):
        for what, data in copies(gallery[i]):
            of_copy[what].append(float(far(known[i : i + 1], look(data)[None])[0, 0]))
    pairs = far(known, known)[np.triu_indices(len(known), 1)]
    one, other = np.triu_indices(len(known), 1)
    marks = np.array(landmarks)
    same = (marks[one] == marks[other]) & (marks[one] != "")
    # Distractors come in bursts too, and nothing says which: pairs of them are counted by themselves.
    unknown = (marks[one] == "") & (marks[other] == "")
    table = Table(title=f"{name}: {1000 * seconds:.1f} ms a photo", title_justify="left")
    for column in ("within", *(f"{limit:g}" for limit in limits)):
        table.add_column(column)
    figures: dict[str, list[float]] = {}
    for what, values in of_copy.items():
        figures[what] = [float(np.mean(np.array(values) <= limit)) for limit in limits]
        table.add_row(what, *(f"{share:.1%}" for share in figures[what]))
    for what, those in (
        ("pairs of one landmark", same),
        ("pairs of distractors", unknown),
        ("pairs of different landmarks", ~same & ~unknown),
    ):
        figures[what] = [int((pairs[those] <= limit).sum()) for limit in limits]
        table.add_row(f"{what} ({those.sum():,})", *(f"{count:,}" for count in map(int, figures[what])))
    out.print(table)
    return {"ms": 1000 * seconds, "limits": list(limits), **figures}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=10, help="copies are made of each n-th photo")
    parser.add_argument(
        "--descriptor-photos", type=int, default=150, help="photos that the network describes; 0: none"
    )
    chosen = parser.parse_args()
    folder = shared("data/landmarks")
    rows = {row["id"]: row for row in csv.DictReader((folder / "photos.csv").open())}
    paths = sorted((folder / "gallery").iterdir())
    gallery, landmarks = [p.read_bytes() for p in paths], [rows[p.stem]["landmark"] for p in paths]
    figures = {
        "phash of 64 bits": measure(
            *("phash of 64 bits", bits_64, differing, (2, 4, 6, 8, 10, 12), gallery, landmarks, chosen.every)
        ),
        "phash of 256 bits": measure(
            *("phash of 256 bits", bits_256, differing, (8, 16, 24, 32, 40, 47)),
            *(gallery, landmarks, chosen.every),
        ),
    }
    if chosen.descriptor_photos:
        step = max(1, len(gallery) // chosen.descriptor_photos)
        lite0 = load_lite0()

        def describe(data: bytes) -> NDArray[Any]:
            found = lite0([decode_photo(data, max_side_px=640)])[0].descriptor
            return np.asarray(found / max(float(np.linalg.norm(found)), 1e-9))

        figures["lite0"] = measure(
            *("lite0", describe, apart, (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)),
            *(gallery[::step], landmarks[::step], chosen.every),
        )
    some = gallery[:: chosen.every]
    sift = RootSift()
    spent = {}
    for what, look in (("hash", bits_256), ("RootSIFT", lambda data: sift([decode_photo(data)]))):
        start = time.perf_counter()
        for data in some:
            look(data)
        spent[what] = time.perf_counter() - start
    share = spent["hash"] / spent["RootSIFT"]
    out.print(
        f"hashing takes {share:.1%} of the time of decoding and RootSIFT on the same {len(some)} photos"
    )
    print(json.dumps({**figures, "share_of_rootsift": share}))


if __name__ == "__main__":
    main()
