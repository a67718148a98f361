"""Extract global: one descriptor per photo and one per region of it, whitened.

Three descriptors stand behind the same dataset: VLAD and triangulation embedding, aggregated from the local
features and needing no network, and GeM, from a network whose weights come in a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Le
from numpy.typing import NDArray

from lmr.errors import SettingsError
from lmr.features import triangulate, vlad
from lmr.features.extractors import GemSettings, global_extractor
from lmr.features.interfaces import GlobalExtractor
from lmr.features.pipeline import extract_photos
from lmr.features.regions import rmac_boxes
from lmr.features.whiten import Whitening, learn_whitening
from lmr.retrieval.descriptors import to_float
from lmr.runtime.cache import named_arrays
from lmr.runtime.joined import by_part
from lmr.runtime.settings import Settings
from lmr.runtime.shards import Dataset
from lmr.runtime.steps import Each, Source, Step, Whole
from lmr.runtime.tables import Ragged, array_table, column, ragged, table
from lmr.steps.build_index import sample_rows
from lmr.steps.generations import learned_from
from lmr.steps.ingest import read_usable
from lmr.steps.weights import Weights
from lmr.steps.workflow import Inputs

__all__ = ["DescribeSettings", "extract_global", "open_gem"]


@dataclass(frozen=True, kw_only=True)
class DescribeSettings(Settings):
    """Settings of `extract_global`."""

    descriptor: Literal["vlad", "triangulation", "gem"] = "vlad"
    """Which descriptor."""
    dimension: Annotated[int, Ge(2)] = 256
    """Dimensions after whitening."""
    whitening: Literal["gallery", "checkpoint"] = "gallery"
    """Learned on the gallery itself, or the one that came with GeM's weights (`Lw`, `pca`)."""
    whitening_name: str = ""
    """Which of those that came with the weights, by training set; empty: the only one."""
    power: Annotated[float, Ge(0), Le(1)] = 0.25
    """Of whitening on the gallery: coordinates are divided by eigenvalue ** power; 0.5 is full, 0 rotates."""
    words: Annotated[int, Ge(1)] = 64
    """Visual words of VLAD (32 are enough for triangulation)."""
    gem: GemSettings = field(default_factory=GemSettings)
    """The network of GeM."""
    region_scales: Annotated[int, Ge(1)] = 3
    """Scales of the R-MAC grid that regions come from."""
    sample_features: Annotated[int, Ge(1)] = 500_000
    """Local features that words are learned from."""
    sample_photos: Annotated[int, Ge(2)] = 5_000
    """Gallery photos that the whitening is learned from."""
    seed: int = 0
    """Of samples and k-means."""


def extract_global(
    images: tuple[Source, Source], local: tuple[Source, Source], settings: DescribeSettings, inputs: Inputs
) -> tuple[Source, Source]:
    """Declare the steps that describe gallery and queries.

    Columns: `photo`, `descriptor` (float16, unit; zeros for a photo without descriptor), `regions` (a list of
    float16 descriptors per photo).

    Raises
    ------
    SettingsError
        If weights are needed and there are none.
    """
    if settings.descriptor == "gem":
        return _gem(images, settings, inputs)
    if settings.whitening == "checkpoint":
        raise SettingsError(
            f"{settings.descriptor} comes without weights, and so without their whitening",
            got="describe.whitening = checkpoint",
            fix="give --global gem, or --set describe.whitening=gallery",
        )
    return _aggregated(images, local, settings)


def _aggregated(
    images: tuple[Source, Source], local: tuple[Source, Source], settings: DescribeSettings
) -> tuple[Source, Source]:
    model = Step(
        name="learn_words",
        folder="vocabulary",
        make=learn_words_shard,
        settings=settings,
        inputs={"local": Whole(learned_from(local[0]))},
        shards=1,
    )

    def described(images: Step, local: Step) -> Step:
        name = images.folder.rsplit("/", 1)[-1]
        return Step(
            name="extract_global" if name == "gallery" else f"extract_global_{name}",
            folder=f"global/{name}",
            make=aggregate_shard,
            settings=settings,
            inputs={"images": Each(images), "local": Each(local), "model": Whole(model)},
            shards=images.shards,
            rows=images.rows,
            bytes_per_row=_bytes_per_photo(settings),
        )

    return by_part(described, images[0], local[0]), by_part(described, images[1], local[1])


def _gem(images: tuple[Source, Source], settings: DescribeSettings, inputs: Inputs) -> tuple[Source, Source]:
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
            bytes_per_row=_bytes_per_photo(settings),
            **network,
        )

    if settings.whitening == "checkpoint":
        return by_part(whitened, images[0]), by_part(whitened, images[1])
    raws = by_part(raw, images[0]), by_part(raw, images[1])
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
            bytes_per_row=_bytes_per_photo(settings),
        )

    return by_part(described, raws[0]), by_part(described, raws[1])


def _bytes_per_photo(settings: DescribeSettings) -> float:
    # The R-MAC grid has about 20 cells at three scales of a 4:3 photo.
    return 4.0 + 2.0 * settings.dimension * (1 + 20)


def learn_words_shard(shard: int, settings: DescribeSettings, *, local: Dataset) -> pa.Table:
    """Learn visual words, then the whitening of whole photos' vectors, from samples of the gallery."""
    learn, describe_photos, _, _ = _aggregation(settings)
    counts = [local.facts(i)["rows"] for i in range(local.shards)]
    sample = sample_rows(local, "descriptor", settings.sample_features, sum(counts), settings.seed)
    vocabulary = learn(to_float(sample), settings.words, settings.seed)
    described: list[NDArray[np.float32]] = []
    for i in np.random.default_rng(settings.seed).permutation(local.shards).tolist():
        if sum(map(len, described)) >= settings.sample_photos:
            break
        features = local.read(i, ["photo", "descriptor"])
        _, per_photo = np.unique(column(features, "photo"), return_counts=True)
        if len(per_photo):
            described.append(describe_photos(to_float(column(features, "descriptor")), per_photo, vocabulary))
    whitening = learn_whitening(np.concatenate(described), settings.dimension, power=settings.power)
    learned = {f"vocabulary_{name}": array for name, array in vars(vocabulary).items()}
    return array_table({**learned, "mean": whitening.mean, "projection": whitening.projection})


def _aggregation(settings: DescribeSettings) -> tuple[Any, Any, Any, Any]:
    """Return what learns a vocabulary, describes photos and regions by it, and holds it."""
    if settings.descriptor == "vlad":
        return vlad.train_vocabulary, vlad.vlad_photos, vlad.vlad_regions, vlad.Vocabulary
    names = triangulate
    return names.train_vocabulary, names.triangulate_photos, names.triangulate_regions, names.Vocabulary


def aggregate_shard(
    shard: int, settings: DescribeSettings, *, images: Dataset, local: Dataset, model: Dataset
) -> pa.Table:
    """Describe the photos of one shard by what their local features add up to."""
    arrays = named_arrays(model)
    _, _, describe_regions, kind = _aggregation(settings)
    prefix = "vocabulary_"
    vocabulary = kind(**{k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
    whitening = Whitening(arrays["mean"], arrays["projection"])
    photos = images.read(shard, ["photo", "width", "height"])
    features = _by_photo(local.read(shard, ["photo", "xy", "descriptor"]))
    described, regions = [], []
    for photo, width, height in zip(*(column(photos, c) for c in photos.column_names), strict=True):
        if photo not in features:
            described.append(np.zeros((1, whitening.projection.shape[1]), np.float32))
            regions.append(np.empty((0, whitening.projection.shape[1]), np.float32))
            continue
        xy, descriptors = features[photo]
        boxes = rmac_boxes(int(width), int(height), scales=settings.region_scales)
        vectors = whitening.apply(describe_regions(xy, descriptors, vocabulary, boxes))
        described.append(vectors[:1])  # the grid's first box is the whole photo
        regions.append(_present(vectors))
    return _described(column(photos, "photo"), np.concatenate(described), regions)


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
    return _described(photos, described, regions)


def learn_whitening_shard(shard: int, settings: DescribeSettings, *, raw: Dataset) -> pa.Table:
    """Learn the whitening from a sample of the gallery's descriptors."""
    total = sum(raw.facts(i)["rows"] for i in range(raw.shards))
    sample = to_float(sample_rows(raw, "descriptor", settings.sample_photos, total, settings.seed))
    whitening = learn_whitening(_present(sample), settings.dimension, power=settings.power)
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


def _by_photo(rows: pa.Table) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return coordinates and descriptors of each photo's features."""
    photos, starts, counts = np.unique(column(rows, "photo"), return_index=True, return_counts=True)
    xy, descriptors = column(rows, "xy"), column(rows, "descriptor")
    spans = zip(photos.tolist(), starts, starts + counts, strict=True)
    return {photo: (xy[a:b], to_float(descriptors[a:b])) for photo, a, b in spans}


def _present(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Drop zero rows: regions without features, photos without descriptor."""
    return vectors[np.any(vectors != 0, axis=1)]


def _described(
    photos: NDArray[np.int32], vectors: NDArray[np.float32], regions: list[NDArray[np.float32]]
) -> pa.Table:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in regions])]).astype(np.int64)
    lists = Ragged(np.concatenate(regions).astype(np.float16), offsets)
    return table({"photo": photos, "descriptor": vectors.astype(np.float16), "regions": lists})
