"""RootSIFT."""

from typing import TYPE_CHECKING

from lmr.features.kinds._kind import LocalKind, LocalRequest

if TYPE_CHECKING:
    from lmr.features.interfaces import LocalExtractor

__all__ = ["KINDS"]


def _open(request: LocalRequest) -> "LocalExtractor":
    from lmr.features.local.rootsift import RootSift

    return RootSift(max_features=request.max_features, max_side_px=request.max_side_px)


KINDS = (
    LocalKind(
        name="rootsift",
        what="SIFT with square roots; needs no network",
        dimension=128,
        stored="uint8",
        open=_open,
        needs_weights=False,
        modules=(),
        on_gpus=False,
        recommended={"verify": {"min_inliers": 10}},
    ),
)
