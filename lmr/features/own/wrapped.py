"""One's own extractors behind lmr's interfaces: tried before a run, and checked on every photo."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lmr.errors import LmrError
from lmr.features.interfaces import GlobalFeatures, LocalFeatures, Photo
from lmr.features.own.code import OwnCode, failed
from lmr.features.unit import unit_rows

__all__ = ["OwnGlobal", "OwnLocal"]

TRIAL_SIZE = (192, 256)  # of the photo on which code is tried before a run
STORED = (np.uint8, np.float16)


class _Own:
    """What one's own extractors have in common: they are given photos, one call per photo."""

    def __init__(self, code: OwnCode, options: Mapping[str, Any]) -> None:
        self.code, self.name = code, code.name
        self.extractor = code.make(options)
        self.needs_gpu = bool(getattr(self.extractor, "needs_gpu", options.get("device", "cpu") != "cpu"))
        if not callable(self.extractor):
            self._refuse(
                f"a {type(self.extractor).__name__} that cannot be called", "define __call__(photos)"
            )

    def prepare(self, photo: Photo) -> Photo:
        """Return the photo as it is."""
        return photo

    def _call(self, photo: Photo) -> Any:
        try:
            made = self.extractor([photo])
        except LmrError:
            raise
        except Exception as error:  # anything may go wrong in other people's code
            raise failed(self.code, f"failed on a photo of shape {photo.shape}", error) from error
        if not isinstance(made, Sequence | np.ndarray) or len(made) != 1:
            self._refuse(_said(made), "return a list with one result per photo")
        return made[0]

    def _refuse(self, got: str, fix: str) -> NoReturn:
        raise LmrError(f"{self.name} is not such an extractor as lmr needs", got=got, fix=fix)

    def _declared_dimension(self) -> int | None:
        dimension = getattr(self.extractor, "dimension", None)
        if dimension is None:
            return None
        if not isinstance(dimension, int) or dimension < 1:
            self._refuse(f"dimension = {dimension!r}", "make it a whole number of at least 1")
        return dimension

    def _rows(self, what: str, values: Any, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Return values as an array if they are finite numbers of this shape (None: any length)."""
        array = np.asarray(values)
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, side) for side, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype.kind not in "fiu":
            wanted = "(" + ", ".join("n" if side is None else str(side) for side in shape) + ",)"
            self._refuse(
                f"{what} of shape {array.shape}, {array.dtype}", f"return {what} as {wanted} numbers"
            )
        if not np.isfinite(array.astype(np.float32)).all():
            self._refuse(f"{what} with NaN or infinity", "return finite numbers")
        return array


class OwnLocal(_Own):
    """One's own local features; a `LocalExtractor`.

    The code returns one `LocalFeatures` per photo, strongest first; more than `max_features` are cut off.
    Descriptors are kept as they are if uint8 or float16; float32 is rounded to float16.
    """

    def __init__(self, code: OwnCode, max_features: int, options: Mapping[str, Any]) -> None:
        super().__init__(code, options)
        self.max_features = max_features
        self._dimension: int | None = self._declared_dimension()
        self._storage: np.dtype[Any] | None = None
        tried = self._features(_trial_photo())
        self.dimension = int(self._dimension or tried.descriptor.shape[1])
        self.storage: np.dtype[np.uint8] | np.dtype[np.float16] = tried.descriptor.dtype
        self._dimension, self._storage = self.dimension, self.storage

    def __call__(self, photos: Sequence[Photo]) -> list[LocalFeatures]:
        """Return the features of each photo.

        Raises
        ------
        LmrError
            If the code fails, or returns something else.
        """
        return [self._features(photo) for photo in photos]

    def stream(self, photos: Iterable[Photo]) -> Iterator[LocalFeatures]:
        """Yield the features of each photo."""
        return map(self._features, photos)

    def _features(self, photo: Photo) -> LocalFeatures:
        made = self._call(photo)
        parts = ("xy", "scale", "orientation", "score", "descriptor")
        lacking = [part for part in parts if not hasattr(made, part)]
        if lacking:
            self._refuse(_said(made), "return lmr.features.interfaces.LocalFeatures")
        xy = self._rows("xy", made.xy, (None, 2))
        n = len(xy)
        descriptor = self._rows("descriptor", made.descriptor, (n, self._dimension))
        if descriptor.dtype not in STORED:
            if descriptor.dtype.kind != "f":
                self._refuse(f"descriptors of {descriptor.dtype}", "return uint8, float16 or float32")
            descriptor = descriptor.astype(np.float16)
        if self._storage is not None and descriptor.dtype != self._storage:
            self._refuse(
                f"descriptors of {descriptor.dtype}, before of {self._storage}", "return one type always"
            )
        scale, orientation, score = (
            self._rows(part, getattr(made, part), (n,)).astype(np.float32)[: self.max_features]
            for part in parts[1:4]
        )
        return LocalFeatures(
            xy=xy.astype(np.float32)[: self.max_features],
            scale=scale,
            orientation=orientation,
            score=score,
            descriptor=descriptor[: self.max_features],
        )


class OwnGlobal(_Own):
    """One's own global descriptor; a `GlobalExtractor`.

    The code returns one `GlobalFeatures` per photo, or an array with one row per photo, which then has no
    regions but itself. Rows are made unit.
    """

    def __init__(self, code: OwnCode, options: Mapping[str, Any]) -> None:
        super().__init__(code, options)
        self._dimension: int | None = self._declared_dimension()
        self.dimension = len(self._features(_trial_photo()).descriptor)
        self._dimension = self.dimension

    def __call__(self, photos: Sequence[Photo]) -> list[GlobalFeatures]:
        """Return the descriptors of each photo.

        Raises
        ------
        LmrError
            If the code fails, or returns something else.
        """
        return [self._features(photo) for photo in photos]

    def stream(self, photos: Iterable[Photo]) -> Iterator[GlobalFeatures]:
        """Yield the descriptors of each photo."""
        return map(self._features, photos)

    def whitening(self, name: str = "") -> NoReturn:
        """Raise: own code brings no whitening.

        Raises
        ------
        LmrError
            Always.
        """
        raise LmrError(
            f"{self.name} comes without a whitening", fix="--set describe.whitening=gallery learns one"
        )

    def _features(self, photo: Photo) -> GlobalFeatures:
        made = self._call(photo)
        row = self._rows("descriptor", getattr(made, "descriptor", made), (self._dimension,))
        regions = getattr(made, "regions", None)
        rows = row[None] if regions is None else self._rows("regions", regions, (None, len(row)))
        return GlobalFeatures(unit_rows(row[None])[0], unit_rows(rows))


def _trial_photo() -> Photo:
    """Return a photo with blobs of all sizes, on which most detectors find something."""
    rng = np.random.default_rng(0)
    noise = sum(
        np.kron(rng.random((TRIAL_SIZE[0] // s, TRIAL_SIZE[1] // s, 3)), np.ones((s, s, 1)))
        for s in (4, 16, 64)
    )
    return (np.asarray(noise) * 85).astype(np.uint8)


def _said(made: Any) -> str:
    return f"{type(made).__name__} of length {len(made)}" if hasattr(made, "__len__") else type(made).__name__
