"""The two small interfaces behind which every extractor stands, and what they return."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["GlobalExtractor", "GlobalFeatures", "LocalExtractor", "LocalFeatures", "Photo"]

Photo = NDArray[np.uint8]
"""A decoded photo: (height, width, 3) uint8 RGB, upright."""


@dataclass(frozen=True)
class LocalFeatures:
    """The local features of one photo, strongest first.

    Attributes
    ----------
    xy
        (n, 2) float32, pixels (x, y) in the photo as given to the extractor.
    scale
        (n,) float32, diameter or scale of the described patch in pixels of the same frame.
    orientation
        (n,) float32, radians; zeros where the features have none.
    score
        (n,) float32, the detector's strength, larger is stronger.
    descriptor
        (n, d) uint8 or float16 as stored. Searching and matching use its L2-normalised float32 form.
    """

    xy: NDArray[np.float32]
    scale: NDArray[np.float32]
    orientation: NDArray[np.float32]
    score: NDArray[np.float32]
    descriptor: NDArray[np.uint8] | NDArray[np.float16]


@dataclass(frozen=True)
class GlobalFeatures:
    """The global descriptor of one photo and of its regions, before any whitening.

    Attributes
    ----------
    descriptor
        (d,) float32, unit length.
    regions
        (r, d) float32, unit rows, one per cell of the R-MAC grid (`lmr.features.regions`).
    """

    descriptor: NDArray[np.float32]
    regions: NDArray[np.float32]


class LocalExtractor(Protocol):
    """Extracts local features from decoded photos."""

    name: str
    dimension: int
    storage: np.dtype[np.uint8] | np.dtype[np.float16]
    needs_gpu: bool

    def __call__(self, photos: Sequence[Photo]) -> list[LocalFeatures]:
        """Return one `LocalFeatures` per photo, in order."""
        ...

    def prepare(self, photo: Photo) -> Any:
        """Do what can be done of one photo beside the network; called from several threads."""
        ...

    def stream(self, photos: Iterable[Any]) -> Iterator[LocalFeatures]:
        """Yield one `LocalFeatures` per prepared photo, in order, taking photos as they are needed."""
        ...


class GlobalExtractor(Protocol):
    """Extracts global and regional descriptors from decoded photos."""

    name: str
    dimension: int
    needs_gpu: bool

    def __call__(self, photos: Sequence[Photo]) -> list[GlobalFeatures]:
        """Return one `GlobalFeatures` per photo, in order."""
        ...

    def prepare(self, photo: Photo) -> Any:
        """Do what can be done of one photo beside the network; called from several threads."""
        ...

    def whitening(self, name: str = "") -> Callable[..., NDArray[np.floating[Any]]]:
        """Return a whitening that came with the weights: of descriptors (n, d), `dimension` numbers each."""
        ...

    def stream(self, photos: Iterable[Any]) -> Iterator[GlobalFeatures]:
        """Yield one `GlobalFeatures` per prepared photo, in order, taking photos as they are needed."""
        ...
