"""The photos that a run starts from, in the order of their rows."""

import itertools
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError, StorageError
from lmr.features.decoding.formats import FORMATS, PHOTO_SUFFIXES
from lmr.runtime.settings import digest
from lmr.runtime.steps import Given, Role
from lmr.steps.photos.archives import ARCHIVE_SUFFIX, PACKED_SUFFIXES
from lmr.steps.photos.found import Found, find_in_archive, find_photos, left_out_text
from lmr.steps.photos.lists import LIST_SUFFIXES, read_list
from lmr.steps.photos.names import ids_of_paths, known_path, piece_of, short_name
from lmr.storage import Piece
from lmr.storage.datasets import Dataset
from lmr.storage.outside import stamps_of
from lmr.text import counted, printable

__all__ = ["PHOTOS_PER_SHARD", "Layout", "Photos", "list_photos", "photos_of", "stored_list"]

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
    counts
        The same of each generation, where they differ because shards are bounded by bytes too.
    """

    starts: tuple[int, ...]
    per_shard: int
    counts: tuple[int, ...] = ()

    def place(self, row: int) -> tuple[int, int]:
        """Return the shard that a photo lies in, and its place there."""
        shard = 0
        counts = self.counts or (self.per_shard,) * len(self.starts)
        spans = zip(itertools.pairwise([*self.starts, row + 1]), counts, strict=True)
        for (start, stop), count in spans:
            if row < stop:
                return shard + (row - start) // count, (row - start) % count
            shard += -(-(stop - start) // count)
        raise IndexError(f"row {row} before the first generation")


@dataclass(frozen=True)
class Photos:
    """Photos in order of their short names and paths; those that were added later stand at the end.

    A photo's *row* is its place in this order; every dataset names photos by row. What a photo is, is its
    path and stamp: no other photo beside it, and no id, makes it another one. Photos that a run did not know
    when it began are further *generations* (see `lmr.steps.photos.generations`): their rows follow, in the
    same order within a generation.

    Photos of which only descriptors are known have ids, in order of their file, and neither paths nor stamps.

    Attributes
    ----------
    role
        "gallery" or "queries".
    url
        The folder; of a list of photos, the folder that the list lies in.
    ids
        What Kaggle's files call them; see `lmr.steps.photos.names`.
    paths
        Paths below the folder, as they are known; see `lmr.steps.photos.names`.
    stamps
        Size and time of change (or ETag) of each file, so that a changed photo is read again. Of a part of a
        file, such as an archive: its size, its time, where it begins, and how many letters of the path name
        the file.
    starts
        The rows at which generations begin.
    first_row
        Row of the first of these photos, in one generation of several.
    per_shard
        How many of them lie in a shard.
    shard_bytes
        How many bytes of them lie in a shard at most, besides photos that are larger alone; 0: any number.
    left_out
        What else lies in the folder, counted by kind; empty when there is nothing.
    labels
        What a list says of each; empty when it says nothing.
    moved
        Of photos that were renamed since the run began: known path to where they are now.
    """

    role: Role
    url: str
    ids: tuple[str, ...]
    paths: tuple[str, ...]
    stamps: tuple[str, ...]
    starts: tuple[int, ...] = (0,)
    first_row: int = 0
    per_shard: int = PHOTOS_PER_SHARD
    shard_bytes: int = 0
    left_out: str = ""
    labels: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shards(self) -> int:
        """How many shards they fill; no shard crosses generations."""
        spans = zip(self._spans, self._counts, strict=True)
        return sum(-(-(stop - start) // count) for (start, stop), count in spans)

    @property
    def _spans(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, [*self.starts[1:], len(self)], strict=True))

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        """How many photos lie in a shard, of each generation.

        They are not the same for all, so that larger photos that are added make no shard of others anew.
        """
        if not self.shard_bytes:
            return (self.per_shard,) * len(self.starts)
        sizes = np.array([int(stamp.split(" ")[0]) for stamp in self.stamps])
        return tuple(
            _largest_count(sizes[start:stop], self.per_shard, self.shard_bytes) for start, stop in self._spans
        )

    @property
    def layout(self) -> Layout:
        """How they lie in shards."""
        return Layout(self.starts, self.per_shard, self._counts if self.shard_bytes else ())

    def in_shards_of(self, per_shard: int, shard_bytes: int = 0) -> "Photos":
        """Return the same photos, at most so many and so many bytes of them in a shard; 0: any bytes."""
        return replace(self, per_shard=per_shard, shard_bytes=shard_bytes)

    def first(self, count: int) -> "Photos":
        """Return the first photos only."""
        starts = tuple(start for start in self.starts if start < count)
        return replace(self._slice(0, count), starts=starts)

    def generations(self) -> list["Photos"]:
        """Return each generation alone, with as many photos in a shard as its own sizes allow."""
        return [
            replace(self._slice(start, stop), per_shard=count, shard_bytes=0)
            for (start, stop), count in zip(self._spans, self._counts, strict=True)
        ]

    def take(self, rows: Sequence[int]) -> "Photos":
        """Return some of the photos, in this order, as one generation."""

        def taken(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[row] for row in rows)

        return replace(
            self,
            ids=taken(self.ids),
            paths=taken(self.paths),
            stamps=taken(self.stamps),
            labels=taken(self.labels) if self.labels else (),
            starts=(0,),
        )

    def _slice(self, start: int, stop: int) -> "Photos":
        return replace(self.take(range(start, min(stop, len(self)))), first_row=self.first_row + start)

    @property
    def places(self) -> tuple[str, ...]:
        """The paths as they are now, of photos that were renamed too."""
        return tuple(self.moved.get(path, path) for path in self.paths) if self.moved else self.paths

    def piece(self, row: int) -> Piece:
        """Return where the bytes of a photo lie."""
        path = self.paths[row]
        return piece_of(self.url, self.moved.get(path, path), self.stamps[row])

    def given(self) -> Given:
        """Return the files as a dataset of one shard, a row group for each shard of photos.

        Its `id` is the short name: what is made of a photo does not depend on the names of others.
        """
        return self._given

    def named(self) -> Given:
        """Return the same list with the ids and places that people read."""
        if not self.moved and not self.labels and self.ids == self._short_names:
            return self._given
        return self._named

    @cached_property
    def _short_names(self) -> tuple[str, ...]:
        return tuple(map(short_name, self.paths))

    @cached_property
    def _given(self) -> Given:
        return self._listed(self._short_names, self.paths)

    @cached_property
    def _named(self) -> Given:
        return self._listed(self.ids, self.places, self.labels)

    def _listed(self, ids: Sequence[str], paths: Sequence[str], labels: Sequence[str] = ()) -> Given:
        # The folder is not part of what it is: photos that moved are the same photos.
        identity: list[object] = [self.role, list(ids), list(paths), self.stamps]
        rows = {
            "photo": np.arange(self.first_row, self.first_row + len(self), dtype=np.int32),
            "id": list(ids),
            "path": list(paths),
            "stamp": list(self.stamps),
        }
        if labels:
            identity.append({"labels": list(labels)})
            rows["label"] = list(labels)
        return Given(
            name=f"photos_{self.role}",
            folder=f"photos/{self.role}",
            rows=pa.table(rows),
            fingerprint=digest([*identity, self.first_row] if self.first_row else identity),
            row_group_rows=self.per_shard,
        )


def _largest_count(sizes: NDArray[np.int64], most: int, most_bytes: int) -> int:
    """Return how many photos fit into each shard: at most so many, and so many bytes of them.

    A photo that is larger alone is not counted: otherwise it would make all others lie alone too.
    """
    sizes = np.where(sizes > most_bytes, 0, sizes)
    count = max(1, min(most, len(sizes)))
    if not len(sizes) or int(sizes.sum()) <= most_bytes:
        return most
    while count > 1:
        largest = int(np.add.reduceat(sizes, np.arange(0, len(sizes), count)).max())
        if largest <= most_bytes:
            return count
        count = max(1, min(count - 1, int(count * max(0.5, most_bytes / largest))))
    return 1


def photos_of(
    role: Role,
    url: str,
    stamps: Mapping[str, str],
    *,
    ids: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    left_out: str = "",
) -> Photos:
    """Return photos in order of their short names and paths.

    Parameters
    ----------
    role
        "gallery" or "queries".
    url
        The folder.
    stamps
        Known path to size and time of change of each.
    ids, labels
        By path, where a list gives them.
    left_out
        What else lies there.
    """
    paths = tuple(sorted(stamps, key=lambda path: (short_name(path), path)))
    return Photos(
        role,
        url,
        tuple(ids[path] for path in paths) if ids else ids_of_paths(paths),
        paths,
        tuple(stamps[path] for path in paths),
        left_out=left_out,
        labels=tuple(labels[path] for path in paths) if labels else (),
    )


def stored_list(role: Role, root: str, fingerprint: str) -> Dataset:
    """Return the dataset as which `Photos.given` stores the list of this fingerprint."""
    return Dataset(storage.join(root, "photos", role, fingerprint), f"photos_{role}", fingerprint, 1)


def list_photos(role: Role, url: str) -> Photos:
    """List photos: those below a folder, of a list, of a tar archive, or one file.

    Raises
    ------
    LmrError
        If there is nothing, or it holds no photo.
    """
    name = url.rstrip("/").rpartition("/")[2]
    folder = posixpath.dirname(url.rstrip("/")) or "."
    lower = name.lower()
    is_file = _is_file(url)
    if is_file and lower.endswith(LIST_SUFFIXES):
        listed = read_list(url)
        again = counted(listed.repeated, "line of the list names a photo", "lines of the list name photos")
        left_out = f"{again} once more" if listed.repeated else ""
        return photos_of(role, folder, listed.stamps, ids=listed.ids, labels=listed.labels, left_out=left_out)
    if is_file and lower.endswith(PACKED_SUFFIXES):
        raise LmrError(
            f"of a packed archive no photo can be read alone: {printable(url)}",
            got="a packed archive",
            fix="unpack it into a tar file or a folder: gunzip FILE.tar.gz, unzip FILE.zip",
        )
    if is_file and lower.endswith(ARCHIVE_SUFFIX):
        found = find_in_archive(folder, name)
    elif is_file:
        (stamp,) = stamps_of([url])
        if isinstance(stamp, Exception):
            raise StorageError(
                f"cannot look at {printable(url)}", got=str(stamp), fix="check the path"
            ) from stamp
        found = Found({known_path(name): stamp}, {})
    else:
        found = find_photos(url)
    if not found.photos:
        raise _nothing(role, url, found)
    return photos_of(role, folder if is_file else url, found.photos, left_out=left_out_text(found.left_out))


def _is_file(url: str) -> bool:
    """Tell whether a URL is that of one file; on S3 only names that end as files do are looked at."""
    if storage.is_local(url):
        return os.path.isfile(storage.local_path(url))
    kinds = (*LIST_SUFFIXES, *PACKED_SUFFIXES, ARCHIVE_SUFFIX, *PHOTO_SUFFIXES)
    if url.endswith("/") or not url.lower().endswith(kinds):
        return False
    return isinstance(stamps_of([url])[0], str)


def _nothing(role: Role, url: str, found: Found) -> LmrError:
    option = "--gallery" if role == "gallery" else "--queries"
    if url.startswith(("http://", "https://")):
        raise LmrError(
            f"a web address is no folder of the {role}",
            got=printable(url),
            fix=f"write the address of each photo into a line of a text file, and give {option} that file",
        )
    if not found.left_out and not storage.exists(url):
        return StorageError(
            f"the folder of the {role} does not exist",
            got=printable(url),
            fix=f"give {option} a folder, a list, a tar archive, a photo, or the URL of one",
        )
    return LmrError(
        f"the folder of the {role} holds no photo",
        got=f"{printable(url)}: {left_out_text(found.left_out) or 'it is empty'}",
        fix=f"photos are files of these kinds: {', '.join(form.name for form in FORMATS)}",
    )
