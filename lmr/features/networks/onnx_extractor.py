"""Global descriptors of a network without torch: ONNX models, pooled by NumPy.

The numbers are those of `lmr.features.networks.gem` for the same network, to rounding.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import isqrt
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.interfaces import GlobalFeatures, Photo
from lmr.features.networks.onnx_runtime import Network
from lmr.features.prepared import PreparedPhoto, at_scales, checked, extract_each, resized
from lmr.features.regions import box_means, rmac_boxes
from lmr.features.settings import LEAST_SIDE_PX, OnnxSettings, Pooling
from lmr.features.unit import unit_rows

__all__ = ["OnnxExtractor"]

Floats = NDArray[np.float32]
LEAST = 1e-6  # features are at least this before they are raised to GeM's power


class OnnxExtractor:
    """Extracts global and regional descriptors; a `GlobalExtractor`.

    What the network returns decides what is made of it: a vector (n, d) is the descriptor; a feature map
    (n, d, rows, columns) and tokens (n, t, d) are pooled, and regions come from the same pass.

    Parameters
    ----------
    network
        From normalised images to the output.
    settings
        What the model does not say.
    name
        By which it is known.
    size
        (height, width) of the input, where the model has one size only.
    channels_last
        The network takes (n, height, width, 3).
    """

    needs_gpu = False

    def __init__(
        self,
        network: Network,
        settings: OnnxSettings,
        *,
        name: str,
        size: tuple[int, int] | None = None,
        channels_last: bool = False,
    ) -> None:
        self.network, self.settings, self.name = network, settings, name
        self.size, self.channels_last = size, channels_last
        if not settings.sizes_px:
            raise LmrError("descriptors need a size", got="sizes_px = ()", fix="give for instance [640, 320]")
        self.max_side_px = max(settings.sizes_px)
        self.scales = (1.0,) if size else tuple(px / self.max_side_px for px in settings.sizes_px)
        std = np.array(settings.std, np.float32)
        self.factor, self.offset = 1 / (255 * std), np.array(settings.mean, np.float32) / std
        side = max(LEAST_SIDE_PX, settings.multiple_px)
        self.dimension = self._described(np.zeros((*(size or (side, side)), 3), np.uint8))[0].shape[1]

    def __call__(self, photos: Sequence[Photo]) -> list[GlobalFeatures]:
        """Return the descriptor of each photo over all sizes, and of its regions at the largest size.

        Raises
        ------
        LmrError
            If a photo is not (height, width, 3) uint8, or the network fails on it.
        """
        return extract_each(photos, self.prepare, self.stream)

    def prepare(self, photo: Photo) -> PreparedPhoto:
        """Return the photo at the sizes at which it is described."""
        if self.size is not None:
            image = checked(photo)
            if self.settings.fit == "crop":
                image = _middle(image, self.size)
            return PreparedPhoto((resized(image, self.size[1], self.size[0]),), photo.shape[:2])
        multiple = self.settings.multiple_px
        return at_scales(photo, self.max_side_px, self.scales, max(LEAST_SIDE_PX, multiple), multiple)

    def stream(self, photos: Iterable[PreparedPhoto]) -> Iterator[GlobalFeatures]:
        """Yield the descriptors of photos that `prepare` returned, one pass per photo and size."""
        largest = int(np.argmax(self.scales))
        for photo in photos:
            described = [self._described(image) for image in photo.images]
            vectors = np.concatenate([whole for whole, _ in described])
            if len(vectors) > 1:
                # As in deep-image-retrieval and cnnimageretrieval-pytorch: GeM's mean over sizes too.
                power = self.settings.p if described[0][1] is not None and self._gem else 1.0
                vectors = np.sign(vectors) * np.abs(vectors) ** power
                mean = vectors.mean(axis=0, keepdims=True)
                vectors = unit_rows(np.sign(mean) * np.abs(mean) ** (1 / power))
            regions = described[largest][1]
            yield GlobalFeatures(vectors[0], vectors if regions is None else regions)

    def whitening(self, name: str = "") -> NoReturn:
        """Raise: an ONNX model holds no whitening.

        Raises
        ------
        LmrError
            Always.
        """
        raise LmrError(
            f"{self.name} comes without a whitening", fix="--set describe.whitening=gallery learns one"
        )

    @property
    def _gem(self) -> bool:
        return self.settings.pooling in ("auto", "gem")

    def _described(self, image: Photo) -> tuple[Floats, Floats | None]:
        """Return the unit descriptor (1, d) of an image, and those of its regions (r, d) if it has a map."""
        pixels = image * self.factor - self.offset
        if not self.channels_last:
            pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        made = self.network(pixels[None])
        if not np.isfinite(made).all():
            raise LmrError(f"{self.name} returns NaN or infinity", fix="check mean, std and the model")
        if made.ndim == 4 and len(made) == 1:
            return self._pooled(made[0].transpose(1, 2, 0), self.settings.pooling)
        if made.ndim == 3 and len(made) == 1:
            return self._tokens(made[0], image.shape[:2])
        if made.ndim == 2 and len(made) == 1:
            return unit_rows(made), None
        raise LmrError(
            f"{self.name} returns neither a vector, nor a feature map, nor tokens",
            got=f"an output of shape {made.shape} for one image",
            fix="name an output of (1, d), (1, d, rows, columns) or (1, tokens, d): output of describe.onnx",
        )

    def _tokens(self, tokens: Floats, size: tuple[int, ...]) -> tuple[Floats, Floats | None]:
        """Pool a transformer's tokens (t, d); those of patches are a map where their number fits the size."""
        extra, pooling = self.settings.extra_tokens, self.settings.pooling
        if pooling == "cls" or (pooling == "auto" and extra):
            return unit_rows(tokens[:1]), None
        patches = tokens[extra:]
        if not len(patches):
            raise LmrError(
                f"{self.name} returns no tokens of patches",
                got=f"{len(tokens)} tokens, {extra} of them extra",
                fix="set extra_tokens of describe.onnx to the number of CLS and register tokens",
            )
        grid = _grid(len(patches), size)
        whole, regions = self._pooled(patches.reshape(*(grid or (1, len(patches))), -1), pooling)
        return whole, regions if grid else None

    def _pooled(self, features: Floats, pooling: Pooling) -> tuple[Floats, Floats]:
        """Return the unit descriptors of a map (rows, columns, d) and of R-MAC's regions of it."""
        rows, columns, depth = features.shape
        if pooling == "max":
            boxes = rmac_boxes(columns, rows).astype(int).tolist()
            cells = np.stack([features[top:end, left:right].max((0, 1)) for left, top, right, end in boxes])
        elif pooling == "avg":
            cells = box_means(rows, columns) @ features.reshape(-1, depth)
        elif pooling == "cls":
            raise LmrError(
                f"{self.name} returns a feature map, which has no first token",
                got='pooling = "cls"',
                fix='give pooling = "gem", "avg" or "max"',
            )
        else:
            p = np.float32(self.settings.p)
            x = np.maximum(features.reshape(-1, depth), np.float32(LEAST))
            cells = (box_means(rows, columns) @ (x * x * x if p == 3 else x**p)) ** (1 / p)
        unit = unit_rows(cells)
        return unit[:1], unit


def _grid(count: int, size: tuple[int, ...]) -> tuple[int, int] | None:
    """Return rows and columns of square patches that fill an image of this size; None if there are none."""
    height, width = size
    patch = isqrt(height * width // count)
    fits = patch and height % patch == width % patch == 0 and height * width == count * patch * patch
    return (height // patch, width // patch) if fits else None


def _middle(photo: Photo, size: tuple[int, int]) -> Photo:
    """Cut out the largest middle part of this shape."""
    height, width = photo.shape[:2]
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(photo[top : top + rows, left : left + columns])
