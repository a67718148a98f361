"""DELF: local features chosen by attention, as in the graph released in 2017.

Noh, Araujo, Sim, Weyand and Han, *Large-scale image retrieval with attentive deep local features* (ICCV
2017).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from os import PathLike

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize, softplus

from lmr.errors import LmrError
from lmr.features.interfaces import LocalFeatures, Photo
from lmr.features.networks.batches import Batches, Landing, download, upload
from lmr.features.networks.delf_network import DEPTH, DelfNetwork, Weights, weight_of
from lmr.features.networks.devices import Precision, compute_device, compute_dtype
from lmr.features.prepared import PreparedPhoto, checked, extract_each, shrunk, shrunk_size
from lmr.features.weights.delf_files import read_delf_weights

__all__ = ["RELEASED_SCALES", "DelfExtractor", "Detections", "load_delf"]

RELEASED_SCALES = (0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0)
RELEASED_THRESHOLD = 100.0
STRIDE_PX, PADDING_PX, FIELD_PX = 32, 145, 291  # of the third block: its grid and receptive field
BATCH_PIXELS = {"cuda": 8 * 1024 * 1024, "cpu": 1}  # on a CPU one photo at a time, as in `learned`


@dataclass(frozen=True)
class Detections:
    """What the released graph returns for one photo, strongest first.

    Attributes
    ----------
    boxes
        (n, 4) float32, top, left, bottom, right of the receptive fields, pixels of the photo.
    scales
        (n,) float32, 1 / the scale of the image in which the feature was found.
    scores
        (n,) float32, attention.
    features
        (n, 1024) float32, before the PCA.
    """

    boxes: NDArray[np.float32]
    scales: NDArray[np.float32]
    scores: NDArray[np.float32]
    features: NDArray[np.float32]


class DelfExtractor:
    """Extracts DELF; a `LocalExtractor`. `load_delf` makes one from files."""

    def __init__(
        self,
        weights: Weights,
        *,
        max_features: int = 1000,
        threshold: float = RELEASED_THRESHOLD,
        dimension: int = 40,
        whiten: bool = False,
        image_scales: Sequence[float] = RELEASED_SCALES,
        max_side_px: int = 1024,
        device: str = "cpu",
        precision: Precision | None = None,
        batch_pixels: int | None = None,
    ) -> None:
        rows = len(weights["pca/projection"]) if "pca/projection" in weights else 0
        if max_features < 1 or max_side_px < 1 or not image_scales or min(image_scales) <= 0:
            raise LmrError(
                "DELF cannot be extracted with these settings",
                got=f"max_features = {max_features}, max_side_px = {max_side_px}, {image_scales}",
                fix="give positive ones",
            )
        if not 1 <= dimension <= rows:
            raise LmrError(
                "the PCA has no such dimension", got=f"{dimension} of {rows}", fix=f"at most {rows}"
            )
        self.device = compute_device(device)
        self.needs_gpu = self.device.type == "cuda"
        self.dtype = compute_dtype(precision, self.device)
        self.max_features, self.threshold, self.max_side_px = max_features, threshold, max_side_px
        self.image_scales = tuple(image_scales)
        self.network = DelfNetwork(weights).requires_grad_(False).eval().to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean = weight_of(weights, "pca/mean", (1, DEPTH))
        projection = weight_of(weights, "pca/projection", (rows, DEPTH))[:dimension]
        variance = weight_of(weights, "pca/variance", (1, DEPTH))[0, :dimension, None]
        divisor = np.sqrt(variance) if whiten else np.float32(1)
        self.pca_mean = torch.tensor(mean, device=self.device)
        self.pca_projection = torch.tensor(projection / divisor, device=self.device)
        self.batches = Batches(batch_pixels or BATCH_PIXELS[self.device.type])
        self.name, self.dimension = "delf", dimension
        self.storage: np.dtype[np.uint8] | np.dtype[np.float16] = np.dtype(np.float16)

    def __call__(self, photos: Sequence[Photo]) -> list[LocalFeatures]:
        """Extract the features of each photo; `scale` is the side of the receptive field in its pixels.

        Raises
        ------
        LmrError
            If a photo is not (height, width, 3) uint8, memory does not suffice for one, or float16 overflows.
        """
        return extract_each(photos, self.prepare, self.stream)

    def prepare(self, photo: Photo) -> PreparedPhoto:
        """Return the photo as the network takes it: shrunk to `max_side_px`."""
        return PreparedPhoto((shrunk(checked(photo), self.max_side_px),), photo.shape[:2])

    def stream(self, photos: Iterable[PreparedPhoto]) -> Iterator[LocalFeatures]:
        """Yield the features of photos that `prepare` returned."""
        launch = partial(self._launch, rows=lambda features: self.describe(features).half())
        return self.batches.run(photos, launch, self._local)

    def detect(self, photos: Sequence[Photo]) -> list[Detections]:
        """Return what the released graph returns, in pixels of the photos shrunk to `max_side_px`."""
        launch = partial(self._launch, rows=lambda features: features)
        return extract_each(
            photos, self.prepare, lambda prepared: self.batches.run(prepared, launch, self._detections)
        )

    def describe(self, features: Tensor) -> Tensor:
        """Return the descriptors, (..., dimension) unit rows, of features (..., 1024)."""
        return normalize((normalize(features, dim=-1) - self.pca_mean) @ self.pca_projection.T, dim=-1)

    def inputs(self, batch: Sequence[PreparedPhoto]) -> Iterator[tuple[float, Tensor]]:
        """Yield each scale, and the network's input at it, of photos of one size."""
        pixels = upload([photo.images[0] for photo in batch], self.device).sub_(128).div_(128)
        yield from self._pyramid(pixels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (n, 1024, rows, columns) and attention (n, rows, columns) of an input."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            maps = self.network.features(images)
        maps = maps.float()
        return maps, softplus(self.network.logits(maps))

    def _launch(self, batch: list[PreparedPhoto], rows: Callable[[Tensor], Tensor]) -> Landing:
        """Queue the choice of the strongest features over all scales; `rows` makes what is kept of each."""
        features, scores = [], []
        with torch.inference_mode():
            for _, images in self.inputs(batch):
                maps, attention = self.forward(images)
                scores.append(attention.flatten(1))
                features.append(maps.permute(0, 2, 3, 1).flatten(1, 2))
            # Equal scores stay in the order of scales, rows and columns, as in the original.
            strongest, order = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True)
            strongest, order = strongest[:, : self.max_features], order[:, : self.max_features]
            kept = torch.cat(features, 1).gather(1, order[:, :, None].expand(-1, -1, DEPTH))
            return download(strongest, order, rows(kept))

    def _detections(self, landing: Landing, batch: list[PreparedPhoto]) -> list[Detections]:
        scores, order, rows = landing.arrays()
        if not np.isfinite(rows).all():
            raise LmrError(
                "the network's numbers overflow",
                got=f"{self.dtype} on {self.device}",
                fix='give precision="bfloat16" or "float32"',
            )
        boxes, scales = self._places(*batch[0].images[0].shape[:2])
        return [
            _above(self.threshold, Detections(boxes[places], scales[places], score, row))
            for score, places, row in zip(scores, order, rows, strict=True)
        ]

    def _places(self, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the boxes (n, 4) and scales (n,) of all cells, in the order of the network's outputs."""
        boxes, scales = [], []
        for image_scale, sides in self._sizes(height, width):
            rows, columns = (-(-side // STRIDE_PX) for side in sides)
            boxes.append(_boxes(rows, columns) / np.float32(image_scale))
            scales.append(np.full(len(boxes[-1]), np.float32(1) / np.float32(image_scale)))
        return np.concatenate(boxes), np.concatenate(scales)

    def _sizes(self, height: int, width: int) -> Iterator[tuple[float, tuple[int, int]]]:
        for scale in self.image_scales:
            rows, columns = (int(np.rint(np.float32(side) * np.float32(scale))) for side in (height, width))
            yield scale, (max(1, rows), max(1, columns))

    def _pyramid(self, images: Tensor) -> Iterator[tuple[float, Tensor]]:
        for scale, (rows, columns) in self._sizes(*images.shape[2:]):
            yield scale, _resized_as_tensorflow_1(images, rows, columns)

    def _local(self, landing: Landing, batch: list[PreparedPhoto]) -> list[LocalFeatures]:
        found = self._detections(landing, batch)
        return [self._placed(photo.size, one) for photo, one in zip(batch, found, strict=True)]

    def _placed(self, size: tuple[int, int], found: Detections) -> LocalFeatures:
        """Return detections whose features are descriptors, in the frame of the photo as it was given."""
        height, width = shrunk_size(size, self.max_side_px)
        zoom = np.array([size[1] / width, size[0] / height], np.float32)
        yx = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        return LocalFeatures(
            # The centre of the first pixel is 0 in both frames, its left edge -0.5.
            xy=((yx[:, ::-1] + 0.5) * zoom - 0.5).astype(np.float32),
            scale=found.scales * np.float32(FIELD_PX * np.sqrt(zoom.prod())),
            orientation=np.zeros(len(yx), np.float32),
            score=found.scores,
            descriptor=found.features.astype(np.float16, copy=False),
        )


def load_delf(
    model: str | PathLike[str],
    *,
    max_features: int = 1000,
    threshold: float = RELEASED_THRESHOLD,
    dimension: int = 40,
    whiten: bool = False,
    image_scales: Sequence[float] = RELEASED_SCALES,
    max_side_px: int = 1024,
    device: str = "cpu",
    precision: Precision | None = None,
    batch_pixels: int | None = None,
) -> DelfExtractor:
    """Load the released model and return its extractor; the defaults are the released settings.

    Parameters
    ----------
    model
        See `read_delf_weights`.
    max_features, threshold
        Features kept of a photo: the strongest, with at least this attention.
    dimension, whiten
        Of the descriptors after the PCA (the model of 2017 is used with 40, that of 2019 with 128); whether
        each is divided by its deviation.
    image_scales
        Scales at which a photo is looked at.
    max_side_px
        Long side to which larger photos are shrunk first. Coordinates are those of the photo as given.
    device
        "cpu", "cuda" or "cuda:1".
    precision
        Of the convolutions: float32 on CPUs and float16 on GPUs unless given.
    batch_pixels
        Most pixels, of photos, in a pass through the network. It is halved when memory runs out.

    Raises
    ------
    LmrError
        If the weights cannot be read, a setting is out of range, or there is no such device.
    """
    return DelfExtractor(
        read_delf_weights(model),
        max_features=max_features,
        threshold=threshold,
        dimension=dimension,
        whiten=whiten,
        image_scales=image_scales,
        max_side_px=max_side_px,
        device=device,
        precision=precision,
        batch_pixels=batch_pixels,
    )


def _resized_as_tensorflow_1(images: Tensor, rows: int, columns: int) -> Tensor:
    """Interpolate linearly with the pixels' corners aligned, neither their centres nor the outermost ones.

    No mode of torch does so: the sample for target t lies at t * in / out.
    """
    for axis, size in ((3, columns), (2, rows)):
        length = images.shape[axis]
        if size == length:
            continue
        low, high, weight = _samples(length, size, images.device)
        lower, upper = images.index_select(axis, low), images.index_select(axis, high)
        images = torch.lerp(lower, upper, weight if axis == 3 else weight[:, None])
    return images


@lru_cache(maxsize=256)
def _samples(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return which two pixels of `length` each of `size` lies between, and how near it is to the second.

    Kept on the device: a copy to it would wait for all that is queued there.
    """
    at = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    low = np.minimum(at.astype(np.int64), length - 1)
    samples = low, np.minimum(low + 1, length - 1), at - low.astype(np.float32)
    first, second, weight = (torch.from_numpy(array).to(device) for array in samples)
    return first, second, weight


def _boxes(rows: int, columns: int) -> NDArray[np.float32]:
    """Return (rows * columns, 4) float32: the receptive fields of the cells, in pixels of the input."""
    centres = STRIDE_PX * np.indices((rows, columns)).reshape(2, -1).T
    return np.hstack([centres - PADDING_PX, centres + PADDING_PX]).astype(np.float32)


def _above(threshold: float, found: Detections) -> Detections:
    """Return the detections, strongest first, that reach the threshold."""
    count = int((found.scores >= threshold).sum())
    return Detections(found.boxes[:count], found.scales[:count], found.scores[:count], found.features[:count])
