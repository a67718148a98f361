"""Global descriptors of a network (GeM), whitened by what the gallery or the checkpoint teaches."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.features.extractors import GemSettings, global_extractor
from lmr.features.interfaces import GlobalExtractor
from lmr.features.pipeline import extract_photos
from lmr.features.whiten import Whitening, learn_whitening
from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Cost, Each, Source, Step, Whole, of_role, per_part
from lmr.steps.both import Both
from lmr.steps.features.columns import PHOTO_REGIONS, Described, describe_cost, described_table, present
from lmr.steps.features.local import EXTRACTION_BYTES
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.features.weights import Weights
from lmr.steps.inputs import Inputs
from lmr.steps.local_search.index import sample_rows
from lmr.steps.photos.generations import learned_from
from lmr.steps.photos.ingest import read_usable
from lmr.steps.sizes import rows_per_shard
from lmr.storage.arrow import Ragged, array_table, column, ragged, table
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays

__all__ = [
    "describe_by_network",
    "open_gem",
    "network_shard",
    "whitened_network_shard",
    "learn_whitening_shard",
    "whiten_shard",
]

RAW_DIMENSION = 2048
"""Most numbers that a known network gives before whitening; the weights, which know, are not opened to
plan."""


def describe_by_network(images: Both[Source], settings: DescribeSettings, inputs: Inputs) -> Both[Described]:
    """Declare the steps that describe photos by a network, whitened.

    Raises
    ------
    SettingsError
        If there are no weights.
    """
    if inputs.weights is None:
        raise SettingsError(
            "GeM needs the weights of its network",
            got="no --weights",
            fix="give --weights FILE, or use --global vlad",
        )
    network: Mapping[str, Any] = {
        "weights": inputs.weights.digest,
        "resources": {"CPU": 1} if inputs.device == "cpu" else {"GPU": 1},
        "placement": {"weights": inputs.weights, "device": inputs.device},
        "check": inputs.weights.check,
    }

    def held(images: Step) -> float:
        return EXTRACTION_BYTES + 2.0 * images.bytes_per_row * rows_per_shard(images)

    def raw(images: Step) -> Step:
        row_bytes = 12.0 + 2.0 * RAW_DIMENSION * (1 + PHOTO_REGIONS)
        return Step(
            name=of_role("network", images),
            folder=f"network/{images.role}",
            role=images.role,
            make=network_shard,
            settings=settings.gem,
            inputs={"images": Each(images)},
            shards=images.shards,
            cost=Cost(
                rows=images.rows,
                bytes_per_row=row_bytes,
                task_bytes=held(images) + 6.0 * row_bytes * rows_per_shard(images),
                work=images.rows,
                unit="photo",
            ),
            **network,
        )

    def whitened(images: Step) -> Step:
        return Step(
            name=of_role("extract_global", images),
            folder=f"global/{images.role}",
            role=images.role,
            make=whitened_network_shard,
            settings=settings,
            inputs={"images": Each(images)},
            shards=images.shards,
            cost=describe_cost(images, settings, held(images)),
            **network,
        )

    def described(sources: Source) -> Described:
        return Described(sources, settings.dimension)

    if settings.whitening == "checkpoint":
        return images.map(lambda source: described(per_part(whitened, source)))
    raws = images.map(lambda source: per_part(raw, source))
    learned = learned_from(raws.gallery)
    sample = min(settings.sample_photos, learned.rows)
    model = Step(
        name="learn_whitening",
        folder="whitening",
        make=learn_whitening_shard,
        settings=settings,
        inputs={"raw": Whole(learned)},
        shards=1,
        cost=Cost(
            rows=2,
            bytes_per_row=8.0 * RAW_DIMENSION * settings.dimension,
            # The sample, its centred copy in float64, and matrices of its dimension.
            task_bytes=RAW_DIMENSION * (20.0 * sample + 32.0 * RAW_DIMENSION)
            + 2.0 * rows_per_shard(raws.gallery) * raws.gallery.bytes_per_row,
            work=sample,
            unit="vector",
        ),
    )

    def white(raw: Step) -> Step:
        return Step(
            name=of_role("extract_global", raw),
            folder=f"global/{raw.role}",
            role=raw.role,
            make=whiten_shard,
            settings=settings,
            inputs={"raw": Each(raw), "model": Whole(model)},
            shards=raw.shards,
            cost=describe_cost(raw, settings, 6.0 * raw.bytes_per_row * rows_per_shard(raw)),
        )

    return raws.map(lambda source: described(per_part(white, source)))


def open_gem(settings: GemSettings, weights: Weights, device: str) -> GlobalExtractor:
    """Return the extractor of these settings, ready on this machine."""
    return global_extractor(settings, str(weights.here()), device)


def network_shard(
    shard: int, settings: GemSettings, *, images: Dataset, weights: Weights, device: str
) -> pa.Table:
    """Describe the photos of one shard by a network, before whitening."""
    return _by_network(shard, images, open_gem(settings, weights, device), lambda rows: rows)


def whitened_network_shard(
    shard: int, settings: DescribeSettings, *, images: Dataset, weights: Weights, device: str
) -> pa.Table:
    """Describe the photos of one shard by a network and the whitening that came with it."""
    extractor = open_gem(settings.gem, weights, device)
    whiten = partial(extractor.whitening(settings.whitening_name), dimension=settings.dimension)
    return _by_network(shard, images, extractor, whiten)


def _by_network(
    shard: int,
    images: Dataset,
    extractor: GlobalExtractor,
    whiten: Callable[[NDArray[np.float32]], NDArray[Any]],
) -> pa.Table:
    photos = column(images.read(shard, ["photo"]), "photo")
    usable = read_usable(images, shard)
    # What is whitened is not yet float16: no digit is lost twice.
    dimension = whiten(np.ones((1, extractor.dimension), np.float32)).shape[1]
    described = np.zeros((len(photos), dimension), np.float32)
    regions = [np.empty((0, dimension), np.float32)] * len(photos)
    found = extract_photos(extractor, usable.images, usable.sizes)
    for photo, features in zip(usable.photos - photos[0], found, strict=True):
        rows = whiten(np.concatenate([features.descriptor[None], features.regions]))
        described[photo], regions[photo] = rows[0], rows[1:].astype(np.float32)
    return described_table(photos, described, regions)


def learn_whitening_shard(shard: int, settings: DescribeSettings, *, raw: Dataset) -> pa.Table:
    """Learn the whitening from a sample of the gallery's descriptors."""
    total = sum(raw.facts(i)["rows"] for i in range(raw.shards))
    sample = to_float(sample_rows(raw, "descriptor", settings.sample_photos, total, settings.seed))
    whitening = learn_whitening(present(sample), settings.dimension, power=settings.power)
    return array_table({"mean": whitening.mean, "projection": whitening.projection})


def whiten_shard(shard: int, settings: DescribeSettings, *, raw: Dataset, model: Dataset) -> pa.Table:
    """Whiten the descriptors of one shard."""
    arrays = named_arrays(model)
    whitening = Whitening(arrays["mean"], arrays["projection"])
    rows = raw.read(shard)
    regions = ragged(rows, "regions")
    white = Ragged(whitening.apply(to_float(regions.values)).astype(np.float16), regions.offsets)
    vectors = whitening.apply(to_float(column(rows, "descriptor")))
    return table({"photo": column(rows, "photo"), "descriptor": vectors.astype(np.float16), "regions": white})
