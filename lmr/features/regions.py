"""R-MAC's grid: square regions of a photo (or of a feature map) at several scales, evenly overlapping.

Tolias, Sicre and Jégou, *Particular object retrieval with integral max-pooling of CNN activations* (ICLR
2016); used for diffusion over regions by Iscen et al. (CVPR 2017). The places are those of the code published
with these papers, to the pixel, which is why they are rounded down and computed in float32.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError

__all__ = ["box_means", "rmac_boxes"]

WANTED_OVERLAP = 0.4  # of two neighbouring squares along the long side, at the first scale
MAX_SQUARES = 7


def rmac_boxes(width: int, height: int, *, scales: int = 3) -> NDArray[np.float32]:
    """Return the regions of a photo or a feature map.

    The first is the whole. At scale l = 1, 2, ..., the squares have the side floor(2 min(width, height) /
    (l + 1)); along the short side there are l, along the long side up to six more (none where both sides are
    equal), such that neighbours overlap by about 40 % at the first scale. A scale whose squares would be
    smaller than one pixel has none.

    Parameters
    ----------
    width, height
        Sides, pixels (of the photo or of the map).
    scales
        Number of scales; 3 gives 15 regions of a square photo and 21 of a 4:3 one.

    Returns
    -------
    (r, 4) float32, columns left, top, right, bottom in pixels, whole numbers; right and bottom are exclusive.
    Rows by scale, then from top to bottom, then from left to right.

    Raises
    ------
    LmrError
        If a side or `scales` is less than 1.
    """
    if min(width, height) < 1 or scales < 1:
        raise LmrError(
            "no regions can be laid out",
            got=f"{width} x {height} px at {scales} scales",
            fix="give sides of at least 1 px and at least 1 scale",
        )
    short = min(width, height)
    extra = _extra_squares(short, max(width, height))
    boxes: list[tuple[float, float, float, float]] = [(0, 0, width, height)]
    for scale in range(1, scales + 1):
        side = 2 * short // (scale + 1)
        if side == 0:
            break
        lefts = _starts(width, side, scale + (extra if width > height else 0))
        tops = _starts(height, side, scale + (extra if height > width else 0))
        boxes += [(left, top, left + side, top + side) for top in tops for left in lefts]
    return np.array(boxes, np.float32)


def _extra_squares(short: int, long: int) -> int:
    """Return how many more squares the long side gets than the short one: 0 to 6."""
    if long == short:
        return 0
    squares = np.arange(2, MAX_SQUARES + 1, dtype=np.float32)
    # Times the reciprocal, as torch divides a number by a tensor: at sides such as 11 x 47 two choices are
    # equal but for the rounding.
    stride = np.float32(long - short) * (1 / (squares - 1))
    overlap = (short * short - short * stride) / np.float32(short * short)
    return 1 + int(np.argmin(np.abs(overlap - np.float32(WANTED_OVERLAP))))


def _starts(length: int, side: int, squares: int) -> list[float]:
    """Return where `squares` squares start along a side, spread from one end to the other."""
    stride = np.float32((length - side) / (squares - 1)) if squares > 1 else np.float32(0)
    # The published code rounds centres, not starts; a half-side of -1 (a square of one pixel) is its too.
    half = np.floor(side / 2 - 1).astype(np.float32)
    starts: list[float] = (np.floor(half + np.arange(squares, dtype=np.float32) * stride) - half).tolist()
    return starts


@lru_cache(maxsize=64)
def box_means(rows: int, columns: int) -> NDArray[np.float32]:
    """Return R-MAC's boxes of a feature map as the weights of the means over their cells.

    Returns
    -------
    (r, rows * columns) float32: a product with a map's cells gives the means over all boxes.
    """
    boxes = rmac_boxes(columns, rows)
    weights = np.zeros((len(boxes), rows, columns), np.float32)
    for weight, (left, top, right, bottom) in zip(weights, boxes.astype(int), strict=True):
        weight[top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
    return weights.reshape(len(boxes), -1)
