"""What a workflow works on, as it was chosen: photos, or descriptors in their place, and labels."""

from typing import Any

from lmr import storage
from lmr.api.choices import Choices
from lmr.errors import SettingsError
from lmr.runtime.steps import Given, Role
from lmr.steps.both import Both
from lmr.steps.features.own_files import Vectors, check_dimensions, read_vectors
from lmr.steps.features.own_imagined import imagined_vectors
from lmr.steps.photos.generations import Recalled, recall
from lmr.steps.photos.imagined import imagined
from lmr.steps.photos.listing import PHOTOS_PER_SHARD, Photos, list_photos
from lmr.steps.recognition.labels import Labels, imagined_labels, read_labels, truth_of

__all__ = ["labels_of", "photos_of"]

_MOST_PHOTOS = 100_000_000


def photos_of(
    choices: Choices, settings: Any, root: str
) -> tuple[Both[Photos], Both[Vectors] | None, tuple[str, ...]]:
    """List gallery and queries, or read the descriptors that were given in their place.

    Parameters
    ----------
    choices
        What the user chose.
    settings
        Settings of every step of the workflow.
    root
        The run's folder: photos that it knows keep their places.

    Returns
    -------
    tuple
        The photos; their descriptors, None where photos were given; what is new, in sentences.

    Raises
    ------
    LmrError
        If one side is missing, there are no photos, or the descriptors do not fit.
    """
    vectors = _imagined(choices) if choices.planned and _takes_vectors(settings) else _vectors(choices)
    count = choices.prune and choices.prune * _photos_per_shard(settings)
    if vectors is not None:
        if count:
            vectors = vectors.map(lambda some: some.first(count))
        return vectors.map(lambda some: some.photos()), vectors, ()
    photos, told = _listed(choices, root)
    return photos.map(lambda some: some.first(count)) if count else photos, None, told


def labels_of(choices: Choices, photos: Both[Photos]) -> tuple[Labels, Given | None, tuple[str, ...]]:
    """Read the labels of the gallery and the landmarks of the queries; tell what is odd about them."""
    if choices.planned and not photos.gallery.labels and not any("/" in one for one in photos.gallery.places):
        return imagined_labels(photos.gallery), None, ()
    labels, news = read_labels(photos.gallery, choices.labels and storage.absolute(choices.labels))
    if choices.solution is None:
        return labels, None, tuple(news)
    url = storage.absolute(choices.solution)
    truth, more = truth_of(url, photos.queries, labels, pruned=bool(choices.prune))
    return labels, truth, (*news, *more)


def _listed(choices: Choices, root: str) -> tuple[Both[Photos], tuple[str, ...]]:
    """List gallery and queries as the run knows them; tell what is new to it."""
    if choices.gallery is None or choices.queries is None:
        given = [name for name in ("gallery", "queries") if getattr(choices, name) is not None]
        raise SettingsError(
            "there is nothing to search",
            got=f"the {given[0]} only" if given else "neither photos nor descriptors",
            fix="give --gallery and --queries, or --gallery-descriptors and --query-descriptors",
        )
    if choices.planned:
        return Both(_counted("gallery", choices.gallery), _counted("queries", choices.queries)), ()
    urls = Both(choices.gallery, choices.queries).map(storage.absolute)
    known = Both(
        recall(list_photos("gallery", urls.gallery), root), recall(list_photos("queries", urls.queries), root)
    )
    return known.map(lambda recalled: recalled.photos), _news(known)


def _takes_vectors(settings: Any) -> bool:
    """Tell whether a workflow takes descriptors in place of photos, by its settings."""
    return not hasattr(settings, "ingest")


def _imagined(choices: Choices) -> Both[Vectors]:
    """Return descriptors to plan with, as many as photos were counted."""
    counted = Both(_counted("gallery", choices.gallery or ""), _counted("queries", choices.queries or ""))
    return counted.map(lambda photos: imagined_vectors(photos, choices.dimension))


def _counted(role: Role, given: str) -> Photos:
    """Return photos to plan with: so many that are imagined, or those of a folder."""
    count = given.replace("_", "").replace(",", "")
    if not (count.isascii() and count.isdecimal()):
        return list_photos(role, storage.absolute(given))
    if not 0 < int(count) <= _MOST_PHOTOS:
        raise SettingsError(
            f"--{role} is no number of photos to plan with",
            got=given,
            fix=f"give 1 to {_MOST_PHOTOS:,}, or a folder",
        )
    return imagined(role, int(count))


def _vectors(choices: Choices) -> Both[Vectors] | None:
    """Read and check the descriptors that were given in place of photos; None if none were."""
    gallery, queries = choices.gallery_descriptors, choices.query_descriptors
    if gallery is None and queries is None:
        ids = [name for name in ("gallery_ids", "query_ids") if getattr(choices, name) is not None]
        if ids:
            raise SettingsError(
                "there are ids without descriptors",
                got=" and ".join(f"--{name.replace('_', '-')}" for name in ids),
                fix="give --gallery-descriptors and --query-descriptors too; photos are named by their files",
            )
        return None
    photos = [f"--{name}" for name in ("gallery", "queries") if getattr(choices, name) is not None]
    if gallery is None or queries is None or photos:
        missing = "--gallery-descriptors" if gallery is None else "--query-descriptors"
        raise SettingsError(
            "descriptors take the place of photos, for the gallery and for the queries",
            got=f"{' and '.join(photos)} besides" if photos else f"no {missing}",
            fix="give --gallery-descriptors and --query-descriptors, without --gallery and --queries",
        )
    vectors = Both(
        read_vectors("gallery", gallery, choices.gallery_ids),
        read_vectors("queries", queries, choices.query_ids),
    )
    check_dimensions(vectors)
    return vectors


def _photos_per_shard(settings: Any) -> int:
    """Return how many photos lie in a shard, by whichever step of a workflow brings them in."""
    found = (getattr(group, "photos_per_shard", None) for group in vars(settings).values())
    return next((count for count in found if count), PHOTOS_PER_SHARD)


def _news(known: Both[Recalled]) -> tuple[str, ...]:
    """Return what a user should know of the photos, sentences without a full stop."""
    left_out = [f"{role}: {one.photos.left_out}" for role, one in known.items() if one.photos.left_out]
    return (*left_out, *(recalled.news for recalled in known.values() if recalled.news))
