"""The data sets that are known by name: files, sizes, licences and digests, as their publishers state them.

No fact here was tried against the publishers' hosts; each data set names the page that states its facts.
What no page states (a size, a count, a digest) is left out.
"""

from dataclasses import dataclass
from typing import Literal

from lmr.errors import LmrError
from lmr.text import one_of

__all__ = ["COLLECTIONS", "Collection", "Layout", "Part", "find_collection"]

Layout = Literal["contest", "revisited", "ilias", "by hand"]
"""How the files of a data set become gallery, queries and solution; see `lmr.collections.layouts`."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some files of a data set that are fetched together.

    Attributes
    ----------
    name
        Its name on the command line.
    base
        The URL that the files lie below.
    files
        Their paths below it.
    folder
        Where they go, below the data set's folder.
    says
        What it is, with the publisher's counts and sizes.
    size_bytes
        About how much one file holds, as its publisher says; None where it says nothing.
    digests
        Path below `base` of the digests: `{stem}` stands for a file's name without suffix, `{folder}` for its
        folder. Empty where none are published.
    wanted
        Whether it is fetched unless it is asked for.
    unpacked
        Whether the archives are unpacked by the layout, and deleted.
    gunzipped
        Whether the files lose their suffix `.gz`, so that single photos can be read from them.
    """

    name: str
    base: str
    files: tuple[str, ...]
    folder: str
    says: str
    size_bytes: int | None = None
    digests: str = ""
    wanted: bool = True
    unpacked: bool = False
    gunzipped: bool = False

    def first(self, count: int | None) -> tuple[str, ...]:
        """Return the files, or the first few of them."""
        return self.files[:count]


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A published data set.

    Attributes
    ----------
    name
        Its name on the command line.
    title
        What it is.
    licence
        What its publisher states.
    home
        The publisher's page.
    facts
        The page and version that files, counts and sizes were taken from.
    layout
        How gallery, queries and solution are made of its parts.
    protocol
        The protocols of `lmr evaluate` that it is scored by.
    parts
        Its files.
    aliases
        Other names that the field has for it.
    notes
        What else a user should know, sentences.
    """

    name: str
    title: str
    licence: str
    home: str
    facts: str
    layout: Layout
    protocol: str
    parts: tuple[Part, ...] = ()
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_GLD = "https://s3.amazonaws.com/google-landmark"
_GLD_PAGE = "https://github.com/cvdfoundation/google-landmark"
_MD5 = "md5sum/{folder}/md5.{stem}.txt"


def _tars(folder: str, count: int) -> tuple[str, ...]:
    return tuple(f"{folder}/images_{i:03d}.tar" for i in range(count))


def _revisited(place: Literal["oxford", "paris"], archives: tuple[str, ...], photos: int) -> Collection:
    short = {"oxford": "roxford5k", "paris": "rparis6k"}[place]
    folder = {"oxford": "oxbuildings", "paris": "parisbuildings"}[place]
    return Collection(
        name=f"revisited-{place}",
        aliases=(short,),
        title=f"Revisited {place.capitalize()}: {photos:,} gallery photos, 70 queries with boxes",
        licence="photos of Flickr: its terms of use hold, and the publisher's terms of access",
        home=f"https://www.robots.ox.ac.uk/~vgg/data/{folder}/",
        facts=(
            "https://github.com/filipradenovic/revisitop (python/download.py, commit bc5c086f; README.md, "
            "commit 42e05e9a: 15 queries were added to the 55 of before); photos as users of it count them"
        ),
        layout="revisited",
        protocol="revisited-easy, revisited-medium, revisited-hard",
        parts=(
            Part(
                name="photos",
                base=f"https://www.robots.ox.ac.uk/~vgg/data/{folder}",
                files=archives,
                folder="archives",
                says="gallery and queries in one",
                unpacked=True,
            ),
            Part(
                name="truth",
                base=f"http://cmp.felk.cvut.cz/revisitop/data/datasets/{short}",
                files=(f"gnd_{short}.pkl",),
                folder="annotations",
                says="easy, hard and junk photos of each query, and its box",
            ),
            Part(
                name="distractors",
                base="http://ptak.felk.cvut.cz/revisitop/revisitop1m/jpg",
                files=tuple(f"revisitop1m.{i}.tar.gz" for i in range(1, 101)),
                folder="gallery/distractors",
                says="a million photos of other things, 100 archives",
                wanted=False,
                gunzipped=True,
            ),
        ),
        notes=(
            "queries are cut to their boxes, as the protocol asks, and stored as PNG, without loss",
            "no digest is published: what is fetched first is recorded, and later compared with that",
        ),
    )


COLLECTIONS: tuple[Collection, ...] = (
    Collection(
        name="google-landmarks-v1",
        title="Google Landmarks v1, of the 2018 challenge: index, test and solution",
        licence="photos of the web under various licences, as far as is known",
        home="https://www.kaggle.com/c/landmark-retrieval-challenge",
        facts=f"{_GLD_PAGE} (README.md, commit 183f68ad): it is no longer available",
        layout="by hand",
        protocol="map_at_100",
        notes=(
            "its publisher no longer offers it, so nothing is fetched",
            "if you have it: put index photos (or tars) into gallery/, test photos into queries/, and the "
            "contest's retrieval solution beside them as solution.csv",
        ),
    ),
    Collection(
        name="google-landmarks-v2",
        title="Google Landmarks v2.1: 761,757 index photos, 117,577 test photos, 4,132,914 for training",
        licence=(
            "annotations CC BY 4.0; photos of index and test CC0 or public domain, of train CC BY: verify"
        ),
        home=_GLD_PAGE,
        facts=f"{_GLD_PAGE} (README.md, commit 183f68ad)",
        layout="contest",
        protocol="map_at_100",
        parts=(
            Part(
                name="solution",
                base=_GLD,
                files=(
                    "ground_truth/retrieval_solution_v2.1.csv",
                    "ground_truth/recognition_solution_v2.1.csv",
                ),
                folder="annotations",
                says="right photos and landmarks of the test photos",
            ),
            Part(
                name="test",
                base=_GLD,
                files=_tars("test", 20),
                folder="queries",
                says="117,577 photos, 20 archives of about 500 MB",
                size_bytes=500_000_000,
                digests=_MD5,
            ),
            Part(
                name="index",
                base=_GLD,
                files=_tars("index", 100),
                folder="gallery",
                says="761,757 photos, 100 archives of about 850 MB",
                size_bytes=850_000_000,
                digests=_MD5,
            ),
            Part(
                name="index-labels",
                base=_GLD,
                files=tuple(
                    f"metadata/{name}.csv"
                    for name in ("index", "test", "index_image_to_landmark", "index_label_to_category")
                ),
                folder="annotations",
                says="landmarks of the index photos",
                wanted=False,
            ),
            Part(
                name="train",
                base=_GLD,
                files=_tars("train", 500),
                folder="train",
                says="4,132,914 photos, 500 archives of about 1 GB",
                size_bytes=1_000_000_000,
                digests=_MD5,
                wanted=False,
            ),
            Part(
                name="train-labels",
                base=_GLD,
                files=tuple(
                    f"metadata/{name}.csv"
                    for name in ("train", "train_clean", "train_attribution", "train_label_to_category")
                ),
                folder="annotations",
                says="landmarks and licences of the training photos",
                wanted=False,
            ),
        ),
        notes=("archives stay as they are: a run reads single photos from them",),
    ),
    _revisited("oxford", ("oxbuild_images-v1.tgz",), 4993),
    _revisited("paris", ("paris_1-v1.tgz", "paris_2-v1.tgz"), 6322),
    Collection(
        name="ilias",
        title="ILIAS core: 1,232 image queries and 4,715 photos of 1,000 objects",
        licence="photos of the publisher CC BY 4.0; those of the web under their own (see the *_url.txt)",
        home="https://vrg.fel.cvut.cz/ilias/",
        facts="https://github.com/ilias-vrg/ilias (download/README.md, commit 67a34394)",
        layout="ilias",
        protocol="map_at_100",
        parts=(
            Part(
                name="core",
                base="https://vrg.fel.cvut.cz/ilias_data",
                files=("ilias_core.tar",),
                folder="archives",
                says="5,947 photos",
                digests="checksums.txt",
                unpacked=True,
            ),
        ),
        notes=(
            "queries are whole photos: their boxes are left out; its own protocol is mAP@1000",
            "its 100 million distractors (6.3 TB) are not fetched",
        ),
    ),
)
"""Every data set by name."""


def find_collection(name: str) -> Collection:
    """Return the data set of a name.

    Raises
    ------
    LmrError
        If there is none.
    """
    for collection in COLLECTIONS:
        if name == collection.name or name in collection.aliases:
            return collection
    raise LmrError(
        "there is no data set of this name", got=name, fix=one_of(name, [c.name for c in COLLECTIONS])
    )
