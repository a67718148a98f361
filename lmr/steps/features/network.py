"""Global descriptors of a network, whitened by what the gallery or the checkpoint teaches."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.features.extractors import (
    GemSettings,
    GlobalRequest,
    OnnxSettings,
    OwnCode,
    global_extractor,
    global_kind,
    is_own,
)
from lmr.features.interfaces import GlobalExtractor
from lmr.features.pipeline import extract_photos
from lmr.features.weights.fetch import weights_folder
from lmr.features.whiten import Whitening, learn_whitening
from lmr.retrieval.descriptors import to_float
from lmr.runtime.settings import Part
from lmr.runtime.steps import Cost, Each, Source, Step, Whole, of_role, per_part
from lmr.steps.both import Both
from lmr.steps.features.chosen import ChosenExtractor
from lmr.steps.features.columns import Described, describe_cost, described_table, present
from lmr.steps.features.local import EXTRACTION_BYTES
from lmr.steps.features.model_file import with_file_beside
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
    "open_network",
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
    LmrError
        If an ONNX model or one's own code is no such extractor.
    """
    settings, chosen, dimension = _chosen(settings, inputs)
    network = chosen.of_step()
    # GeM's steps hang on its own settings alone; runs made before the other networks came stay valid.
    parts = {"gem": settings.gem, "onnx": settings.only("descriptor", "onnx", kind="NetworkSettings")}
    own = parts.get(settings.descriptor, settings.only("descriptor", "gem", kind="NetworkSettings"))

    def held(images: Step) -> float:
        return EXTRACTION_BYTES + 2.0 * images.bytes_per_row * rows_per_shard(images)

    def raw(images: Step) -> Step:
        return Step(
            name=of_role("network", images),
            folder=f"network/{images.role}",
            role=images.role,
            make=network_shard,
            settings=own,
            inputs={"images": Each(images)},
            shards=images.shards,
            cost=describe_cost(images, dimension, held(images)),
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
            cost=describe_cost(images, settings.dimension, held(images)),
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
            bytes_per_row=8.0 * dimension * settings.dimension,
            # The sample, its centred copy in float64, and matrices of its dimension.
            task_bytes=dimension * (20.0 * sample + 32.0 * dimension)
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
            cost=describe_cost(raw, settings.dimension, 6.0 * raw.bytes_per_row * rows_per_shard(raw)),
        )

    return raws.map(lambda source: described(per_part(white, source)))


def open_network(
    settings: GemSettings | Part | DescribeSettings,
    weights: Weights | None,
    device: str,
    code: OwnCode | None = None,
) -> GlobalExtractor:
    """Return the network's extractor, ready on this machine.

    Parameters
    ----------
    settings
        GeM's own, those of `extract_global`, or the part of them that another network hangs on.
    weights, device, code
        As the step has them.
    """
    if isinstance(settings, GemSettings):
        kind, gem, onnx = "gem", settings, OnnxSettings()
    else:
        kind = settings.descriptor
        gem, onnx = getattr(settings, "gem", GemSettings()), getattr(settings, "onnx", OnnxSettings())
    request = GlobalRequest(
        gem=gem,
        onnx=onnx,
        weights=weights.here() if weights else None,
        device=device,
        cache=weights_folder() / "onnx",
    )
    return global_extractor(code or kind, request)


def network_shard(
    shard: int,
    settings: GemSettings | Part,
    *,
    images: Dataset,
    weights: Weights | None,
    device: str,
    code: OwnCode | None = None,
) -> pa.Table:
    """Describe the photos of one shard by a network, before whitening."""
    return _by_network(shard, images, open_network(settings, weights, device, code), lambda rows: rows)


def whitened_network_shard(
    shard: int,
    settings: DescribeSettings,
    *,
    images: Dataset,
    weights: Weights | None,
    device: str,
    code: OwnCode | None = None,
) -> pa.Table:
    """Describe the photos of one shard by a network and the whitening that came with it."""
    extractor = open_network(settings, weights, device, code)
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


def _chosen(settings: DescribeSettings, inputs: Inputs) -> tuple[DescribeSettings, ChosenExtractor, int]:
    """Return the settings by which shards are made, the extractor, and most numbers that it returns.

    One's own code and models are opened here, so that what they lack is told before anything runs.
    """
    if is_own(settings.descriptor):
        code = OwnCode.read(settings.descriptor)
        settings = replace(settings, descriptor=code.name)  # wherever the file lies
        chosen = ChosenExtractor(name=code.name, weights=inputs.weights, code=code, device=inputs.device)
        return settings, chosen, open_network(settings, inputs.weights, "cpu", code).dimension
    kind = global_kind(settings.descriptor)
    weights = Weights.of(kind.weights) if kind.weights else inputs.weights
    if kind.needs_weights and weights is None:
        raise SettingsError(
            f"{kind.name} needs the weights of its network",
            got="no --weights",
            fix="give --weights FILE, or use --global lite0 or vlad",
        )
    gpu = inputs.device != "cpu" and kind.on_gpus is not None
    chosen = ChosenExtractor(
        name=kind.name,
        weights=weights,
        device=inputs.device if gpu else "cpu",
        modules=(kind.on_gpus or ()) if gpu else kind.modules,
    )
    if kind.name == "onnx" and weights is not None:
        settings = replace(settings, onnx=with_file_beside(settings.onnx, weights.url))
        return settings, chosen, open_network(settings, weights, chosen.device).dimension
    return settings, chosen, kind.dimension or RAW_DIMENSION
