"""Global descriptors that are aggregated from local features: VLAD and triangulation embedding."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.features.aggregate import triangulation, vlad
from lmr.features.regions import rmac_boxes
from lmr.features.whiten import Whitening, learn_whitening
from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Each, Source, Step, Whole, per_part
from lmr.steps.features.columns import bytes_per_photo, described_table, present
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.local_search.index import sample_rows
from lmr.steps.photos.generations import learned_from
from lmr.storage.arrow import array_table, column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays

__all__ = ["aggregate_shard", "describe_by_aggregation", "learn_words_shard"]


def describe_by_aggregation(
    images: tuple[Source, Source], local: tuple[Source, Source], settings: DescribeSettings
) -> tuple[Source, Source]:
    """Declare the learning of visual words, and the descriptors of gallery and queries by them."""
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
            bytes_per_row=bytes_per_photo(settings),
        )

    return per_part(described, images[0], local[0]), per_part(described, images[1], local[1])


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
    names = triangulation
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
        regions.append(present(vectors))
    return described_table(column(photos, "photo"), np.concatenate(described), regions)


def _by_photo(rows: pa.Table) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return coordinates and descriptors of each photo's features."""
    photos, starts, counts = np.unique(column(rows, "photo"), return_index=True, return_counts=True)
    xy, descriptors = column(rows, "xy"), column(rows, "descriptor")
    spans = zip(photos.tolist(), starts, starts + counts, strict=True)
    return {photo: (xy[a:b], to_float(descriptors[a:b])) for photo, a, b in spans}
