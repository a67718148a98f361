"""All that a machine with a GPU can tell, in one go of less than ten minutes.

    python benchmarks/gpu.py                        # on a GPU
    python benchmarks/gpu.py --device cpu --small   # the same script on CPUs, to its end, in a minute or less

Five parts, each skipped in so many words where its time has run out:

- search: the exact search on the device gives the CPU's neighbours, to the bit, for float16 and float32, for
  many neighbours, and where photos have many copies.
- networks: what each network makes of the same photos on the device and on the CPU, in float32 and in the
  device's usual precision.
- features: the local search of a query shard among all features of a gallery; the CPU makes a sample of it,
  which must agree to the bit.
- knn: the kNN graph of a million photos on the device, beside what one core of the CPU does of it.
- extraction: the step beside its bare network (`benchmarks/extract.py`): DELF, ResNet-101 in bfloat16, XFeat
  and EfficientNet-Lite0.

It prints a table per part and ends with one line of JSON. It ends with status 1 where a search differs.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from extract import photos_of, weights_of

from lmr.features.decoding import decode_photo
from lmr.features.extractors import (
    GemSettings,
    GlobalRequest,
    LocalRequest,
    global_kinds,
    local_kinds,
)
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.global_search._gpu_torch import TorchEngine
from lmr.retrieval.global_search.exact import spans, top_k
from lmr.retrieval.global_search.nearest import Engine, gpu_engine, nearest
from lmr.retrieval.local_search.exhaustive import search_exhaustively
from lmr.runtime.threads import limit_threads
from lmr.steps.local_search.votes import COMPARED_AT_ONCE

out = Console(width=130)
DIMENSION = 128
NEIGHBOURS = 50
PER_SHARD = 1000
LOCAL = ("delf", "xfeat", "aliked-t16", "aliked-n16")
GLOBAL = ("resnet101", "mobilenet_v2", "lite0")
PARTS = ("search", "features", "networks", "knn", "extraction")
EXTRACTED = (("delf", "float16"), ("resnet101", "bfloat16"), ("xfeat", "auto"), ("lite0", "float16"))


def vectors(count: int, seed: int) -> NDArray[np.float16]:
    """Return unit vectors (count, 128) around a tenth as many centres, as photos of landmarks are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, count // 10), DIMENSION), np.float32)
    made = np.empty((count, DIMENSION), np.float16)
    for lo, hi in spans(count, 1 << 17):
        rows = centres[rng.integers(0, len(centres), hi - lo)]
        rows += 0.7 * rng.standard_normal(rows.shape, np.float32)
        made[lo:hi] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def search_parity(engine: Engine, small: bool) -> list[dict[str, Any]]:
    """Search on the device and on the CPU; tell whether they agree to the bit."""
    gallery = vectors(5_000 if small else 200_000, 1)
    queries = vectors(50 if small else 1000, 2).astype(np.float32)
    copies = gallery.copy()
    copies[: len(copies) // 10] = copies[0]
    found = []
    for name, rows, asked, k in (
        ("float16", gallery, queries, NEIGHBOURS),
        ("float32", gallery.astype(np.float32), queries, NEIGHBOURS),
        ("1,000 neighbours", gallery, queries[:100], 1000),
        ("many copies of a photo", copies, copies[:20].astype(np.float32), NEIGHBOURS),
    ):
        ours, theirs = nearest(asked, rows, k, engine=engine), top_k(asked, [(0, rows)], k)
        same = all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        found.append({"search": name, "photos": len(rows), "queries": len(asked), "same": same})
    return found


def local_features(engine: Engine, small: bool) -> dict[str, Any]:
    """Search with a block of a query shard's features among a gallery's, as the step does."""
    features, asked, k = (20_000, 500, 20) if small else (4_000_000, 65_536, 20)
    gallery, photos = vectors(features, 4), np.repeat(np.arange(-(-features // 1000)), 1000)[:features]
    queries = to_float(vectors(asked, 5))

    def parts() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for lo, hi in spans(features, COMPARED_AT_ONCE):
            yield to_float(gallery[lo:hi]), photos[lo:hi]

    on_engine = partial(nearest, engine=engine)
    search_exhaustively(parts(), queries[:64], k=k, nearest=on_engine)
    started = time.perf_counter()
    found = search_exhaustively(parts(), queries, k=k, nearest=on_engine)
    took = time.perf_counter() - started
    few, processor = queries[:: max(1, asked // 64)], time.process_time()
    there = search_exhaustively(parts(), few, k=k, nearest=nearest)
    core = (time.process_time() - processor) / len(few)
    same = all(np.array_equal(a[:: max(1, asked // 64)], b) for a, b in zip(found, there, strict=True))
    return {
        "gallery_features": features,
        "query_features": asked,
        "seconds": round(took, 2),
        "us_per_feature": round(1e6 * took / asked, 1),
        "cpu_us_per_feature": round(1e6 * core, 1),
        "same": same,
    }


def network_parity(device: str, small: bool) -> Iterator[dict[str, Any]]:
    """Compare every network's output on the device, in float32 and as usual, with the CPU's in float32."""
    photos = [decode_photo(data) for data in photos_of(2 if small else 4, 320 if small else 640)]
    with tempfile.TemporaryDirectory() as folder:
        for name in (*LOCAL, *GLOBAL):
            weights = weights_of(name, Path(folder))
            if weights is None:
                yield {"network": name, "skipped": "its weights are not at hand"}
                continue
            for precision in ("float32", "auto"):
                if name in ("xfeat", "aliked-t16", "aliked-n16") and precision == "float32":
                    continue  # they know float32 only, and call it auto
                opened = (_open(name, weights, *where) for where in (("cpu", "float32"), (device, precision)))
                theirs, ours = (list(extractor(photos)) for extractor in opened)
                compare = _local_difference if name in LOCAL else _global_difference
                yield {"network": name, "precision": precision, **compare(ours, theirs)}


def _open(name: str, weights: Path, device: str, precision: str) -> Any:
    if name in LOCAL:
        learned = name != "delf"
        request = LocalRequest(
            weights=weights, device=device, precision="auto" if learned else precision, max_features=300
        )
        extractor: Any = local_kinds()[name].open(request)
        if name == "delf":
            extractor.threshold = 0.0  # the released one is of the released weights' attention
        return extractor
    architecture = {"lite0": "efficientnet_lite0"}.get(name, name)
    gem = GemSettings(
        architecture=architecture,
        sizes_px=(320,),
        precision=precision,
    )
    return global_kinds()["gem"].open(GlobalRequest(gem=gem, weights=weights, device=device))


def _global_difference(ours: list[Any], theirs: list[Any]) -> dict[str, float]:
    pairs = [(a.descriptor, b.descriptor) for a, b in zip(ours, theirs, strict=True)]
    return {
        "largest": float(max(np.abs(a - b).max() for a, b in pairs)),
        "cosine": float(min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs)),
    }


def _local_difference(ours: list[Any], theirs: list[Any]) -> dict[str, float]:
    """Compare descriptors of features of one place and scale; and say how many have one."""
    found, largest, least = 0, 0.0, 1.0
    for a, b in zip(ours, theirs, strict=True):
        # DELF finds features of several scales at one place.
        places = [np.column_stack([one.xy, 16 * np.log2(one.scale)]) for one in (a, b)]
        apart = np.abs(places[0][:, None] - places[1][None]).max(axis=2)
        near = apart.argmin(axis=1)
        close = apart[np.arange(len(near)), near] < 0.5
        found += int(close.sum())
        rows, others = (x.astype(np.float32) for x in (a.descriptor[close], b.descriptor[near[close]]))
        if len(rows):
            largest = max(largest, float(np.abs(rows - others).max()))
            lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
            least = min(least, float(np.quantile((rows * others).sum(1) / lengths, 0.01)))
    total = sum(len(b.xy) for b in theirs)
    return {"largest": largest, "cosine": least, "same_places": found / max(1, total)}


def knn(engine: Engine, small: bool, seconds: float) -> dict[str, Any]:
    """Make the kNN graph of a million photos as a run's tasks do, from a mapped file; for so long at most."""
    count = 5_000 if small else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        vectors(count, 3).tofile(Path(folder) / "values")
        gallery = np.memmap(Path(folder) / "values", np.float16, mode="r", shape=(count, DIMENSION))
        few = gallery[: 64 if small else 256].astype(np.float32)
        options = {"engine": engine, "exclude_self_start": 0}
        started = time.perf_counter()
        nearest(few, gallery, NEIGHBOURS, **options)
        first = time.perf_counter() - started
        done, started = 0, time.perf_counter()
        for lo, hi in spans(count, PER_SHARD):
            part = gallery[lo:hi].astype(np.float32)
            nearest(part, gallery, NEIGHBOURS, engine=engine, exclude_self_start=lo)
            done = hi
            if time.perf_counter() - started > seconds:
                break
        took = time.perf_counter() - started
        processor = time.process_time()
        top_k(few, [(0, gallery)], NEIGHBOURS, exclude_self_start=0)
        once = time.process_time() - processor
        processor = time.process_time()
        for _ in range(2):
            top_k(few, [(0, gallery)], NEIGHBOURS, exclude_self_start=0)
        core = min(once, (time.process_time() - processor) / 2)
    return {
        "photos": count,
        "neighbours": NEIGHBOURS,
        "first_search_s": round(first, 3),
        "done": done,
        "seconds": round(took, 3),
        "queries_per_s": round(done / took, 1),
        "whole_graph_s": round(count * took / done, 1),
        "cpu_queries_per_core_s": round(len(few) / core, 1),
        "times_a_core": round(done / took / (len(few) / core), 1),
    }


def extraction(device: str, small: bool, until: float) -> Iterator[dict[str, Any]]:
    """Run `extract.py` for each network; its line of JSON."""
    size = ("--photos", "3", "--side", "256", "--rounds", "1") if small else ("--photos", "600")
    for network, precision in EXTRACTED:
        left = until - time.monotonic()
        if left < 20:
            yield {"network": network, "skipped": "no time was left"}
            continue
        command = [sys.executable, str(Path(__file__).with_name("extract.py")), "--network", network]
        command += ["--device", device, "--precision", "auto" if device == "cpu" else precision, *size]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
        except subprocess.TimeoutExpired:
            yield {"network": network, "skipped": "no time was left"}
            continue
        last = (done.stdout.strip().splitlines() or [""])[-1]
        if done.returncode or not last.startswith("{"):
            yield {"network": network, "skipped": (done.stderr.strip().splitlines() or ["failed"])[-1][:200]}
            continue
        line = json.loads(last)
        yield {"network": network, "skipped": "weights missing"} if "skipped" in line else line


def show(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print some columns of rows as a table."""
    table = Table(*columns, title=title)
    for row in rows:
        cells = [
            row.get(name, row.get("skipped", "") if place == 1 else "") for place, name in enumerate(columns)
        ]
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    out.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="few photos: to see that it runs")
    parser.add_argument("--minutes", type=float, default=9.0, help="what has not begun by then is left out")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS, help="which of them")
    options = parser.parse_args()
    began = time.monotonic()
    until = began + 60 * options.minutes
    if options.device == "cpu":
        limit_threads()
    engine, name = (TorchEngine("cpu"), "cpu") if options.device == "cpu" else gpu_engine()
    if engine is None:
        print(f"skipped: this machine has no GPU: {name}")
        print(json.dumps({"skipped": name}))
        return
    result: dict[str, Any] = {
        "engine": engine.name,
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "small": options.small,
    }
    wrong = False
    for part in options.parts:
        if time.monotonic() > until:
            result[part] = "no time was left"
            continue
        started = time.monotonic()
        if part == "search":
            rows = search_parity(engine, options.small)
            wrong = wrong or not all(row["same"] for row in rows)
            show("exact search, as the CPU's to the bit", rows, ("search", "photos", "queries", "same"))
        elif part == "features":
            rows = [local_features(engine, options.small)]
            wrong = wrong or not rows[0]["same"]
            show("local search without an index", rows, tuple(rows[0]))
        elif part == "networks":
            rows = list(network_parity(options.device, options.small))
            columns = ("network", "precision", "largest", "cosine", "same_places")
            show("networks against the CPU in float32", rows, columns)
        elif part == "knn":
            rows = [knn(engine, options.small, seconds=5.0 if options.small else 60.0)]
            columns = ("photos", "queries_per_s", "whole_graph_s", "cpu_queries_per_core_s", "times_a_core")
            show("kNN graph", rows, columns)
        else:
            rows = list(extraction(options.device, options.small, until))
            columns = ("network", "precision", "photos_per_second", "bare_photos_per_second", "ratio")
            show("extraction and its bare network (goal: a ratio of 0.9)", rows, columns)
        result[part] = rows
        result[f"{part}_s"] = round(time.monotonic() - started, 1)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
