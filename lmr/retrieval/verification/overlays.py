"""Overlays that recur all over a gallery: captions, date stamps, watermarks and logos, found without labels.

An overlay is drawn at one place of many photos that have nothing else in common. So a feature belongs to one
where far more photos have such a feature at that place than have one elsewhere. What chance gives is read off
the gallery itself. More is meant in the sense of Moisan and Stival (*A probabilistic criterion to detect
rigid point matches*, IJCV 2004): by chance fewer than one feature in a thousand galleries would be found.

Copies of one photo, and frames of one camera that stands still, agree in place nearly everywhere. They count
as one photo.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.stats import binom

__all__ = ["Overlays", "find_overlays"]

CELL = (
    0.02  # of the frame's long side: overlays are drawn to the pixel, and rounding of sizes moves them less
)
ALIKE = 0.85  # cosine of features that are counted; two features at random have 0.64 as a rule with RootSIFT
SIMILAR = 0.7  # cosine of a feature at an overlay's place that belongs to it: they vary with what lies behind
CHANCE_ROWS = 4096  # features of any place that show what chance gives
LEAST_PHOTOS = 6
FALSE_ALARMS = 1e-3
BLOCKS, LEAST_BLOCKS = 6, 6  # of each side of a photo, and of those of both photos that hold features
SAME_PHOTO = 0.7  # of these blocks agree: then the one is a copy of the other
MARKED_AT_ONCE = 100_000

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

# What a place is measured from, in shares of width and height; the last is no corner, but a share itself.
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0), (0.5, 1), (0.5, 0.5), (np.nan, np.nan))


@dataclass(frozen=True, eq=False)
class Overlays:
    """Features that recur at one place of many photos.

    Attributes
    ----------
    corner
        (m,) int8, what the place is measured from: a row of `CORNERS`.
    place
        (m, 2) float32, from there, in long sides of the frame.
    descriptor
        (m, d) float32, unit rows.
    photos
        (m,) int32, in how many photos of the sample each was found.
    """

    corner: NDArray[np.int8]
    place: NDArray[np.float32]
    descriptor: NDArray[np.float32]
    photos: NDArray[np.int32]

    def mark(
        self, xy: Floats, descriptors: NDArray[np.float32], frames: Floats, *, side_px: float
    ) -> NDArray[np.bool_]:
        """Tell which features belong to an overlay.

        Parameters
        ----------
        xy
            (n, 2) places, pixels of the frame.
        descriptors
            (n, d) float32, unit rows.
        frames
            (n, 2) width and height of the photo of each, in the same pixels.
        side_px
            The long side of a frame.

        Returns
        -------
        (n,) bool.
        """
        marked = np.zeros(len(xy), np.bool_)
        for corner in np.unique(self.corner).tolist():
            mine = np.flatnonzero(self.corner == corner)
            known = KDTree(self.place[mine])
            for start in range(0, len(xy), MARKED_AT_ONCE):
                block = slice(start, start + MARKED_AT_ONCE)
                places = KDTree(_places(xy[block], frames[block], corner, side_px))
                near = places.sparse_distance_matrix(known, CELL, p=np.inf, output_type="ndarray")
                feature, overlay = near["i"] + start, mine[near["j"]]
                alike = np.einsum("nd,nd->n", descriptors[feature], self.descriptor[overlay])
                marked[feature[alike > SIMILAR]] = True
        return marked


def find_overlays(
    xy: Floats,
    descriptors: NDArray[np.float32],
    photo: Integers,
    frames: Floats,
    *,
    side_px: float,
    least_share: float = 0.01,
    seed: int = 0,
) -> Overlays:
    """Find the overlays of some hundred photos of a gallery.

    Parameters
    ----------
    xy
        (n, 2) places of features, pixels of the frame.
    descriptors
        (n, d) float32, unit rows.
    photo
        (n,) the photo of each, numbered from 0.
    frames
        (photos, 2) width and height of each photo, in the same pixels.
    side_px
        The long side of a frame.
    least_share
        Share of the photos that an overlay is on at least, and never fewer than six photos.
    seed
        Of the features that show what chance gives.

    Returns
    -------
    Overlays
        Of features that are alike at one place, the one that most photos have; none where nothing recurs.
    """
    kept: list[tuple[int, int, int]] = []
    least = max(LEAST_PHOTOS, int(np.ceil(least_share * len(frames))))
    sample = np.random.default_rng(seed).choice(len(xy), min(CHANCE_ROWS, len(xy)), replace=False)
    group = _copies(_places(xy, frames[photo], len(CORNERS) - 1, side_px), descriptors, photo, len(frames))
    for corner in range(len(CORNERS)):
        places = _places(xy, frames[photo], corner, side_px)
        for members, alike in _alike_in_place(places, descriptors, group[photo], least):
            seen = alike.sum(axis=1)
            many = np.flatnonzero(seen >= least)
            if len(many) == 0:
                continue
            chance = (descriptors[members[many]] @ descriptors[sample].T > ALIKE).sum(axis=1) + 1
            per_photo = len(members) / alike.shape[1]
            share = np.minimum(1.0, chance / (len(sample) + 1) * per_photo)
            tail = binom.sf(seen[many] - 1, alike.shape[1], share)
            many = many[tail * len(xy) * len(CORNERS) < FALSE_ALARMS]
            many = many[np.argsort(-seen[many], kind="stable")]
            while len(many):
                kept.append((corner, int(members[many[0]]), int(seen[many[0]])))
                same = descriptors[members[many]] @ descriptors[members[many[0]]] > ALIKE
                same[0] = True
                many = many[~same]
    return _overlays(kept, xy, descriptors, frames[photo], side_px)


def _overlays(
    kept: list[tuple[int, int, int]],
    xy: Floats,
    descriptors: NDArray[np.float32],
    frames: Floats,
    side_px: float,
) -> Overlays:
    corner, rows, photos = np.array(kept, np.int64).reshape(-1, 3).T
    place = np.empty((len(rows), 2), np.float32)
    for one in np.unique(corner).tolist():
        mine = corner == one
        place[mine] = _places(xy[rows[mine]], frames[rows[mine]], one, side_px)
    return Overlays(corner.astype(np.int8), place, descriptors[rows], photos.astype(np.int32))


def _places(xy: Floats, frames: Floats, corner: int, side_px: float) -> NDArray[np.float64]:
    """Return places measured from a corner, in long sides of the frame, or as shares of the photo's own."""
    if corner == len(CORNERS) - 1:
        return np.asarray(xy / np.maximum(frames, 1), np.float64)
    return np.asarray((xy - frames * np.array(CORNERS[corner])) / side_px, np.float64)


def _alike_in_place(
    places: NDArray[np.float64], descriptors: NDArray[np.float32], owner: Integers, least: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield the features of each cell, (m,), and which of the cell's owners have one like each, (m, owners).

    Cells with fewer than `least` owners are passed over.
    """
    cells = np.floor(places / CELL).astype(np.int64)
    order = np.lexsort((owner, cells[:, 1], cells[:, 0]))
    cells = cells[order]
    bounds = np.flatnonzero((np.diff(cells, axis=0) != 0).any(axis=1)) + 1
    for members in np.split(order, bounds):
        starts = np.flatnonzero(np.diff(owner[members], prepend=-1))
        if len(starts) >= least:
            mine = descriptors[members]
            yield members, np.logical_or.reduceat(mine @ mine.T > ALIKE, starts, axis=1)


def _copies(
    places: NDArray[np.float64], descriptors: NDArray[np.float32], photo: Integers, n_photos: int
) -> NDArray[np.int64]:
    """Return a number for each photo, the same for those that agree in place nearly everywhere.

    A photo with a caption differs from others outside of it, and a copy of a photo nowhere. So photos are cut
    into blocks, and those count in which both have features. Places are shares of the photos' sides.
    """
    block = np.clip(places * BLOCKS, 0, BLOCKS - 1).astype(np.int64) @ (BLOCKS, 1)
    features = np.zeros((n_photos, BLOCKS**2), np.int32)
    np.add.at(features, (photo, block), 1)
    filled = (features >= 2).astype(np.int32)
    agreed = np.zeros((BLOCKS**2, n_photos, n_photos), np.bool_)
    for members, alike in _alike_in_place(places, descriptors, photo, 2):
        starts = np.flatnonzero(np.diff(photo[members], prepend=-1))
        owners = photo[members[starts]]
        agreed[block[members[0]]][np.ix_(owners, owners)] |= np.logical_or.reduceat(alike, starts, axis=0)
    both = filled @ filled.T
    agreeing = np.einsum("bij,ib,jb->ij", agreed, filled, filled, dtype=np.int32, optimize=True)
    same = (both >= LEAST_BLOCKS) & (agreeing >= SAME_PHOTO * both)
    return np.asarray(connected_components(same, directed=False)[1], np.int64)
