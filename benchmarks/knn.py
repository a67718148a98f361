"""The kNN graph of a large gallery, a task of it: lists of descriptors beside codes, seconds at equal recall.

    python benchmarks/knn.py --gallery 1000000 --asked 20000

Descriptors are those of `benchmarks/scale.py`, which are made to be hard. Both indexes are built by lmr's own
functions, look into as many lists as a thousand photos need to reach the recall, and are asked for the
neighbours of the first photos, as a task of the step `neighbours` asks. They take turns. One thread; seconds
are the processor's.
"""

import argparse
import json
import statistics
import time

import numpy as np
from numpy.typing import NDArray
from scale import World, WorldSettings

from lmr.retrieval.global_search import approximate
from lmr.retrieval.global_search.exact import spans, top_k

PER_SHARD = 20_000
TRUTH = 1000  # photos of which the true neighbours are found


def describe(photos: int) -> NDArray[np.float16]:
    """Make the descriptors of a gallery, shard by shard as the benchmark of all steps does."""
    world = World(WorldSettings(gallery=photos, queries=max(100, photos // 10), per_shard=PER_SHARD))
    found = np.empty((photos, world.settings.dimension), np.float16)
    for shard, (lo, hi) in enumerate(spans(photos, PER_SHARD)):
        found[lo:hi] = world.describe(world.gallery[lo:hi], np.random.default_rng([0, shard, False]))
    return found


def recall_of(ids: NDArray[np.int32], true: NDArray[np.int32], rows: NDArray[np.int64], k: int) -> float:
    """Return the share of the true k nearest that are found; both may list the photos themselves."""
    pairs = zip(rows, ids, true, strict=True)
    hits = [len(set(a[a != row][:k].tolist()) & set(b[b != row][:k].tolist())) for row, a, b in pairs]
    return sum(hits) / (k * len(rows))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gallery", type=int, default=200_000)
    parser.add_argument("--asked", type=int, default=20_000)
    parser.add_argument("--neighbours", type=int, default=50)
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    k, gallery = options.neighbours, describe(options.gallery)
    dimension = gallery.shape[1]
    rows = np.sort(np.random.default_rng(1).choice(options.asked, min(TRUTH, options.asked), replace=False))
    blocks = ((lo, gallery[lo:hi]) for lo, hi in spans(len(gallery), approximate.ADD_AT_ONCE))
    _, true = top_k(gallery[rows].astype(np.float32), blocks, k + 1)

    names = {
        "codes": approximate.choose_index(len(gallery), dimension, len(gallery) * dimension // 2),
        "lists": approximate.choose_index(len(gallery), dimension, 2 * len(gallery) * dimension),
    }
    result = {"gallery": len(gallery), "asked": options.asked, "neighbours": k}
    indexes = {kind: approximate.build_ann_index(gallery, name) for kind, name in names.items()}
    sample = gallery[rows].astype(np.float32)
    for kind, index in indexes.items():
        probes, share = 0, 0.0
        while share < options.recall:
            probes += max(1, probes // 8)
            approximate.look_into(index, probes)
            _, ids = approximate.search_ann_index(index, sample, k + 1, gallery)
            share = recall_of(ids, true, rows, k)
        result |= {f"{kind}_index": names[kind], f"{kind}_probes": probes, f"{kind}_recall": round(share, 4)}
    asked = gallery[: options.asked].astype(np.float32)
    taken: dict[str, list[float]] = {kind: [] for kind in indexes}
    for _ in range(options.turns):
        for kind, index in indexes.items():
            start = time.process_time()
            approximate.search_ann_index(index, asked, k, gallery, exclude_self_start=0)
            taken[kind].append((time.process_time() - start) / len(asked) * 1e3)
    for kind, turns in taken.items():
        result[f"{kind}_ms"] = [round(ms, 4) for ms in turns]
        print(
            f"{names[kind]}, {result[f'{kind}_probes']} lists: recall {result[f'{kind}_recall']}, "
            f"ms of the processor for a query: {', '.join(f'{ms:.4f}' for ms in turns)}"
        )
    result["ratio"] = round(
        statistics.median(a / b for a, b in zip(taken["codes"], taken["lists"], strict=True)), 2
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
