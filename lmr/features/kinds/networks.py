"""Global descriptors of networks: GeM by torch, EfficientNet-Lite0 without torch, anyone's ONNX model."""

from typing import TYPE_CHECKING

from lmr.errors import LmrError
from lmr.features.kinds._kind import TORCH, GlobalKind, GlobalRequest, needs_torch
from lmr.features.settings import GemSettings
from lmr.features.weights.packaged import LITE0

if TYPE_CHECKING:
    from lmr.features.interfaces import GlobalExtractor

__all__ = ["KINDS"]


def _gem(request: GlobalRequest) -> "GlobalExtractor":
    with needs_torch():
        from lmr.features.networks.gem import load_gem

    settings = request.gem
    return load_gem(
        request.weights or "",
        architecture=settings.architecture,
        input=settings.input,
        p=settings.p,
        max_side_px=max(settings.sizes_px, default=0),
        scales=settings.scales,
        sizes_px=None if settings.scales else settings.sizes_px,
        device=request.device,
        precision=None if settings.precision == "auto" else settings.precision,
    )


def _lite0(request: GlobalRequest) -> "GlobalExtractor":
    gem = request.gem
    if request.device != "cpu":  # torch has GPUs, with the same numbers
        gem = GemSettings(
            architecture="efficientnet_lite0",
            input="half",
            p=gem.p,
            sizes_px=_sizes(gem),
            precision=gem.precision,
        )
        return _gem(GlobalRequest(gem=gem, weights=LITE0.path(), device=request.device))
    if gem.precision not in ("auto", "float32"):
        raise LmrError(
            "lite0 runs in float32 on CPUs", got=gem.precision, fix="leave describe.gem.precision out"
        )
    from lmr.features.networks.onnx_models import load_lite0

    return load_lite0(p=gem.p, sizes_px=_sizes(gem), cache=request.cache)


def _sizes(gem: GemSettings) -> tuple[int, ...]:
    largest = max(gem.sizes_px, default=0)
    return tuple(round(scale * largest) for scale in gem.scales) or gem.sizes_px


def _onnx(request: GlobalRequest) -> "GlobalExtractor":
    from lmr.features.networks.onnx_models import load_onnx

    return load_onnx(request.weights or "", request.onnx)


KINDS = (
    GlobalKind(
        name="gem",
        what="GeM over a network of --weights: cnnimageretrieval-pytorch, deep-image-retrieval, torchvision",
        open=_gem,
        needs_weights=True,
        modules=TORCH,
        on_gpus=TORCH,
        settings=("gem",),
    ),
    GlobalKind(
        name="lite0",
        what="GeM over EfficientNet-Lite0, whose weights come with lmr; needs no torch on CPUs",
        open=_lite0,
        weights=LITE0.url,
        dimension=1280,
        on_gpus=TORCH,
        settings=("gem",),
    ),
    GlobalKind(
        name="onnx",
        what="your own network, an ONNX model of --weights; needs no torch",
        open=_onnx,
        needs_weights=True,
        modules=("onnxruntime",),
        settings=("onnx",),
    ),
)
