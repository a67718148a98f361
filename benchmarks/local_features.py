"""Local features compared on real photos: RootSIFT, XFeat, ALIKED, and DELF's architecture.

    python benchmarks/local_features.py [--pairs 20] [--extractors rootsift xfeat aliked-t16 aliked-n16 delf]

Pairs of development photos: N of one landmark, at most four of each, and N of two landmarks, of the same
photos. Every extractor sees the same pixels, 1000 features are kept of a photo, and three recipes match them;
inliers are those of one affine transform. Networks' descriptors are judged in both forms that they are stored
in, float16 and int8. The extractors take turns photo by photo, so that other work on the
machine disturbs all alike; processor time is disturbed less than the clock.

The weights of DELF are not at hand. Its network runs with random weights by a stated rule: its time and its
bytes are true, its matches mean nothing.
"""

import argparse
import csv
import json
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _shared import shared
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lmr.features.decoding import decode_photo
from lmr.features.interfaces import LocalExtractor, LocalFeatures, Photo
from lmr.features.local.quantise import to_int8
from lmr.features.local.rootsift import RootSift
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.verification.verify import Features, Recipe, verify_pairs

FEATURES = 1000
PER_LANDMARK = 4
PRECISION = 0.99
EXTRACTORS = ("rootsift", "xfeat", "aliked-t16", "aliked-n16", "delf")
MEANINGLESS = "delf"
RECIPES = {
    "distance": Recipe(),
    "mutual": Recipe(max_distance=None, mutual=True, max_residual_px=8),
    "mutual and ratio": Recipe(max_distance=None, mutual=True, max_ratio=0.9, max_residual_px=8),
}
SAID = {
    "distance": "DELF's recipe: distance < 0.8, 20 px",
    "mutual": "each other's nearest, 8 px",
    "mutual and ratio": "each other's nearest, ratio < 0.9, 8 px (the workflow's, chosen for RootSIFT)",
}


def read_landmarks(folder: Path) -> dict[str, list[Path]]:
    """Return the photos of each landmark that has at least two."""
    photos = defaultdict(list)
    with (folder / "photos.csv").open() as file:
        for row in csv.DictReader(file):
            if row["landmark"]:
                photos[row["landmark"]].append(folder / row["set"] / f"{row['id']}.jpg")
    return {name: sorted(paths) for name, paths in sorted(photos.items()) if len(paths) > 1}


def choose_pairs(
    landmarks: dict[str, list[Path]], count: int, rng: np.random.Generator
) -> tuple[list[tuple[Path, Path]], list[tuple[Path, Path]]]:
    """Return `count` pairs of one landmark (fewer if there are fewer); as many of two, of the same photos.

    Every landmark gives one pair before any gives a second, and none more than four.
    """
    rounds: list[list[tuple[str, tuple[Path, Path]]]] = [[] for _ in range(PER_LANDMARK)]
    for name, paths in landmarks.items():
        both = [(a, b) for i, a in enumerate(paths) for b in paths[i + 1 :]]
        some = rng.permutation(len(both))[:PER_LANDMARK]
        for number, chosen in enumerate(some):
            rounds[number].append((name, both[chosen]))
    drawn = [one for layer in rounds for one in (layer[i] for i in rng.permutation(len(layer)))][:count]
    if len({name for name, _ in drawn}) < 2:
        raise SystemExit("pairs of two landmarks need at least two landmarks: give more --pairs")
    # The first photo of each, with the second photo of the next pair that is of another landmark.
    different = []
    for i, (name, (first, _)) in enumerate(drawn):
        following = drawn[i + 1 :] + drawn[:i]
        different.append(next((first, second) for other, (_, second) in following if other != name))
    return [pair for _, pair in drawn], different


def separation(same: NDArray[Any], different: NDArray[Any]) -> float:
    """Area under the ROC curve of the counts, ties by half."""
    sorted_ = np.sort(different)
    below, up_to = (np.searchsorted(sorted_, same, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(different))


def best_threshold(same: NDArray[Any], different: NDArray[Any]) -> tuple[int, float] | None:
    """Return the least t for which "more than t" has the precision, and its recall; None if there is none."""
    for t in range(int(same.max(initial=0))):
        right, wrong = int((same > t).sum()), int((different > t).sum())
        if right >= PRECISION * (right + wrong):
            return t, right / len(same)
    return None


def load(name: str, side: int, scratch: Path) -> LocalExtractor:
    """Return an extractor. Networks are imported when asked for: torch is an extra."""
    if name == "rootsift":
        return RootSift(max_features=FEATURES, max_side_px=side)
    if name == "delf":
        return load_delf_by_rule(side, scratch)
    from lmr.features.local.learned import load_aliked, load_xfeat

    if name == "xfeat":
        weights = shared("weights/xfeat/xfeat_folded.npz")
        return load_xfeat(weights, max_features=FEATURES, max_side_px=side)
    weights = shared(f"weights/aliked/{name}.pth")
    return load_aliked(weights, variant=name, max_features=FEATURES, max_side_px=side)


def load_delf_by_rule(side: int, scratch: Path) -> LocalExtractor:
    """Return DELF with the weights of its golden outputs."""
    from lmr.features.local.delf import load_delf

    # The released threshold is one of the released weights' attention.
    return load_delf(write_delf_by_rule(scratch), max_features=FEATURES, max_side_px=side, threshold=0.0)


def write_delf_by_rule(folder: Path) -> Path:
    """Write a DELF model with the weights of its golden outputs, which a rule makes; return its folder."""
    from lmr.features.networks.by_rule import write_delf_variables

    golden, model = shared("golden/delf_v1"), folder / "delf"
    model.mkdir()
    for file in ("variables.index", "mean.datum", "pca_proj_mat.datum", "pca_variances.datum"):
        shutil.copy(golden / file, model)
    cases = json.loads((golden / "cases.json").read_text())
    write_delf_variables(cases, model / "variables.data-00000-of-00001")
    return model


def extract(
    extractors: dict[str, LocalExtractor], photos: Sequence[Photo]
) -> tuple[dict[str, list[LocalFeatures]], dict[str, NDArray[np.float64]]]:
    """Return the features by extractor, and (photos, 2) milliseconds: processor, clock."""
    for extractor in extractors.values():
        extractor(photos[:1])  # what a first call alone pays for
    found: dict[str, list[LocalFeatures]] = {name: [] for name in extractors}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in extractors}
    for photo in photos:
        for name, extractor in extractors.items():
            start = time.process_time(), time.perf_counter()
            found[name] += extractor([photo])
            spent = time.process_time() - start[0], time.perf_counter() - start[1]
            taken[name].append((1e3 * spent[0], 1e3 * spent[1]))
    return found, {name: np.array(rows) for name, rows in taken.items()}


def together(photos: Sequence[LocalFeatures]) -> Features:
    return Features(
        xy=np.concatenate([photo.xy for photo in photos]),
        descriptors=to_float(np.concatenate([photo.descriptor for photo in photos])),
        offsets=np.cumsum([0, *(len(photo.xy) for photo in photos)]),
    )


def eight_bits(photos: Sequence[LocalFeatures]) -> NDArray[np.float32]:
    """Return the descriptors as they come back from their 8-bit form."""
    return to_float(to_int8(np.concatenate([photo.descriptor for photo in photos])))


def judged(features: Features, pairs: NDArray[np.int64]) -> dict[str, Any]:
    return {recipe: judge(features, pairs, settings) for recipe, settings in RECIPES.items()}


def judge(features: Features, pairs: NDArray[np.int64], recipe: Recipe) -> dict[str, Any]:
    """Verify the pairs, of one landmark in the first half; return what the table shows."""
    half = len(pairs) // 2
    verified = verify_pairs(features, features, pairs, recipe)
    same, different = verified.inliers[:half], verified.inliers[half:]
    best = best_threshold(same, different)
    return {
        "tentative_same": float(np.median(verified.tentative[:half])),
        "tentative_different": float(np.median(verified.tentative[half:])),
        "inliers_same": float(np.median(same)),
        "inliers_different": float(np.median(different)),
        "most_inliers_different": int(different.max()),
        "auc": round(separation(same, different), 4),
        "threshold": None if best is None else best[0],
        "recall": None if best is None else round(best[1], 3),
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables, in Markdown."""
    marked = {name: f"{name} *" if name.startswith(MEANINGLESS) else name for name in result["extractors"]}
    print("\n| | features | ms/photo, processor | ms/photo, clock | bytes/descriptor |")
    print("|---|---|---|---|---|")
    for name, one in result["extractors"].items():
        times = f"{one['ms_processor']:.0f} | {one['ms_clock']:.0f}"
        print(f"| {marked[name]} | {one['features']:.0f} | {times} | {one['bytes']} |")
    for recipe, said in SAID.items():
        print(f"\n{said}; medians, same / different landmark:\n")
        print("| | matches | inliers | most, different | AUC | t | recall |")
        print("|---|---|---|---|---|---|---|")
        for name, one in result["extractors"].items():
            found = one[recipe]
            counts = " | ".join(
                f"{found[f'{what}_same']:.0f} / {found[f'{what}_different']:.0f}"
                for what in ("tentative", "inliers")
            )
            best = "– | –" if found["threshold"] is None else f"{found['threshold']} | {found['recall']:.2f}"
            most = found["most_inliers_different"]
            print(f"| {marked[name]} | {counts} | {most} | {found['auc']:.3f} | {best} |")
    print(f'\nt: the least for which "more than t inliers" has precision >= {PRECISION} on these pairs.')
    if MEANINGLESS in result["extractors"]:
        print("* random weights by rule: time and bytes are true, the matches of DELF mean nothing.")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=20, help="pairs of one landmark, and as many of two")
    parser.add_argument("--extractors", nargs="+", choices=EXTRACTORS, default=EXTRACTORS[:3])
    parser.add_argument("--side", type=int, default=800, help="long side, pixels, to which photos are shrunk")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    folder = shared("data/landmarks")
    same, different = choose_pairs(read_landmarks(folder), args.pairs, np.random.default_rng(0))
    paths = sorted({path for pair in same for path in pair})
    pairs = np.array([[paths.index(path) for path in pair] for pair in [*same, *different]])
    cv2.setNumThreads(args.threads)
    if set(args.extractors) != {"rootsift"}:
        import torch

        torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads), tempfile.TemporaryDirectory() as scratch:
        extractors = {name: load(name, args.side, Path(scratch)) for name in args.extractors}
        photos = [decode_photo(path.read_bytes(), max_side_px=args.side) for path in paths]
        load_before = os.getloadavg()[0]
        found, taken = extract(extractors, photos)
        load_after = os.getloadavg()[0]
        result: dict[str, Any] = {
            "pairs": {"same": len(same), "different": len(different)},
            "photos": len(paths),
            "side_px": args.side,
            "threads": args.threads,
            "cores": os.cpu_count(),
            "load": [round(load_before, 1), round(load_after, 1)],
            "extractors": {},
        }
        for name, features in found.items():
            processor, clock = np.median(taken[name], axis=0)
            all_features = together(features)
            figures = {
                "features": float(np.median([len(one.xy) for one in features])),
                "ms_processor": round(float(processor), 1),
                "ms_clock": round(float(clock), 1),
                "bytes": extractors[name].dimension * extractors[name].storage.itemsize,
                "meaningful": name != MEANINGLESS,
            }
            result["extractors"][name] = figures | judged(all_features, pairs)
            if extractors[name].storage == np.float16:
                stored = replace(all_features, descriptors=eight_bits(features))
                smaller = figures | {"bytes": extractors[name].dimension}
                result["extractors"][f"{name}, int8"] = smaller | judged(stored, pairs)
    print(
        f"{len(paths)} photos at {args.side} px, {len(same)} pairs of one landmark, {len(different)} of two; "
        f"{args.threads} thread(s), {os.cpu_count()} cores, load {load_before:.1f} to {load_after:.1f}"
    )
    show(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
