"""What the table of extractors says of each."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lmr.errors import ClusterError
from lmr.features.settings import GemSettings, OnnxSettings, Precision

if TYPE_CHECKING:
    from lmr.features.interfaces import GlobalExtractor, LocalExtractor

__all__ = [
    "Aggregation",
    "GlobalKind",
    "GlobalRequest",
    "LocalKind",
    "LocalRequest",
    "TORCH",
    "needs_torch",
]

TORCH = ("torch",)
Recommended = Mapping[str, Mapping[str, Any]]
"""Values by step and setting, such as {"verify": {"min_inliers": 20}}."""


@dataclass(frozen=True, kw_only=True)
class LocalRequest:
    """How a local extractor is to be opened.

    Attributes
    ----------
    max_features
        Features kept per photo, the strongest first.
    max_side_px
        Long side, pixels, to which photos are shrunk before extraction.
    weights
        The file (of DELF, the folder of the released model) on this machine; None where none are needed.
    device
        "cpu" or "cuda".
    precision
        The type of numbers in convolutions.
    """

    max_features: int = 1000
    max_side_px: int = 800
    weights: Path | None = None
    device: str = "cpu"
    precision: Precision = "auto"


@dataclass(frozen=True, kw_only=True)
class GlobalRequest:
    """How a network for global descriptors is to be opened.

    Attributes
    ----------
    gem
        Sizes, and what a torch file does not say of itself.
    onnx
        What an ONNX model does not say of itself.
    weights
        The file on this machine; None where none are needed.
    device
        "cpu" or "cuda".
    cache
        Folder for what is derived from weights.
    """

    gem: GemSettings = field(default_factory=GemSettings)
    onnx: OnnxSettings = field(default_factory=OnnxSettings)
    weights: Path | None = None
    device: str = "cpu"
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LocalKind:
    """A kind of local features.

    Attributes
    ----------
    name
        The value of `--local`.
    what
        One line for people.
    dimension
        Numbers in a descriptor.
    open
        Makes the extractor.
    stored
        The type of a descriptor's numbers.
    needs_weights
        Whether a file of weights has to be given.
    modules
        What has to be installed beside lmr's base.
    on_gpus
        Whether it can use a GPU; the others run on CPUs wherever networks run.
    settings
        The settings of `local` that it heeds beside `max_features` and `max_side_px`.
    recommended
        Values that were calibrated for it, of any step; the user's own come before them.
    """

    name: str
    what: str
    dimension: int
    open: Callable[[LocalRequest], "LocalExtractor"]
    stored: Literal["uint8", "float16"] = "float16"
    needs_weights: bool = True
    modules: tuple[str, ...] = TORCH
    on_gpus: bool = True
    settings: tuple[str, ...] = ()
    recommended: Recommended = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """A global descriptor that is made of a photo's local features.

    Attributes
    ----------
    learn
        Learns a vocabulary from descriptors (n, d), a number of words and a seed.
    photos, regions
        Describe photos, and a photo's regions, by a vocabulary.
    vocabulary
        The dataclass that holds one.
    """

    learn: Callable[..., Any]
    photos: Callable[..., Any]
    regions: Callable[..., Any]
    vocabulary: type[Any]


@dataclass(frozen=True, kw_only=True)
class GlobalKind:
    """A kind of global descriptor: of a network, or made of local features.

    Attributes
    ----------
    name
        The value of `--global`.
    what
        One line for people.
    open
        Makes the extractor of a network.
    aggregation
        Returns how local features are aggregated, in place of `open`.
    weights
        The address of weights that come in an installed package; empty: none do.
    needs_weights
        Whether a file of weights has to be given.
    dimension
        Numbers of a network's descriptor before whitening; None: its weights decide.
    modules
        What has to be installed beside lmr's base.
    on_gpus
        What has to be installed where it uses a GPU; None: it cannot use one.
    settings
        The settings of `describe` that it heeds beside those of whitening.
    recommended
        Values that were calibrated for it, of any step; the user's own come before them.
    """

    name: str
    what: str
    open: Callable[[GlobalRequest], "GlobalExtractor"] | None = None
    aggregation: Callable[[], Aggregation] | None = None
    weights: str = ""
    needs_weights: bool = False
    dimension: int | None = None
    modules: tuple[str, ...] = ()
    on_gpus: tuple[str, ...] | None = None
    settings: tuple[str, ...] = ()
    recommended: Recommended = field(default_factory=dict)


@contextmanager
def needs_torch() -> Iterator[None]:
    """Turn a failed import into an error that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClusterError(
            "this worker cannot run networks",
            got=str(error),
            fix="install the extra on it: pip install 'lmr[features]'",
        ) from error
