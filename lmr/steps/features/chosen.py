"""The extractor that a step runs: what of it counts for fingerprints, and what goes along with the tasks."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lmr.errors import LmrError
from lmr.features.extractors import OwnCode
from lmr.steps.features.weights import Weights

__all__ = ["ChosenExtractor"]

EXTRAS = {"torch": "'lmr[features]'"}  # which of lmr's extras brings a module


@dataclass(frozen=True, kw_only=True)
class ChosenExtractor:
    """What an extractor needs wherever it runs.

    Attributes
    ----------
    name
        Its kind, or the module and class of one's own code.
    weights
        Of its network, if it has any.
    code
        One's own code, if it is that.
    device
        Where it runs: "cpu" or "cuda".
    modules
        What has to be installed beside lmr's base.
    """

    name: str
    weights: Weights | None = None
    code: OwnCode | None = None
    device: str = "cpu"
    modules: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What counts for fingerprints beside settings: the weights, and the source of one's own code."""
        digests = [part.digest for part in (self.weights, self.code) if part is not None]
        return "+".join(digests)

    def of_step(self) -> Mapping[str, Any]:
        """Return the arguments of a step that runs it; its shard function takes weights, device and code."""
        check = partial(_check, self.weights, self.modules)
        return {
            "weights": self.digest,
            "resources": {"CPU": 1} if self.device == "cpu" else {"GPU": 1},
            "implied": {"code": self.code} if self.code else {},
            "placement": {"weights": self.weights, "device": self.device},
            "check": check if self.weights or self.modules else None,
        }


def _check(weights: Weights | None, modules: tuple[str, ...]) -> None:
    """Refuse a machine that lacks a module, or has other weights at their place."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            extra = EXTRAS.get(module, module)
            raise LmrError(f"{module} is not installed", fix=f"pip install {extra} on this machine")
    if weights is not None:
        weights.check()
