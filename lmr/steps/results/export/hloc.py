"""Files as hloc reads them, the toolbox of hierarchical localisation: HDF5 by image, and lists of pairs.

An image is named `gallery/PATH` or `queries/PATH`. So one folder with links to both folders of photos is the
folder of images. Keypoints are pixels from the centre of the first one, as hloc's own are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from lmr.retrieval.descriptors import to_float
from lmr.steps.ranking import read_ranking
from lmr.steps.results.export.photos import ImageNames, photo_features, verified_pairs
from lmr.steps.results.export.sinks import h5py_module
from lmr.steps.results.export.tables import Kind, described_of, read_kept
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset

__all__ = ["HLOC", "write_hloc"]

Pair = tuple[str, str]


def write_hloc(run: RunDatasets, what: Kind, folder: Path) -> str:
    """Write hloc's files into an existing folder; return what they do not carry, for people.

    `features.h5`: a group per image with `keypoints` (n, 2), `descriptors` (d, n), `scores` and `image_size`.
    `global.h5`: a group per image with `global_descriptor` (d,). `matches.h5`: a group per pair with
    `matches0` (n,), the keypoint of the second image for each of the first or -1. `pairs.txt`: a line a pair.

    Raises
    ------
    LmrError
        If h5py is not installed, or the run has no such thing.
    """
    return _WRITERS[what](run, folder)


def _write_features(run: RunDatasets, folder: Path) -> str:
    names = ImageNames(run)
    with h5py_module().File(folder / "features.h5", "w") as file:
        for one in photo_features(run):
            group = file.require_group(names.of(one.role, one.row))
            group["keypoints"], group["scores"] = one.xy, one.scores
            group["descriptors"] = to_float(one.descriptors).T
            group["image_size"] = np.array(one.size_px)
    return ""


def _write_descriptors(run: RunDatasets, folder: Path) -> str:
    names, described = ImageNames(run), described_of(run)
    with h5py_module().File(folder / "global.h5", "w") as file:
        for role, dataset in described.items():
            for shard in range(dataset.shards):
                rows = read_kept(dataset, shard, ["photo", "descriptor"])
                for row, vector in zip(column(rows, "photo"), column(rows, "descriptor"), strict=True):
                    group = file.require_group(names.of(role, int(row)))
                    group["global_descriptor"] = vector.astype(np.float32)
    return ""


def _write_matches(run: RunDatasets, folder: Path) -> str:
    names, pairs = ImageNames(run), list[Pair]()
    with h5py_module().File(folder / "matches.h5", "w") as file:
        for one in verified_pairs(run):
            pair = names.of("queries", one.query), names.of("gallery", one.photo)
            group = file.require_group("/".join(name.replace("/", "-") for name in pair))
            matches = np.full(one.query_features, -1, np.int32)
            matches[one.matches[:, 0]] = one.matches[:, 1]
            group["matches0"] = matches
            group["matching_scores0"] = (matches >= 0).astype(np.float16)
            pairs.append(pair)
    return _write_pairs(folder / "pairs.txt", pairs)


def _write_last(run: RunDatasets, folder: Path) -> str:
    return _write_pairs(folder / "pairs.txt", _listed(list(run.rankings.values())[-1], ImageNames(run)))


def _write_rankings(run: RunDatasets, folder: Path) -> str:
    names = ImageNames(run)
    told = [
        _write_pairs(folder / f"pairs-{stage}.txt", _listed(ranking, names))
        for stage, ranking in run.rankings.items()
    ]
    return "; ".join(filter(None, told))


def _listed(ranking: Dataset, names: ImageNames) -> Iterator[Pair]:
    for shard in range(ranking.shards):
        part = read_ranking(ranking, shard)
        for row, place in zip(*np.nonzero(part.photos >= 0), strict=True):
            yield names.of("queries", part.queries[row]), names.of("gallery", part.photos[row, place])


def _write_pairs(path: Path, pairs: Iterable[Pair]) -> str:
    """Write a line per pair; return how many are left out, since a space ends a name there."""
    left_out = 0
    with open(path, "w", encoding="utf-8") as file:
        for pair in pairs:
            if any(len(name.split()) != 1 for name in pair):
                left_out += 1
            else:
                file.write(f"{' '.join(pair)}\n")
    return f"{left_out:,} pairs of {path.name} left out: hloc takes no spaces in paths" if left_out else ""


_WRITERS: Mapping[Kind, Callable[[RunDatasets, Path], str]] = {
    "matches": _write_last,
    "rankings": _write_rankings,
    "pairs": _write_matches,
    "features": _write_features,
    "descriptors": _write_descriptors,
}

HLOC: tuple[Kind, ...] = tuple(_WRITERS)
"""What hloc has a file for."""
