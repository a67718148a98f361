"""Learned local features of recent years, small and fast: XFeat and ALIKED, with kornia's networks.

Potje, Cadar, Araujo, Martins and Nascimento, *XFeat: accelerated features for lightweight image matching*
(CVPR 2024); Zhao et al., *ALIKED: a lighter keypoint and descriptor extraction network via deformable
transformation* (IEEE TIM 2023). Weights are read from files; nothing is fetched.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from kornia.feature import ALIKED, XFeat
from numpy.typing import NDArray
from torch import Tensor, nn

from lmr.errors import LmrError, one_line
from lmr.features.interfaces import LocalFeatures, Photo
from lmr.features.networks.batches import Batches, Landing, download, upload
from lmr.features.networks.devices import compute_device
from lmr.features.prepared import PreparedPhoto, checked, extract_each, shrunk, shrunk_size
from lmr.features.weights.files import read_safetensors, read_torch_file

__all__ = ["LearnedExtractor", "load_aliked", "load_xfeat"]

Detect = Callable[[Tensor], list[tuple[Tensor, Tensor, Tensor]]]
"""From images (n, 3, height, width) in 0 .. 1 to (k, 2) x and y, (k,) score, (k, d) unit rows, of each."""

SMALLEST_SIDE_PX = 16  # photos with a shorter side have no features
NORM_EPSILON = 1e-5  # torch's own
UNUSED = ("num_batches_tracked", "fine_matcher", "hw_grid")  # for training, for matching, a constant
TIED = 32
# On a CPU one photo at a time: rounding differs with the size of a batch, and with it which of nearly equal
# features are kept, and their order. A batch is not quicker there.
BATCH_PIXELS = {"cuda": 16 * 1024 * 1024, "cpu": 1}


class LearnedExtractor:
    """Extracts XFeat or ALIKED; a `LocalExtractor`. `load_xfeat` and `load_aliked` make one from a file.

    Networks run in float32: they are small, and keypoints move with the rounding of lower precisions.
    """

    def __init__(
        self,
        detect: Detect,
        *,
        name: str,
        dimension: int,
        patch_px: float,
        max_side_px: int,
        device: torch.device,
        batch_pixels: int | None,
    ) -> None:
        self.detect, self.name, self.dimension, self.patch_px = detect, name, dimension, patch_px
        self.max_side_px, self.device = max_side_px, device
        self.needs_gpu = device.type == "cuda"
        self.storage: np.dtype[np.uint8] | np.dtype[np.float16] = np.dtype(np.float16)
        self.batches = Batches(batch_pixels or BATCH_PIXELS[device.type])

    def __call__(self, photos: Sequence[Photo]) -> list[LocalFeatures]:
        """Extract the features of each photo, strongest first; `scale` is the side of a cell of the network.

        Raises
        ------
        LmrError
            If a photo is not (height, width, 3) uint8, or memory does not suffice for one.
        """
        return extract_each(photos, self.prepare, self.stream)

    def prepare(self, photo: Photo) -> PreparedPhoto:
        """Return the photo as the network takes it: shrunk to `max_side_px`."""
        return PreparedPhoto((shrunk(checked(photo), self.max_side_px),), photo.shape[:2])

    def stream(self, photos: Iterable[PreparedPhoto]) -> Iterator[LocalFeatures]:
        """Yield the features of photos that `prepare` returned."""
        return self.batches.run(photos, self._launch, self._local)

    def inputs(self, batch: Sequence[PreparedPhoto]) -> Tensor:
        """Return the network's input of photos of one size."""
        return upload([photo.images[0] for photo in batch], self.device).div_(255)

    def _launch(self, batch: list[PreparedPhoto]) -> Landing:
        """Queue the features of photos of one size, strongest first: xy, score, descriptor of each photo."""
        if min(batch[0].shapes[0][:2]) < SMALLEST_SIDE_PX:
            none = (torch.empty(0, 2), torch.empty(0), torch.empty(0, self.dimension, dtype=torch.half))
            return download(*none * len(batch))
        with torch.inference_mode():
            tensors = []
            for xy, score, descriptor in self.detect(self.inputs(batch)):
                order = _strongest_first(xy, score)
                tensors += [xy[order].float(), score[order], descriptor[order].half()]
            return download(*tensors)

    def _local(self, landing: Landing, batch: list[PreparedPhoto]) -> list[LocalFeatures]:
        arrays = landing.arrays()
        found = zip(batch, arrays[::3], arrays[1::3], arrays[2::3], strict=True)
        return [self._placed(photo.size, *one) for photo, *one in found]

    def _placed(
        self,
        size: tuple[int, int],
        xy: NDArray[np.float32],
        score: NDArray[np.float32],
        descriptor: NDArray[np.float16],
    ) -> LocalFeatures:
        """Return features in the frame of the photo as it was given."""
        height, width = shrunk_size(size, self.max_side_px)
        zoom = np.array([size[1] / width, size[0] / height], np.float32)
        return LocalFeatures(
            # The centre of the first pixel is 0 in both frames, its left edge -0.5.
            xy=((xy + 0.5) * zoom - 0.5).astype(np.float32),
            scale=np.full(len(xy), self.patch_px * np.sqrt(zoom.prod()), np.float32),
            orientation=np.zeros(len(xy), np.float32),
            score=score,
            descriptor=descriptor,
        )


def _strongest_first(xy: Tensor, score: Tensor) -> Tensor:
    """Return the order of features, (n,): the strongest first, of equals the uppermost and leftmost.

    The network's own order of equals depends on what else is in the batch.
    """
    order = xy[:, 0].argsort(stable=True)
    order = order[xy[order, 1].argsort(stable=True)]
    return order[score[order].argsort(descending=True, stable=True)]


def load_xfeat(
    weights: str | PathLike[str],
    *,
    max_features: int = 1000,
    max_side_px: int = 1024,
    threshold: float = 0.05,
    device: str = "cpu",
    batch_pixels: int | None = None,
) -> LearnedExtractor:
    """Load XFeat and return its extractor, of 64-d descriptors.

    Parameters
    ----------
    weights
        The published state dict (.pt), the same as .safetensors, or an .npz with the batch norms folded into
        the convolutions ("block1.0.weight" and "block1.0.bias" where the state dict has four tensors).
    max_features, threshold
        Features kept of a photo: the strongest, with a keypoint probability above this.
    max_side_px
        Long side to which larger photos are shrunk first. Coordinates are those of the photo as given.
    device, batch_pixels
        "cpu", "cuda" or "cuda:1"; most pixels in a pass, halved when memory runs out.

    Raises
    ------
    LmrError
        If the weights cannot be read or are not of XFeat, a setting is out of range, or there is no such
        device.
    """
    weights = Path(weights)
    _check(max_features, max_side_px)
    where = compute_device(device)
    # A few more, so that of those as strong as the last one the same are kept in every batch.
    network = XFeat(top_k=max_features + TIED, detection_threshold=threshold)
    state = _read(weights)
    _load(network.net, _unfolded(network.net, state) if weights.suffix == ".npz" else state, weights)
    network = network.requires_grad_(False).eval().to(where)

    def detect(images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        height, width = images.shape[2:]
        # XFeat works on sides that are multiples of 32, and maps corners to corners; here centres to centres.
        ratio = [side / max(32, side // 32 * 32) for side in (width, height)]
        shift = torch.tensor([(r - 1) / 2 for r in ratio], device=images.device)
        found = network.detectAndCompute(images)
        kept = [_strongest_first(one["keypoints"], one["scores"])[:max_features] for one in found]
        return [
            (one["keypoints"][rows] + shift, one["scores"][rows], one["descriptors"][rows])
            for one, rows in zip(found, kept, strict=True)
        ]

    return LearnedExtractor(
        detect,
        name="xfeat",
        dimension=64,
        patch_px=8.0,
        max_side_px=max_side_px,
        device=where,
        batch_pixels=batch_pixels,
    )


def load_aliked(
    weights: str | PathLike[str],
    *,
    variant: str = "aliked-n16",
    max_features: int = 1000,
    max_side_px: int = 1024,
    device: str = "cpu",
    batch_pixels: int | None = None,
) -> LearnedExtractor:
    """Load ALIKED and return its extractor, of 128-d descriptors (64-d for aliked-t16).

    Parameters
    ----------
    weights
        The published state dict (.pth), or the same as .safetensors.
    variant
        Which network: aliked-t16, aliked-n16, aliked-n16rot or aliked-n32.
    max_features
        Features kept of a photo: the strongest.
    max_side_px
        Long side to which larger photos are shrunk first. Coordinates are those of the photo as given.
    device, batch_pixels
        "cpu", "cuda" or "cuda:1"; most pixels in a pass, halved when memory runs out.

    Raises
    ------
    LmrError
        If the weights cannot be read or are not of the variant, a setting is out of range, or there is no
        such device.
    """
    weights = Path(weights)
    _check(max_features, max_side_px)
    where = compute_device(device)
    try:
        # Without a threshold, the strongest local maxima are kept.
        network = ALIKED(variant, max_num_keypoints=max_features, detection_threshold=0.0)
    except ValueError as error:
        raise LmrError("unknown ALIKED", got=variant, fix="give for instance aliked-n16") from error
    _load(network, _read(weights), weights)
    network = network.requires_grad_(False).eval().to(where)

    def detect(images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [(one.keypoints, one.keypoint_scores, one.descriptors) for one in network(images)]

    return LearnedExtractor(
        detect,
        name=variant,
        dimension=64 if variant == "aliked-t16" else 128,
        patch_px=8.0,
        max_side_px=max_side_px,
        device=where,
        batch_pixels=batch_pixels,
    )


def _check(max_features: int, max_side_px: int) -> None:
    if max_features < 1 or max_side_px < SMALLEST_SIDE_PX:
        raise LmrError(
            "features cannot be extracted with these settings",
            got=f"max_features = {max_features}, max_side_px = {max_side_px}",
            fix=f"give max_features of at least 1, max_side_px of at least {SMALLEST_SIDE_PX}",
        )


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix != ".npz":
        state = read_torch_file(path)
        if isinstance(state, Mapping):
            return state
        raise LmrError(f"{path} is no state dict", got=type(state).__name__, fix="give the published weights")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # of a damaged archive: OSError, zlib's and zipfile's own, struct's, …
        raise LmrError(f"cannot read {path}", got=one_line(error), fix="fetch it again") from error


def _unfolded(network: nn.Module, folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which each norm adds the bias that folding left, and does nothing else."""
    state = {}
    for name, tensor in folded.items():
        layer, _, kind = name.rpartition(".")
        if f"{layer}.layer.0.weight" not in network.state_dict():
            state[name] = tensor  # a convolution without a norm
        elif kind == "weight":
            state[f"{layer}.layer.0.weight"] = tensor
        else:
            state[f"{layer}.layer.1.running_mean"] = -tensor
            state[f"{layer}.layer.1.running_var"] = torch.full_like(tensor, 1 - NORM_EPSILON)
    return state


def _load(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load all tensors that extraction needs."""
    try:
        result = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _foreign(path, network, str(error)) from error
    missing, unexpected = (
        [name for name in names if not any(part in name for part in UNUSED)]
        for names in (result.missing_keys, result.unexpected_keys)
    )
    if missing or unexpected:
        raise _foreign(path, network, f"missing {missing[:3]}, unexpected {unexpected[:3]}")


def _foreign(path: Path, network: nn.Module, got: str) -> LmrError:
    return LmrError(
        f"{path} is not of {type(network).__name__}", got=got[:300], fix="give the published weights"
    )
