"""One task of verification as the contest has it: 1,000 gallery photos, 10,000 pairs, nearly as many queries.

Real features, repeated with noise: each photo of the shard and of the queries is one of the development
photos with its places moved by about a pixel and its descriptors by about three levels of 8 bits. So every
pair is matched and verified as a real one is, and no two are the same.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.features.local.quantise import to_int8
from lmr.runtime.settings import Part
from lmr.steps.verification.verify import VerifySettings, verify_shard
from lmr.storage.arrow import table
from lmr.storage.datasets import Dataset

__all__ = ["ContestShard", "contest_shard"]

GALLERY, QUERIES_PER_SHARD = 1000, 1000
SAME = 0.1  # of the pairs show one landmark: of 100 candidates of a query most do not
MOVED_PX, MOVED_LEVELS = 1.0, 3.0


@dataclass(frozen=True)
class ContestShard:
    """The datasets that `verify_shard` reads, and which of their pairs show one landmark."""

    datasets: dict[str, Dataset]
    pairs: int
    settings: Part

    def verify(self) -> pa.Table:
        """Verify all pairs, as a task of the step does."""
        return verify_shard(0, self.settings, **self.datasets)


@contextmanager
def contest_shard(
    photos: Sequence[dict[str, NDArray[Any]]], landmarks: Sequence[str], dimension: str, pairs: int
) -> Iterator[ContestShard]:
    """Write the datasets of one task into a temporary folder.

    Parameters
    ----------
    photos
        Features of real photos: `xy`, `scale`, `orientation`, `size_px` and unit rows under `dimension`.
    landmarks
        What each shows.
    dimension
        "128" (stored as RootSIFT is, uint8) or "40" (as DELF is, int8).
    pairs
        How many; each has a query of its own.
    """
    rng = np.random.default_rng(1)
    shown, names = rng.integers(0, len(photos), GALLERY), np.array(landmarks)
    asked, candidates = np.empty(pairs, np.int64), np.empty((pairs, 1), np.int32)
    for query in range(pairs):
        row = int(rng.integers(GALLERY))
        same = names == names[shown[row]]
        if rng.random() < SAME and same.sum() > 1:
            same[shown[row]] = False  # another photo of the landmark
        else:
            same = ~same
        asked[query], candidates[query] = rng.choice(np.flatnonzero(same)), row
    settings = VerifySettings()
    part = settings.only("frame_side_px", "evidence", kind="PairSettings").also(recipe=settings.recipe)
    with tempfile.TemporaryDirectory() as folder:
        data: dict[str, Dataset] = {}

        def dataset(name: str, tables: Iterator[dict[str, Any]], shards: int) -> None:
            data[name] = Dataset(str(Path(folder, name)), name, f"contest{dimension}", shards)
            for shard, columns in enumerate(tables):
                data[name].write(shard, table(columns))

        cuts = range(0, pairs, QUERIES_PER_SHARD)
        blocks = [asked[cut : cut + QUERIES_PER_SHARD] for cut in cuts]
        listed = {"query": np.arange(pairs, dtype=np.int32), "photos": candidates}
        dataset("candidates", iter([listed]), 1)
        dataset("images_gallery", iter([_images(photos, shown, 0)]), 1)
        dataset("local_gallery", iter([_features(photos, shown, 0, dimension, rng)]), 1)
        dataset(
            "images_queries", (_images(photos, b, c) for b, c in zip(blocks, cuts, strict=True)), len(blocks)
        )
        dataset(
            "local_queries",
            (_features(photos, b, c, dimension, rng) for b, c in zip(blocks, cuts, strict=True)),
            len(blocks),
        )
        yield ContestShard(data, pairs, part)


def _images(photos: Sequence[dict[str, NDArray[Any]]], shown: NDArray[Any], first: int) -> dict[str, Any]:
    sides = np.array([photos[one]["size_px"] for one in shown], np.int32)
    rows = np.arange(first, first + len(shown), dtype=np.int32)
    return {"photo": rows, "width": sides[:, 0], "height": sides[:, 1]}


def _features(
    photos: Sequence[dict[str, NDArray[Any]]],
    shown: NDArray[Any],
    first: int,
    dimension: str,
    rng: np.random.Generator,
) -> dict[str, Any]:
    counts = [len(photos[one]["xy"]) for one in shown]
    joined = {
        key: np.concatenate([photos[one][key] for one in shown])
        for key in ("xy", "scale", "orientation", dimension)
    }
    n = len(joined["xy"])
    moved = joined["xy"] + MOVED_PX * rng.standard_normal((n, 2), np.float32)
    stored = 512 * joined[dimension] if dimension == "128" else to_int8(joined[dimension]).astype(np.float32)
    stored += MOVED_LEVELS * rng.standard_normal(stored.shape, np.float32)
    lo, hi, kind = (0, 255, np.uint8) if dimension == "128" else (-127, 127, np.int8)
    return {
        "photo": np.repeat(np.arange(first, first + len(shown), dtype=np.int32), counts),
        "xy": moved,
        "scale": joined["scale"],
        "orientation": joined["orientation"],
        "score": np.ones(n, np.float32),
        "descriptor": np.rint(np.clip(stored, lo, hi)).astype(kind),
    }
