"""VLAD and triangulation embedding: global descriptors that are made of local features."""

from lmr.features.kinds._kind import Aggregation, GlobalKind

__all__ = ["KINDS"]


def _vlad() -> Aggregation:
    from lmr.features.aggregate import vlad

    return Aggregation(
        learn=vlad.train_vocabulary,
        photos=vlad.vlad_photos,
        regions=vlad.vlad_regions,
        vocabulary=vlad.Vocabulary,
    )


def _triangulation() -> Aggregation:
    from lmr.features.aggregate import triangulation

    return Aggregation(
        learn=triangulation.train_vocabulary,
        photos=triangulation.triangulate_photos,
        regions=triangulation.triangulate_regions,
        vocabulary=triangulation.Vocabulary,
    )


KINDS = (
    GlobalKind(
        name="vlad",
        what="offsets of the local features from visual words; needs no network",
        aggregation=_vlad,
        settings=("words", "region_scales", "sample_features"),
    ),
    GlobalKind(
        name="triangulation",
        what="directions of the local features from visual words; needs no network",
        aggregation=_triangulation,
        settings=("words", "region_scales", "sample_features"),
    ),
)
