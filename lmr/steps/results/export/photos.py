"""Photos with their features, and pairs with their inliers, one at a time: for programs that name images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.runtime.steps import Role
from lmr.steps.results.export.tables import Names, read_kept
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.storage.arrow import column, ragged

__all__ = ["ImageNames", "PhotoFeatures", "VerifiedPair", "photo_features", "verified_pairs"]


class ImageNames:
    """Names of images in one folder that holds both sides: `gallery/PATH` and `queries/PATH`.

    Parameters
    ----------
    run
        The datasets of the run.
    """

    def __init__(self, run: RunDatasets) -> None:
        self.names = Names(run).photos.map(_paths_or_ids)

    def of(self, role: Role, row: int) -> str:
        """Return the name of a photo."""
        return f"{role}/{self.names.of(role)[row]}"

    def count(self, role: Role) -> int:
        """Return how many photos a side has."""
        return len(self.names.of(role))


@dataclass(frozen=True, kw_only=True, eq=False)
class PhotoFeatures:
    """The local features of a photo.

    Attributes
    ----------
    role, row
        Which photo.
    size_px
        Width and height of the upright photo.
    xy
        (n, 2) float32 pixels; the centre of the first pixel is 0.
    scales
        (n,) float32 pixels.
    orientations
        (n,) float32 radians.
    scores
        (n,) float32.
    descriptors
        (n, d) as they are stored.
    """

    role: Role
    row: int
    size_px: tuple[int, int]
    xy: NDArray[np.float32]
    scales: NDArray[np.float32]
    orientations: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class VerifiedPair:
    """A query and a gallery photo that were verified.

    Attributes
    ----------
    query, photo
        Their rows.
    query_features, photo_features
        How many features either has.
    matches
        (n, 2) numbers of the features that are inliers, the query's and the gallery photo's.
    transform
        (3, 3) float32, gallery photo to query photo, in the scaled frame of verification.
    """

    query: int
    photo: int
    query_features: int
    photo_features: int
    matches: NDArray[np.int64]
    transform: NDArray[np.float32]


def photo_features(run: RunDatasets) -> Iterator[PhotoFeatures]:
    """Yield every photo that has features, the gallery's first.

    Raises
    ------
    LmrError
        If the workflow extracts none, or their shards are gone.
    """
    if run.local is None or run.images is None:
        raise LmrError("this run has no local features", got=run.root, fix="--what matches")
    for role, dataset in run.local.items():
        for shard in range(dataset.shards):
            sizes = read_kept(run.images.of(role), shard, ["photo", "width", "height"])
            size_px = dict(
                zip(
                    column(sizes, "photo").tolist(),
                    zip(column(sizes, "width").tolist(), column(sizes, "height").tolist(), strict=True),
                    strict=True,
                )
            )
            rows = read_kept(dataset, shard)
            owners = column(rows, "photo")
            photos, starts = np.unique(owners, return_index=True)
            xy, descriptors = column(rows, "xy"), column(rows, "descriptor")
            scales, turns, scores = (column(rows, name) for name in ("scale", "orientation", "score"))
            for row, first, stop in zip(
                photos.tolist(), starts.tolist(), [*starts[1:].tolist(), len(owners)], strict=True
            ):
                part = slice(first, stop)
                yield PhotoFeatures(
                    role=role,
                    row=row,
                    size_px=size_px[row],
                    xy=xy[part],
                    scales=scales[part],
                    orientations=turns[part],
                    scores=scores[part],
                    descriptors=descriptors[part],
                )


def verified_pairs(run: RunDatasets) -> Iterator[VerifiedPair]:
    """Yield every pair that has an inlier.

    Raises
    ------
    LmrError
        If the workflow verifies none, or the shards are gone.
    """
    if run.pairs is None or run.local is None:
        raise LmrError("this run has no verified pairs", got=run.root, fix="--what matches")
    names = ImageNames(run)
    counts = {role: _counts(dataset, names.count(role)) for role, dataset in run.local.items()}
    for shard in range(run.pairs.shards):
        rows = read_kept(run.pairs, shard, ["query", "photo", "transform", "matches"])
        query, photo = column(rows, "query").tolist(), column(rows, "photo").tolist()
        transform, matches = column(rows, "transform"), ragged(rows, "matches")
        for i, (q, p) in enumerate(zip(query, photo, strict=True)):
            if len(matches[i]):
                yield VerifiedPair(
                    query=q,
                    photo=p,
                    query_features=int(counts["queries"][q]),
                    photo_features=int(counts["gallery"][p]),
                    matches=matches[i].astype(np.int64),
                    transform=transform[i].reshape(3, 3),
                )


def _counts(dataset: Any, photos: int) -> NDArray[np.int64]:
    counts = np.zeros(photos, np.int64)
    for shard in range(dataset.shards):
        counts += np.bincount(column(read_kept(dataset, shard, ["photo"]), "photo"), minlength=photos)
    return counts


def _paths_or_ids(rows: pa.Table) -> list[str]:
    ids, paths = rows.column("id").to_pylist(), rows.column("path").to_pylist()
    return [path or one for one, path in zip(ids, paths, strict=True)]
