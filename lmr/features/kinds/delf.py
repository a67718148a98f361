"""DELF."""

from typing import TYPE_CHECKING

from lmr.features.kinds._kind import LocalKind, LocalRequest, needs_torch

if TYPE_CHECKING:
    from lmr.features.interfaces import LocalExtractor

__all__ = ["KINDS"]


def _open(request: LocalRequest) -> "LocalExtractor":
    with needs_torch():
        from lmr.features.local.delf import load_delf

    return load_delf(
        request.weights or "",
        max_features=request.max_features,
        max_side_px=request.max_side_px,
        device=request.device,
        precision=None if request.precision == "auto" else request.precision,
    )


KINDS = (
    LocalKind(
        name="delf",
        what="the paper's features: ResNet-50 with attention, as released for landmarks",
        dimension=40,
        open=_open,
        settings=("precision", "storage"),
        recommended={"verify": {"min_inliers": 40}},
    ),
)
