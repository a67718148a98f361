"""XFeat and ALIKED: small learned features."""

from typing import TYPE_CHECKING

from lmr.errors import LmrError
from lmr.features.kinds._kind import LocalKind, LocalRequest, needs_torch

if TYPE_CHECKING:
    from lmr.features.interfaces import LocalExtractor

__all__ = ["KINDS"]


def _xfeat(request: LocalRequest) -> "LocalExtractor":
    with needs_torch():
        from lmr.features.local.learned import load_xfeat

    _float32_only("xfeat", request)
    return load_xfeat(
        request.weights or "",
        max_features=request.max_features,
        max_side_px=request.max_side_px,
        device=request.device,
    )


def _aliked(variant: str, request: LocalRequest) -> "LocalExtractor":
    with needs_torch():
        from lmr.features.local.learned import load_aliked

    _float32_only(variant, request)
    return load_aliked(
        request.weights or "",
        variant=variant,
        max_features=request.max_features,
        max_side_px=request.max_side_px,
        device=request.device,
    )


def _float32_only(kind: str, request: LocalRequest) -> None:
    if request.precision not in ("auto", "float32"):
        raise LmrError(f"{kind} runs in float32 only", got=request.precision, fix="leave local.precision out")


KINDS = (
    LocalKind(
        name="xfeat",
        what="a small and fast network (CVPR 2024)",
        dimension=64,
        open=_xfeat,
        settings=("storage",),
        recommended={"verify": {"min_inliers": 20}},
    ),
    LocalKind(
        name="aliked-t16",
        what="a small network with deformable descriptors, the tiny one",
        dimension=64,
        open=lambda request: _aliked("aliked-t16", request),
        settings=("storage",),
    ),
    LocalKind(
        name="aliked-n16",
        what="a small network with deformable descriptors, the normal one",
        dimension=128,
        open=lambda request: _aliked("aliked-n16", request),
        settings=("storage",),
    ),
)
