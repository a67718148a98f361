"""What a run starts from."""

from dataclasses import dataclass, replace

from lmr.errors import SettingsError
from lmr.runtime.steps import Given
from lmr.steps.both import Both
from lmr.steps.calibration import Calibration
from lmr.steps.features.own_files import Vectors
from lmr.steps.features.weights import Weights
from lmr.steps.photos.listing import Photos
from lmr.steps.recognition.labels import Labels

__all__ = ["Inputs"]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run starts from.

    Attributes
    ----------
    photos
        Gallery and queries; where descriptors were given, their ids only.
    vectors
        Descriptors that were given in place of photos.
    solution
        Which photos are right for which query, if known.
    weights, local_weights
        Of the global descriptor's and of the local features' network, where they are networks.
    labels
        The landmarks of the gallery's photos, for recognition.
    truth
        The landmarks of the queries, if known.
    calibration
        How what is measured of an answer becomes a probability, where one was given.
    protocols
        Names of protocols that every ranking is scored by besides.
    ground_truth
        What they are scored by: see `lmr.steps.results.protocols.truth_for`.
    device
        Where networks run: "cpu", "cuda".
    search_device
        Where exact searches run: "cpu"; or "cuda", which is used where a worker has a GPU.
    """

    photos: Both[Photos]
    vectors: Both[Vectors] | None = None
    solution: Given | None = None
    weights: Weights | None = None
    local_weights: Weights | None = None
    labels: Labels | None = None
    truth: Given | None = None
    calibration: Calibration | None = None
    protocols: tuple[str, ...] = ()
    ground_truth: Given | None = None
    device: str = "cpu"
    search_device: str = "cpu"

    def in_shards_of(self, photos_per_shard: int, shard_bytes: int = 0) -> "Inputs":
        """Return the same inputs with at most so many photos, and bytes of them, in a shard; 0: any bytes."""
        photos = self.photos.map(lambda photos: photos.in_shards_of(photos_per_shard, shard_bytes))
        return replace(self, photos=photos)

    def needed_labels(self) -> Labels:
        """Return the landmarks of the gallery's photos.

        Raises
        ------
        SettingsError
            If there are none.
        """
        if self.labels is None:
            raise SettingsError(
                "recognition needs a labelled gallery",
                got="no labels",
                fix="give --labels a CSV id,landmark, or a gallery with a folder per landmark",
            )
        return self.labels
