"""Measure how far DELF, GeM and DIR are from the outputs of the code that was published with them.

    python benchmarks/parity.py [--families delf_v1 gem_cirtorch dir_naver] [--device cuda]

Every array of the golden files is computed again, from checkpoints that their rules make anew in the
original's file form, and compared. A row of the table is one kind of output and the worst of its arrays: the
largest difference of two numbers, and the length of the difference over the length of the golden array.
Arrays that nothing was compared with are named.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _shared import shared
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import softplus

sys.path.insert(0, str(Path(__file__).parents[1]))
from lmr.features.interfaces import Photo
from lmr.features.local.delf import DelfExtractor
from lmr.features.networks._torchvision import torchvision
from lmr.features.networks.batches import upload
from lmr.features.networks.by_rule import cirtorch_checkpoint, naver_checkpoint, write_delf_variables
from lmr.features.networks.gem import load_gem
from lmr.features.prepared import resized
from lmr.features.weights.checkpoints import pca_whitening
from lmr.features.weights.delf_files import read_delf_weights
from lmr.retrieval.expansion.expand import expand_queries
from lmr.retrieval.global_search.augmentation import augment_descriptors, weights_of
from lmr.retrieval.global_search.exact import top_k

Array = NDArray[Any]
Computed = Iterator[tuple[str, str, Array]]
"""Kind of output, name of the golden array, what is computed here."""

INPUTS = ("expand/db", "expand/queries", "whitenlearn/X")
SCALES = {"ss": (1.0,), "ms": (1.0, 2**-0.5, 0.5)}  # cnnimageretrieval-pytorch's
TRANSFORMS = {  # deep-image-retrieval's, as settings of the extractor; of scale480 see `short_side`
    "single": {"scales": (1.0,)},
    "multi_gem3": {"scales": (1.0, 0.7071, 1.4142)},
    "multi_mean": {"scales": (1.0, 0.7071, 1.4142)},
    "scale480": {"scales": (1.0,)},
    "scale320_largest": {"sizes_px": (320,)},
}


def delf(
    cases: Mapping[str, Any], golden: Mapping[str, Array], photos: dict[str, Photo], device: str
) -> Computed:
    with tempfile.TemporaryDirectory() as folder:
        for file in ("variables.index", "mean.datum", "pca_proj_mat.datum", "pca_variances.datum"):
            shutil.copy(shared("golden/delf_v1") / file, folder)
        write_delf_variables(cases, Path(folder) / "variables.data-00000-of-00001")
        weights = read_delf_weights(Path(folder))
    released = partial(DelfExtractor, weights, device=device, precision="float32")
    for case in cases["cases"]:
        name, photo = case["photo"], [photos[case["photo"]]]
        extractor = released(threshold=case["threshold"])
        (found,), (local,) = extractor.detect(photo), extractor(photo)
        # By place: neighbouring scores are too close to sort by.
        order = in_order_of((found.boxes, found.scales), (golden[f"{name}/boxes"], golden[f"{name}/scales"]))
        features = torch.from_numpy(found.features).to(extractor.device)
        whitened = released(whiten=True).describe(features).cpu().numpy()
        for key, ours in (
            ("boxes", found.boxes),
            ("scales", found.scales),
            ("scores", found.scores[:, None]),
            ("features", found.features),
            ("descriptors", extractor.describe(features).cpu().numpy()),
            ("descriptors_whitened", whitened),
            ("locations", local.xy[:, ::-1]),
        ):
            yield key, f"{name}/{key}", ours[order]
        yield "descriptors, stored as float16", f"{name}/descriptors", local.descriptor[order]
        (few,) = released(threshold=case["threshold"], max_features=50).detect(photo)
        order = in_order_of((few.boxes,), (golden[f"{name}/max50/boxes"],))
        yield "max50/boxes", f"{name}/max50/boxes", few.boxes[order]
        yield "max50/scores", f"{name}/max50/scores", few.scores[order, None]
        (every,) = released(threshold=-1, max_features=10**6).detect(photo)
        ascending = golden[f"{name}/all_scores_sorted"][0] < golden[f"{name}/all_scores_sorted"][-1]
        scores = every.scores[::-1] if ascending else every.scores
        yield "all_scores_sorted", f"{name}/all_scores_sorted", scores
    for scale in (1.0, 0.7071):
        extractor, key = released(image_scales=[scale]), f"scale{scale}"
        with torch.inference_mode():
            pixels = upload([photos["photo_b"]], extractor.device).sub_(128).div_(128)
            ((_, images),) = extractor._pyramid(pixels)
            maps = extractor.network.features(images)
            logits = extractor.network.logits(maps)[0, ..., None]
        layers = {
            "logit": logits,
            "attention": softplus(logits),
            "block3_every_4th_channel": maps[0, ::4].permute(1, 2, 0),
            "resized_every_4th_pixel": images[0, :, ::4, ::4].permute(1, 2, 0),
        }
        for layer, ours in layers.items():
            if f"photo_b/{key}/{layer}" in golden:
                yield f"{key}/{layer}", f"photo_b/{key}/{layer}", ours.cpu().numpy()


def in_order_of(ours: tuple[Array, ...], theirs: tuple[Array, ...]) -> NDArray[np.int64]:
    """Return which of our places is each of theirs, in the order of theirs."""
    order, other = (np.lexsort(np.column_stack(columns).T) for columns in (ours, theirs))
    if len(order) != len(other):
        raise SystemExit(f"{len(order)} features, and {len(other)} in the golden file")
    return order[np.argsort(other)]


def cirtorch(
    cases: Mapping[str, Any], golden: Mapping[str, Array], photos: dict[str, Photo], device: str
) -> Computed:
    for net in cases["nets"]:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "net.pth"
            load = partial(load_gem, weights, device=device, precision="float32")
            torch.save(cirtorch_checkpoint(net), weights)
            for output in net["outputs"]:
                key, mode, size = output["key"], output["mode"], output["image_size"]
                photo, cut = photos[output["photo"]], "/bbx" if output["bbx"] else ""
                if output["bbx"]:
                    left, top, right, bottom = output["bbx"]
                    size = int(size * max(right - left, bottom - top) / max(photo.shape[:2]))
                    photo = photo[top:bottom, left:right]
                extractor = load(max_side_px=size, scales=SCALES[mode])
                (found,) = extractor([photo])
                kind = f"{net['tag']}/{mode}"
                yield kind, key, found.descriptor
                if net["has_Lw"]:
                    whitening, rows = (
                        extractor.whitenings[f"retrieval-SfM-120k/{mode}"],
                        found.descriptor[None],
                    )
                    yield f"{kind}/Lw", f"{key}/Lw", whitening(rows)[0]
                    yield f"{kind}/Lw64", f"{key}/Lw64", whitening(rows, dimension=64)[0]
                pixels = f"pixels/{output['photo']}/{output['image_size']}{cut}"
                if pixels in golden:
                    yield "pixels after shrinking", pixels, extractor.prepare(photo).images[0]


def naver(
    cases: Mapping[str, Any], golden: Mapping[str, Array], photos: dict[str, Photo], device: str
) -> Computed:
    pca_class = scikit_learn_pca()
    for net in cases["nets"]:
        checkpoint = naver_checkpoint(net, pca_class)
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "net.pt"
            load = partial(load_gem, weights, device=device, precision="float32")
            torch.save(checkpoint, weights)
            for output in net["outputs"]:
                key, case = output["key"], output["key"].rpartition("/")[2]
                pair = [photos[name] for name in output["photos"]]
                if case == "scale480":
                    pair = [short_side(photo, 480) for photo in pair]
                extractor = load(**TRANSFORMS[case])
                if output["pooling"] == "mean":
                    extractor.scale_power = 1.0
                rows = np.stack([one.descriptor for one in extractor(pair)])
                yield key, key, rows
                for whitened in output.get("whitened", ()):
                    whitening = pca_whitening(
                        checkpoint["pca"]["Landmarks_clean"],
                        power=whitened["whitenp"],
                        multiplier=whitened["whitenm"],
                    )
                    ours = whitening(rows, dimension=whitened["whitenv"])
                    yield f"{key}, whitened", whitened["key"], ours
                for i, scale in enumerate(TRANSFORMS[case].get("scales", ())):
                    if f"{key}/trf{i}" in golden:
                        alone = load(scales=[scale])(pair)
                        ours = np.stack([one.descriptor for one in alone])
                        yield f"{key}, each scale", f"{key}/trf{i}", ours
    yield from expansions(cases, golden)


def expansions(cases: Mapping[str, Any], golden: Mapping[str, Array]) -> Computed:
    db, queries = golden["expand/db"], golden["expand/queries"]
    for case in cases["expand"]:
        k, alpha = case["k"], case["alpha"]
        sims, ids = (lists[:, :k] for lists in top_k(db, [(0, db)], max(k, 1), exclude_self_start=0))
        yield "expand/adba", f"expand/adba_k{k}_a{alpha}", augment_descriptors(db, ids, sims, db, alpha=alpha)
        sims, ids = (lists[:, :k] for lists in top_k(queries, [(0, db)], max(k, 1)))
        yield (
            "expand/aqe",
            f"expand/aqe_k{k}_a{alpha}",
            expand_queries(queries, ids, weights_of(sims, alpha), db),
        )
    sims, ids = top_k(db, [(0, db)], 10, exclude_self_start=0)
    augmented = augment_descriptors(db, ids, sims, db, alpha=3)
    sims, ids = top_k(queries, [(0, augmented)], 10)
    expanded = expand_queries(queries, ids, weights_of(sims, 3), augmented)
    for name, ours in (("queries", expanded), ("scores", expanded @ augmented.T)):
        yield f"expand/adba, then aqe: {name}", f"expand/adba10_3_then_aqe10_3/{name}", ours


def short_side(photo: Photo, px: int) -> Photo:
    height, width = photo.shape[:2]
    factor = px / min(width, height)
    return resized(photo, int(0.5 + factor * width), int(0.5 + factor * height))


def scikit_learn_pca() -> type:
    """Return a class that pickles as scikit-learn 0.20's PCA."""
    torchvision()  # which looks at what modules there are
    module: Any = types.ModuleType("sklearn.decomposition.pca")
    module.PCA = type("PCA", (), {"__module__": module.__name__})
    for name in ("sklearn", "sklearn.decomposition"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules[module.__name__] = module
    return module.PCA


def differences(key: str, ours: Array, theirs: Array) -> tuple[float, float]:
    """Return the largest difference, and the difference's length over the golden array's."""
    if ours.shape != theirs.shape:
        raise SystemExit(f"{key}: shape {ours.shape}, and {theirs.shape} in the golden file")
    theirs = theirs.astype(np.float64)
    difference = ours.astype(np.float64) - theirs
    return float(np.abs(difference).max()), float(np.linalg.norm(difference) / np.linalg.norm(theirs))


FAMILIES = {"delf_v1": delf, "gem_cirtorch": cirtorch, "dir_naver": naver}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--device", default="cpu", help="cpu or cuda; both in whole float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # not TF32, its default
    result: dict[str, Any] = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": args.device,
    }
    for family in args.families:
        folder = shared(f"golden/{family}")
        cases = json.loads((folder / "cases.json").read_text())
        photos = {
            n: np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in ("photo_a", "photo_b")
        }
        with np.load(next(folder.glob("*.npz"))) as file:
            golden = dict(file)
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for kind, key, ours in FAMILIES[family](cases, golden, photos, args.device):
            found.setdefault(kind, {})[key] = differences(key, ours, golden[key])
        print(f"\n{family}\n\n| output | arrays | largest difference | relative |\n|---|---|---|---|")
        worst = {kind: np.max(list(arrays.values()), axis=0) for kind, arrays in found.items()}
        for kind, (largest, relative) in worst.items():
            print(f"| {kind} | {len(found[kind])} | {largest:.2g} | {relative:.2g} |")
        compared = {key for arrays in found.values() for key in arrays}
        left = sorted(golden.keys() - compared - set(INPUTS))
        print(
            f"\n{len(compared)} of {len(golden)} arrays compared; not compared: {', '.join(left) or 'none'}"
        )
        result[family] = {
            "compared": len(compared),
            "not_compared": left,
            "worst": {kind: [float(f"{value:.3g}") for value in pair] for kind, pair in worst.items()},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
