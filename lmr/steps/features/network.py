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
from lmr.runtime.steps import Each, Source, Step, Whole, per_part
from lmr.steps.features.columns import bytes_per_photo, described_table, present
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.features.weights import Weights
from lmr.steps.local_search.index import sample_rows
from lmr.steps.photos.generations import learned_from
from lmr.steps.photos.ingest import read_usable
from lmr.steps.workflow import Inputs
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


def describe_by_network(
    images: tuple[Source, Source], settings: DescribeSettings, inputs: Inputs
) -> tuple[Source, Source]:
    """Declare the descriptors of gallery and queries by a network, and the learning of their whitening."""
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

    def raw(images: Step) -> Step:
        name = images.folder.rsplit("/", 1)[-1]
        return Step(
            name="network" if name == "gallery" else f"network_{name}",
            folder=f"network/{name}",
            make=network_shard,
            settings=settings.gem,
            inputs={"images": Each(images)},
            shards=images.shards,
            rows=images.rows,
            **network,
        )

    def whitened(images: Step) -> Step:
        name = images.folder.rsplit("/", 1)[-1]
        return Step(
            name="extract_global" if name == "gallery" else f"extract_global_{name}",
            folder=f"global/{name}",
            make=whitened_network_shard,
            settings=settings,
            inputs={"images": Each(images)},
            shards=images.shards,
            rows=images.rows,
            bytes_per_row=bytes_per_photo(settings),
            **network,
        )

    if settings.whitening == "checkpoint":
        return per_part(whitened, images[0]), per_part(whitened, images[1])
    raws = per_part(raw, images[0]), per_part(raw, images[1])
    model = Step(
        name="learn_whitening",
        folder="whitening",
        make=learn_whitening_shard,
        settings=settings,
        inputs={"raw": Whole(learned_from(raws[0]))},
        shards=1,
    )

    def described(raw: Step) -> Step:
        name = raw.folder.rsplit("/", 1)[-1]
        return Step(
            name="extract_global" if name == "gallery" else f"extract_global_{name}",
            folder=f"global/{name}",
            make=whiten_shard,
            settings=settings,
            inputs={"raw": Each(raw), "model": Whole(model)},
            shards=raw.shards,
            rows=raw.rows,
            bytes_per_row=bytes_per_photo(settings),
        )

    return per_part(described, raws[0]), per_part(described, raws[1])


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
