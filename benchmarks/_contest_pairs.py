"""One task of verification as the contest has it: 1,000 gallery photos, 10,000 pairs, nearly as many queries.

Real features, repeated with noise: each photo of the shard and of the queries is one of the development
photos with its places moved by about a pixel and its descriptors by about three levels of 8 bits. So every
pair is matched and verified as a real one is, and no two are the same.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.features.local.quantise import to_int8
from lmr.retrieval.verification import _whole_numbers as whole_numbers
from lmr.retrieval.verification import features, pairwise
from lmr.retrieval.verification import verify as verification
from lmr.runtime.settings import Part
from lmr.steps.verification import verify as steps
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

    def measure(self) -> dict[str, Any]:
        """Verify all pairs three times: to warm up, to measure, and with a clock at each part."""
        self.verify()
        wall, cpu = time.perf_counter(), time.process_time()
        rows = self.verify()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        clocks: dict[str, float] = dict.fromkeys((name for name, *_ in PARTS), 0.0)
        with ExitStack() as stack:
            for name, module, function in PARTS:
                real = getattr(module, function)
                stack.enter_context(patch.object(module, function, _clocked(clocks, name, real)))
            whole = time.process_time()
            self.verify()
            whole = time.process_time() - whole
        clocks["the rest"] = whole - sum(clocks.values())
        return {
            "pairs_per_second_per_core": round(self.pairs / cpu, 1),
            "seconds": round(cpu, 2),
            "wall_seconds": round(wall, 2),
            "inliers": int(rows["inliers"].to_numpy().sum()),
            "digest": digest(rows),
            "ms": {name: round(1e3 * taken / self.pairs, 4) for name, taken in clocks.items()},
        }


def digest(rows: pa.Table) -> str:
    """Return a digest of all pairs, transforms and matches: a change that only saves time keeps it."""
    whole, sink = rows.replace_schema_metadata(None).combine_chunks(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as stream:
        stream.write_table(whole)
    return sha256(sink.getvalue()).hexdigest()[:12]


PARTS = [
    ("gathering", steps, "_gathered"),
    ("reading the shard", Dataset, "read"),
    ("lengths", features, "byte_lengths"),
    ("turning the query", whole_numbers, "columns"),
    ("product", whole_numbers, "multiply"),
    ("choosing", pairwise, "nearest_in_table"),
    ("product and choosing, float32", pairwise, "nearest_features"),
    ("RANSAC", verification, "_agree"),
    ("evidence", verification, "counts_as_evidence"),
]


def _clocked(clocks: dict[str, float], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(real)
    def run(*args: Any, **more: Any) -> Any:
        start = time.process_time()
        try:
            return real(*args, **more)
        finally:
            clocks[name] += time.process_time() - start

    return run


@contextmanager
def contest_shard(
    photos: Sequence[dict[str, NDArray[Any]]],
    landmarks: Sequence[str],
    dimension: str,
    kind: str,
    pairs: int,
) -> Iterator[ContestShard]:
    """Write the datasets of one task into a temporary folder.

    Parameters
    ----------
    photos
        Features of real photos: `xy`, `scale`, `orientation`, `size_px` and unit rows under `dimension`.
    landmarks
        What each shows.
    dimension
        "128" or "40".
    kind
        How they are stored: "uint8" as RootSIFT's, "int8" or "float16" as DELF's.
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
    # Nothing that is unpacked on this machine is left from another size, whose fingerprint is the same.
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"LMR_CACHE": f"{folder}/cache"}):
        data: dict[str, Dataset] = {}

        def dataset(name: str, tables: Iterator[dict[str, Any]], shards: int) -> None:
            data[name] = Dataset(str(Path(folder, name)), name, f"contest{dimension}{kind}", shards)
            for shard, columns in enumerate(tables):
                data[name].write(shard, table(columns))

        cuts = range(0, pairs, QUERIES_PER_SHARD)
        blocks = [asked[cut : cut + QUERIES_PER_SHARD] for cut in cuts]
        listed = {"query": np.arange(pairs, dtype=np.int32), "photos": candidates}
        dataset("candidates", iter([listed]), 1)
        dataset("images_gallery", iter([_images(photos, shown, 0)]), 1)
        dataset("local_gallery", iter([_features(photos, shown, 0, (dimension, kind), rng)]), 1)
        dataset(
            "images_queries", (_images(photos, b, c) for b, c in zip(blocks, cuts, strict=True)), len(blocks)
        )
        dataset(
            "local_queries",
            (_features(photos, b, c, (dimension, kind), rng) for b, c in zip(blocks, cuts, strict=True)),
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
    form: tuple[str, str],
    rng: np.random.Generator,
) -> dict[str, Any]:
    dimension, kind = form
    counts = [len(photos[one]["xy"]) for one in shown]
    joined = {
        key: np.concatenate([photos[one][key] for one in shown])
        for key in ("xy", "scale", "orientation", dimension)
    }
    n = len(joined["xy"])
    moved = joined["xy"] + MOVED_PX * rng.standard_normal((n, 2), np.float32)
    levels = 512 * joined[dimension] if kind == "uint8" else to_int8(joined[dimension]).astype(np.float32)
    levels += MOVED_LEVELS * rng.standard_normal(levels.shape, np.float32)
    lo, hi = (0, 255) if kind == "uint8" else (-127, 127)
    stored = (np.rint(levels.clip(lo, hi)) if kind != "float16" else levels / 127).astype(kind)
    return {
        "photo": np.repeat(np.arange(first, first + len(shown), dtype=np.int32), counts),
        "xy": moved,
        "scale": joined["scale"],
        "orientation": joined["orientation"],
        "score": np.ones(n, np.float32),
        "descriptor": stored,
    }
