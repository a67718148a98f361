"""Global descriptors: GeM over a convolutional network, for the whole photo and for R-MAC's regions.

Radenović, Tolias and Chum, *Fine-tuning CNN image retrieval with no human annotation* (TPAMI 2019), and
Gordo, Almazán, Revaud and Larlus, *End-to-end learning of deep visual representations for image retrieval*
(IJCV 2017), whose released checkpoints give the same descriptors here as in the code published with them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import sqrt
from os import PathLike
from typing import cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from lmr.errors import LmrError
from lmr.features.interfaces import GlobalFeatures, Photo
from lmr.features.networks._torchvision import torchvision
from lmr.features.networks.batches import Batches, Landing, download, upload
from lmr.features.networks.devices import Precision, compute_device, compute_dtype
from lmr.features.networks.lite0_torch import Lite0
from lmr.features.prepared import PreparedPhoto, at_scales, checked, extract_each, least_side, resized
from lmr.features.regions import box_means, rmac_boxes
from lmr.features.settings import LEAST_SIDE_PX, Architecture, Input
from lmr.features.weights.checkpoints import read_global_checkpoint
from lmr.features.weights.global_checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CheckpointWhitening,
    GlobalCheckpoint,
    Linear,
)

__all__ = ["ARCHITECTURES", "GemExtractor", "GemNetwork", "load_gem"]

ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
PAPER_SCALES = (1.0, 1 / sqrt(2), 0.5)
INPUTS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}
BATCH_PIXELS = {"cuda": 32 * 1024 * 1024, "cpu": 1024 * 1024}
LEAST = 1e-6  # features are at least this before they are raised to GeM's power


class GemNetwork(nn.Module):
    """From photos to unit descriptors at one scale.

    Parameters
    ----------
    checkpoint
        The layers and their tensors.

    Raises
    ------
    LmrError
        If the architecture is unknown, or the checkpoint's tensors are not of it.
    """

    p: Tensor

    def __init__(self, checkpoint: GlobalCheckpoint) -> None:
        super().__init__()
        self.trunk = _trunk(checkpoint)
        self.pooling, self.aggregate = checkpoint.pooling, checkpoint.aggregate
        self.unit_pooled, self.center_bias = checkpoint.unit_pooled, checkpoint.center_bias
        self.register_buffer("p", checkpoint.p)
        self.local_whitening = _layer(checkpoint.local_whitening)
        self.region_whitening = _layer(checkpoint.region_whitening)
        self.head = _layer(checkpoint.head)

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, (n, rows, columns, d), of normalised images (n, 3, height, width)."""
        return cast("Tensor", self.trunk(images)).permute(0, 2, 3, 1)

    def describe(self, features: Tensor, *, regions: bool) -> tuple[Tensor, Tensor]:
        """Return the unit descriptors of feature maps, (n, d), and of their regions, (n, r, d).

        Without `regions`, r is 1 (the whole) unless the network needs the others itself.
        """
        if self.local_whitening is not None:
            features = self.local_whitening(features)
        if self.center_bias:
            features = features * _center_weights(features, self.center_bias)
        rows, columns = features.shape[1:3]
        boxes = rmac_boxes(columns, rows) if regions or self.aggregate else rmac_boxes(columns, rows)[:1]
        cells = self._pool(features, boxes)
        if self.aggregate or self.unit_pooled:
            cells = normalize(cells, dim=-1)
        if self.region_whitening is not None:
            cells = normalize(self.region_whitening(cells), dim=-1)
        whole = normalize(cells.sum(1), dim=-1) if self.aggregate else cells[:, 0]
        vectors = torch.cat([whole[:, None], cells], dim=1)
        if self.head is not None:
            vectors = self.head(vectors)
        vectors = normalize(vectors, dim=-1)
        return vectors[:, 0], vectors[:, 1:]

    def _pool(self, features: Tensor, boxes: NDArray[np.float32]) -> Tensor:
        """Pool feature maps (n, rows, columns, d) over boxes (r, 4) to (n, r, d)."""
        if self.pooling == "max":
            squares = boxes.astype(int).tolist()
            return torch.stack(
                [features[:, top:bottom, left:right].amax((1, 2)) for left, top, right, bottom in squares],
                dim=1,
            )
        rows, columns = features.shape[1:3]
        # The means over all boxes are one matrix product.
        means = _means(rows, columns, features.device)[: len(boxes)]
        if self.pooling == "avg":
            return means @ features.flatten(1, 2)
        return (means @ features.clamp(min=LEAST).pow(self.p).flatten(1, 2)).pow(1 / self.p)


class GemExtractor:
    """Extracts global and regional descriptors; a `GlobalExtractor`.

    `load_gem` makes one from a file. Photos of one size share a pass through the network.
    """

    def __init__(
        self,
        checkpoint: GlobalCheckpoint,
        *,
        max_side_px: int = 1024,
        scales: Sequence[float] = PAPER_SCALES,
        sizes_px: Sequence[int] | None = None,
        device: str = "cpu",
        precision: Precision | None = None,
        batch_pixels: int | None = None,
    ) -> None:
        if sizes_px is not None:
            max_side_px = max(sizes_px, default=0)
            scales = [px / max(max_side_px, 1) for px in sizes_px]
            checkpoint = replace(checkpoint, resize="photo")
        if max_side_px < 1 or not scales or min(scales) <= 0 or max(scales) > 4:
            raise LmrError(
                "descriptors cannot be extracted at these sizes",
                got=f"max_side_px = {max_side_px}, scales = {list(scales)}",
                fix="give a positive size and scales above 0, at most 4",
            )
        self.device = compute_device(device)
        self.needs_gpu = self.device.type == "cuda"
        self.dtype = compute_dtype(precision, self.device)
        self.max_side_px, self.scales, self.resize = max_side_px, tuple(scales), checkpoint.resize
        self.scale_power, self.scale_least = checkpoint.scale_power, checkpoint.scale_least
        self.whitenings = dict(checkpoint.whitenings)
        """The checkpoint's own, by name; no part of the descriptors."""
        self.network = GemNetwork(checkpoint).requires_grad_(False).eval().to(self.device)
        self.network.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (checkpoint.mean, checkpoint.std)
        )
        self.batches = Batches(batch_pixels or BATCH_PIXELS[self.device.type])
        self.name = f"{checkpoint.architecture}-{checkpoint.pooling}"
        self.dimension = self._dimension()

    def whitening(self, name: str = "") -> CheckpointWhitening:
        """Return the checkpoint's whitening of this name; without one, the one that there is.

        cnnimageretrieval-pytorch names them by training set and scales, "retrieval-SfM-120k/ms": of one for a
        single scale (ss) and one for several (ms), that of as many scales as here is meant.

        Raises
        ------
        LmrError
            If there is none, or which is meant is not clear.
        """
        scales = "/ss" if len(self.scales) == 1 else "/ms"
        others = "/ms" if len(self.scales) == 1 else "/ss"
        fitting = [own for own in self.whitenings if not own.endswith(others)]
        named = [own for own in self.whitenings if own in (name, name + scales)] if name else fitting
        if len(named) == 1:
            return self.whitenings[named[0]]
        raise LmrError(
            f"the weights hold no whitening {name}"
            if name
            else "which whitening of the weights is not clear",
            got=f"whitenings {', '.join(self.whitenings) or 'none'}",
            fix="--set describe.whitening_name=NAME names one; --set describe.whitening=gallery learns one",
        )

    def __call__(self, photos: Sequence[Photo]) -> list[GlobalFeatures]:
        """Return the descriptor of each photo over all scales, and of its regions at the largest scale.

        Raises
        ------
        LmrError
            If a photo is not (height, width, 3) uint8, memory does not suffice for one, or float16 overflows.
        """
        return extract_each(photos, self.prepare, self.stream)

    def prepare(self, photo: Photo) -> PreparedPhoto:
        """Return the photo as the network takes it: shrunk, and at every scale that is not made behind."""
        if self.resize == "photo":
            return at_scales(photo, self.max_side_px, self.scales, LEAST_SIDE_PX)
        return PreparedPhoto((self._shrunk(checked(photo)),), photo.shape[:2])

    def stream(self, photos: Iterable[PreparedPhoto]) -> Iterator[GlobalFeatures]:
        """Yield the descriptors of photos that `prepare` returned."""
        return self.batches.run(photos, self._launch, self._descriptors)

    def inputs(self, batch: Sequence[PreparedPhoto]) -> Iterator[Tensor]:
        """Yield the network's input, (n, 3, height, width), at each scale, of photos of one size."""
        at_sizes = (self._input(images) for images in zip(*(photo.images for photo in batch), strict=True))
        if self.resize == "photo":
            yield from at_sizes
            return
        (images,) = at_sizes
        for scale in self.scales:
            # The scale itself, not the ratio of the rounded sides, places the samples: so the original does.
            yield images if scale == 1 else interpolate(images, scale_factor=scale, mode="bilinear")

    def forward(self, images: Tensor, *, regions: bool) -> tuple[Tensor, Tensor]:
        """Return the unit descriptors of an input, (n, d), and of its regions, (n, r, d)."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.network.features(images)
        return self.network.describe(features.float(), regions=regions)

    def _launch(self, batch: list[PreparedPhoto]) -> Landing:
        """Queue the descriptors of photos of one size."""
        largest = int(np.argmax(self.scales))
        powers = []
        with torch.inference_mode():
            for position, images in enumerate(self.inputs(batch)):
                whole, cells = self.forward(images, regions=position == largest)
                powers.append(self._power(whole, self.scale_power))
                if position == largest:
                    regions = cells
            mean = sum(powers[1:], start=powers[0]) / len(powers)
            return download(normalize(self._power(mean, 1 / self.scale_power), dim=-1), regions)

    def _descriptors(self, landing: Landing, batch: list[PreparedPhoto]) -> list[GlobalFeatures]:
        descriptor, region = landing.arrays()
        if not np.isfinite(descriptor).all():
            raise LmrError(
                "the network's numbers overflow",
                got=f"{self.dtype} on {self.device}",
                fix='give precision="bfloat16" or "float32", and check that the weights fit the architecture',
            )
        return [GlobalFeatures(*pair) for pair in zip(descriptor, region, strict=True)]

    def _power(self, vectors: Tensor, power: float) -> Tensor:
        if len(self.scales) == 1:
            return vectors
        return vectors.sign() * vectors.abs().clamp(min=self.scale_least).pow(power)

    def _input(self, photos: Sequence[Photo]) -> Tensor:
        return upload(photos, self.device).div_(255).sub_(self.mean).div_(self.std)

    def _shrunk(self, photo: Photo) -> Photo:
        """Shrink to the longest side allowed; stretch a side that the smallest scale would lose."""
        least = least_side(LEAST_SIDE_PX, self.scales)
        if max(photo.shape) > self.max_side_px:
            image = Image.fromarray(photo)
            image.thumbnail((self.max_side_px, self.max_side_px), Image.Resampling.LANCZOS)
            photo = np.asarray(image)
        height, width = photo.shape[:2]
        return resized(photo, max(width, least), max(height, least))

    def _dimension(self) -> int:
        if self.network.head is not None:
            return self.network.head.out_features
        with torch.inference_mode():
            blank = torch.zeros(1, 3, LEAST_SIDE_PX, LEAST_SIDE_PX, device=self.device)
            return self.network.features(blank).shape[-1]


def load_gem(
    weights: str | PathLike[str],
    *,
    architecture: str | None = None,
    input: Input = "imagenet",
    p: float = 3.0,
    max_side_px: int = 1024,
    scales: Sequence[float] = PAPER_SCALES,
    sizes_px: Sequence[int] | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    batch_pixels: int | None = None,
) -> GemExtractor:
    """Load weights and return their extractor.

    Parameters
    ----------
    weights
        A checkpoint of cnnimageretrieval-pytorch or deep-image-retrieval, or a torchvision state dict (.pth
        or .safetensors).
    architecture, input, p
        Of a torchvision state dict, which does not say: one of `ARCHITECTURES`; pixels normalised by
        ImageNet's mean and deviation ("imagenet") or to -1 .. 1 ("half"); GeM's power. Checkpoints know
        their own, and theirs count.
    max_side_px
        Long side to which larger photos are shrunk first.
    scales
        Of the shrunk photo; the descriptor is their power mean.
    sizes_px
        In place of `max_side_px` and `scales`: the long sides, for photos at least as large as the largest.
        Smaller photos keep their size, and the ratios of the sizes.
    device
        "cpu", "cuda" or "cuda:1".
    precision
        Of the convolutions: float32 on CPUs and float16 on GPUs unless given.
    batch_pixels
        Most pixels in a pass through the network. It is halved when memory runs out.

    Raises
    ------
    LmrError
        If the weights cannot be read or are not of the architecture, a size is out of range, or there is no
        such device.
    """
    if input not in INPUTS:
        raise LmrError("unknown input", got=repr(input), fix='choose "imagenet" or "half"')
    mean, std = INPUTS[input]
    checkpoint = read_global_checkpoint(weights, architecture=architecture, p=p, mean=mean, std=std)
    return GemExtractor(
        checkpoint,
        max_side_px=max_side_px,
        scales=scales,
        sizes_px=sizes_px,
        device=device,
        precision=precision,
        batch_pixels=batch_pixels,
    )


def _trunk(checkpoint: GlobalCheckpoint) -> nn.Module:
    """Return the network without its classifier, with the checkpoint's tensors in place."""
    architecture = checkpoint.architecture
    if architecture not in ARCHITECTURES:
        raise LmrError("unknown architecture", got=architecture, fix=f"known are {', '.join(ARCHITECTURES)}")
    with torch.device("meta"):  # no memory, and no time for random weights
        trunk = Lite0() if architecture == "efficientnet_lite0" else _without_classifier(architecture)
    try:
        trunk.load_state_dict(checkpoint.trunk, strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise LmrError(
            f"these weights are not of {architecture}",
            got=" ".join(lines[1:3])[:300],
            fix="name the architecture that they are of",
        ) from error
    return trunk.float()


def _without_classifier(architecture: str) -> nn.Module:
    whole = getattr(torchvision().models, architecture)(weights=None)
    if architecture.startswith("resnet"):
        return nn.Sequential(*list(whole.children())[:-2])
    if architecture.startswith("vgg"):
        return cast("nn.Module", whole.features[:-1])  # the last ReLU's map, not its max-pool
    return cast("nn.Module", whole.features)


def _layer(tensors: Linear | None) -> nn.Linear | None:
    if tensors is None:
        return None
    weight, bias = tensors
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer


@lru_cache(maxsize=64)
def _means(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return (r, rows * columns) float32: each of R-MAC's boxes as the weights of the mean over its cells.

    Kept on the device: a copy to it would wait for all that is queued there.
    """
    return torch.from_numpy(box_means(rows, columns)).to(device)


def _center_weights(features: Tensor, bias: float) -> Tensor:
    """Return (rows, columns, 1): 1 at the border, 1 + bias in the middle third, linear between."""
    corners = torch.ones(1, 1, 4, 4, device=features.device)
    corners[..., 1:3, 1:3] += bias
    size = (features.shape[1], features.shape[2])
    return interpolate(corners, size=size, mode="bilinear", align_corners=True)[0, 0, :, :, None]
