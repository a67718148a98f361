"""Global descriptors that are aggregated from local features: VLAD and triangulation embedding."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.features.extractors import Aggregation, global_kind
from lmr.features.regions import rmac_boxes
from lmr.features.whiten import Whitening, learn_whitening
from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Cost, Each, Source, Step, Whole, of_role, per_part
from lmr.steps.both import Both
from lmr.steps.features.columns import PHOTO_REGIONS, Described, describe_cost, described_table, present
from lmr.steps.features.local import Extracted
from lmr.steps.features.settings import DescribeSettings
from lmr.steps.local_search.index import at_least, sample_rows
from lmr.steps.photos.generations import learned_from
from lmr.steps.sizes import FEATURES_AT_ONCE, blocks, rows_per_shard
from lmr.storage.arrow import array_table, column
from lmr.storage.datasets import Dataset
from lmr.storage.mapped import named_arrays

__all__ = ["aggregate_shard", "describe_by_aggregation", "learn_words_shard"]

REDUCED = 64  # numbers of a local feature that aggregation keeps, whatever the extractor


def describe_by_aggregation(
    images: Both[Source], local: Both[Extracted], settings: DescribeSettings
) -> Both[Described]:
    """Declare the steps that describe photos by what their local features add up to."""
    learned = learned_from(local.gallery.source)
    # Words, and a vector of so many numbers per photo before it is whitened.
    long = settings.words * min(REDUCED, local.gallery.dimension)
    sample = min(settings.sample_features, learned.rows) * local.gallery.dimension
    # Photos are taken by whole shards, until they are enough.
    shard = -(-local.gallery.per_shard // local.gallery.per_photo)
    photos = min(settings.sample_photos + shard, -(-learned.rows // local.gallery.per_photo))
    model = Step(
        name="learn_words",
        folder="vocabulary",
        make=learn_words_shard,
        settings=settings,
        inputs={"local": Whole(learned)},
        implied={"dimension": local.gallery.dimension},
        shards=1,
        cost=Cost(
            rows=8,
            bytes_per_row=4.0 * long * settings.dimension,
            # First the sample as stored, as floats and as used; then photos' vectors as found, joined and
            # centred, the products of them with their own vectors, and the projection. A shard as fetched, as
            # stored and in blocks as floats.
            task_bytes=max(10.0 * sample, 12.0 * long * photos + 40.0 * min(photos, long) ** 2)
            + 16.0 * long * settings.dimension
            + 2.0 * local.gallery.per_shard * local.gallery.dimension * local.gallery.itemsize
            + 8.0 * min(local.gallery.per_shard, FEATURES_AT_ONCE) * local.gallery.dimension,
            work=min(settings.sample_features, learned.rows),
            unit="feature",
        ),
    )

    def described(images: Step, features: Step) -> Step:
        held = 8.0 * rows_per_shard(features) * local.gallery.dimension + 4.0 * long * (
            2.0 * settings.dimension + 3.0 * PHOTO_REGIONS
        )
        return Step(
            name=of_role("extract_global", images),
            folder=f"global/{images.role}",
            role=images.role,
            make=aggregate_shard,
            settings=settings,
            inputs={"images": Each(images), "local": Each(features), "model": Whole(model)},
            shards=images.shards,
            cost=describe_cost(images, settings.dimension, held),
        )

    return images.zip(local).map(
        lambda side: Described(per_part(described, side[0], side[1].source), settings.dimension)
    )


def learn_words_shard(shard: int, settings: DescribeSettings, *, local: Dataset, dimension: int) -> pa.Table:
    """Learn visual words, then the whitening of whole photos' vectors, from samples of the gallery."""
    aggregation = _aggregation(settings)
    counts = [local.facts(i)["rows"] for i in range(local.shards)]
    drawn = sample_rows(local, "descriptor", settings.sample_features, sum(counts), settings.seed)
    sample = at_least(to_float(drawn), settings.words + 1, dimension, settings.seed)
    del drawn
    vocabulary = aggregation.learn(sample, settings.words, settings.seed)
    described: list[NDArray[np.float32]] = []
    for i in np.random.default_rng(settings.seed).permutation(local.shards).tolist():
        if sum(map(len, described)) >= settings.sample_photos:
            break
        features = local.read(i, ["photo", "descriptor"])
        _, per_photo = np.unique(column(features, "photo"), return_counts=True)
        stored, ends = column(features, "descriptor"), np.cumsum([0, *per_photo])
        for lo, hi in blocks(per_photo.tolist(), FEATURES_AT_ONCE) if len(per_photo) else ():
            descriptors = to_float(stored[ends[lo] : ends[hi]])
            described.append(aggregation.photos(descriptors, per_photo[lo:hi], vocabulary))
    if not described:
        described.append(aggregation.photos(sample, np.array([len(sample)]), vocabulary))
    del sample
    whitening = learn_whitening(np.concatenate(described), settings.dimension, power=settings.power)
    learned = {f"vocabulary_{name}": array for name, array in vars(vocabulary).items()}
    return array_table({**learned, "mean": whitening.mean, "projection": whitening.projection})


def _aggregation(settings: DescribeSettings) -> Aggregation:
    opened = global_kind(settings.descriptor).aggregation
    assert opened is not None  # extract_global asks
    return opened()


def aggregate_shard(
    shard: int, settings: DescribeSettings, *, images: Dataset, local: Dataset, model: Dataset
) -> pa.Table:
    """Describe the photos of one shard by what their local features add up to."""
    arrays = named_arrays(model)
    aggregation = _aggregation(settings)
    prefix = "vocabulary_"
    vocabulary = aggregation.vocabulary(
        **{k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    )
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
        vectors = whitening.apply(aggregation.regions(xy, descriptors, vocabulary, boxes))
        described.append(vectors[:1])  # the grid's first box is the whole photo
        regions.append(present(vectors))
    return described_table(column(photos, "photo"), np.concatenate(described), regions)


def _by_photo(rows: pa.Table) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return coordinates and descriptors of each photo's features."""
    photos, starts, counts = np.unique(column(rows, "photo"), return_index=True, return_counts=True)
    xy, descriptors = column(rows, "xy"), column(rows, "descriptor")
    spans = zip(photos.tolist(), starts, starts + counts, strict=True)
    return {photo: (xy[a:b], to_float(descriptors[a:b])) for photo, a, b in spans}
