"""The photos that a run starts from: a folder's list, checked before any work."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.evaluation.scores import first_five
from lmr.features.decoding.formats import FORMATS
from lmr.runtime.settings import digest
from lmr.runtime.steps import Given, Role
from lmr.steps.photos.found import find_photos, left_out_text
from lmr.storage.datasets import Dataset

__all__ = [
    "PHOTOS_PER_SHARD",
    "Layout",
    "Photos",
    "list_photos",
    "named_offenders",
    "not_an_id",
    "stored_list",
]

PHOTOS_PER_SHARD = 128
"""How many photos lie in a shard unless `ingest.photos_per_shard` says otherwise."""


@dataclass(frozen=True)
class Layout:
    """How rows of photos lie in shards; no shard crosses generations.

    Attributes
    ----------
    starts
        The rows at which generations begin.
    per_shard
        Photos in a shard.
    """

    starts: tuple[int, ...]
    per_shard: int

    def place(self, row: int) -> tuple[int, int]:
        """Return the shard that a photo lies in, and its place there."""
        shard = 0
        for start, stop in itertools.pairwise([*self.starts, row + 1]):
            if row < stop:
                return shard + (row - start) // self.per_shard, (row - start) % self.per_shard
            shard += -(-(stop - start) // self.per_shard)
        raise IndexError(f"row {row} before the first generation")


@dataclass(frozen=True)
class Photos:
    """The photos below a folder, in order of their ids; those that were added later stand at the end.

    Photos of which only descriptors are known have ids, in order of their file, and neither paths nor stamps.

    A photo's *row* is its place in this order; every dataset names photos by row, and ids return only in
    the submission. Photos that a run did not know when it began are further *generations* (see
    `lmr.steps.photos.generations`): their rows follow, in order of ids within a generation.

    Attributes
    ----------
    role
        "gallery" or "queries".
    url
        The folder.
    ids
        File names without suffix.
    paths
        Paths below the folder.
    stamps
        Size and time of change (or ETag) of each file, so that a changed photo is read again.
    starts
        The rows at which generations begin.
    first_row
        Row of the first of these photos, in one generation of several.
    per_shard
        How many of them lie in a shard.
    left_out
        What else lies in the folder, counted by kind; empty when there is nothing.
    """

    role: Role
    url: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    stamps: tuple[str, ...]
    starts: tuple[int, ...] = (0,)
    first_row: int = 0
    per_shard: int = PHOTOS_PER_SHARD
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shards(self) -> int:
        """How many shards they fill; no shard crosses generations."""
        stops = [*self.starts[1:], len(self)]
        return sum(
            -(-(stop - start) // self.per_shard) for start, stop in zip(self.starts, stops, strict=True)
        )

    @property
    def layout(self) -> Layout:
        """How they lie in shards."""
        return Layout(self.starts, self.per_shard)

    def in_shards_of(self, per_shard: int) -> "Photos":
        """Return the same photos, so many in a shard."""
        return replace(self, per_shard=per_shard)

    def first(self, count: int) -> "Photos":
        """Return the first photos only."""
        starts = tuple(start for start in self.starts if start < count)
        return replace(self._slice(0, count), starts=starts)

    def generations(self) -> list["Photos"]:
        """Return each generation alone."""
        stops = [*self.starts[1:], len(self)]
        return [self._slice(start, stop) for start, stop in zip(self.starts, stops, strict=True)]

    def _slice(self, start: int, stop: int) -> "Photos":
        columns = self.ids[start:stop], self.paths[start:stop], self.stamps[start:stop]
        ids, paths, stamps = columns
        return replace(
            self, ids=ids, paths=paths, stamps=stamps, starts=(0,), first_row=self.first_row + start
        )

    def given(self) -> Given:
        """Return the list as a dataset of one shard, a row group for each shard of photos."""
        # The folder is not part of what it is: photos that moved are the same photos.
        identity = [self.role, self.ids, self.paths, self.stamps]
        rows = pa.table(
            {
                "photo": np.arange(self.first_row, self.first_row + len(self), dtype=np.int32),
                "id": list(self.ids),
                "path": list(self.paths),
                "stamp": list(self.stamps),
            }
        )
        return Given(
            name=f"photos_{self.role}",
            folder=f"photos/{self.role}",
            rows=rows,
            fingerprint=digest([*identity, self.first_row] if self.first_row else identity),
            row_group_rows=self.per_shard,
        )


def stored_list(role: Role, root: str, fingerprint: str) -> Dataset:
    """Return the dataset as which `Photos.given` stores the list of this fingerprint."""
    return Dataset(storage.join(root, "photos", role, fingerprint), f"photos_{role}", fingerprint, 1)


def list_photos(role: Role, url: str) -> Photos:
    """List the photos below a folder.

    Raises
    ------
    LmrError
        If the folder is missing or holds no photo, or if two photos have the same id.
    """
    option = "--gallery" if role == "gallery" else "--queries"
    found = find_photos(url)
    files = found.photos
    if not files:
        if not storage.exists(url):
            raise StorageError(
                f"the folder of the {role} does not exist", got=url, fix=f"give {option} a folder or URL"
            )
        raise LmrError(
            f"the folder of the {role} holds no photo",
            got=f"{url}: {left_out_text(found.left_out) or 'it is empty'}",
            fix=f"photos are files of these kinds: {', '.join(form.name for form in FORMATS)}",
        )
    by_id: dict[str, str] = {}
    for path in sorted(files):
        identity = PurePosixPath(path).stem
        if identity in by_id:
            raise LmrError(
                f"two photos of the {role} have the id {identity!r}",
                got=f"{by_id[identity]} and {path}",
                fix="file names without suffix are ids and must differ: rename or remove one",
            )
        if not_an_id(identity):
            raise LmrError(
                f"the name of a photo of the {role} cannot be an id",
                got=repr(path),
                fix="rename it: ids hold no space, comma or quote, which submission files separate by",
            )
        by_id[identity] = path
    ids = sorted(by_id)
    paths = tuple(by_id[i] for i in ids)
    return Photos(
        role,
        url,
        tuple(ids),
        paths,
        tuple(files[p] for p in paths),
        left_out=left_out_text(found.left_out),
    )


def not_an_id(name: str) -> bool:
    """Whether a name cannot be an id, because submission files separate by what it holds."""
    return not name or any(c in name for c in ' ,"\n\r\t')


def named_offenders(ids: Sequence[str]) -> str:
    """Return how many photos do not fit, and the first five of them."""
    return f"{len(ids):,}: {first_five(ids)}"
