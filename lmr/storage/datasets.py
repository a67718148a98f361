"""Datasets of Parquet shards, whole or absent, that say what they are.

A dataset is a folder `part-00000.parquet ...` at any fsspec URL. Every shard carries, in its own
metadata, the schema version, the step and fingerprint that made it, its number and its count of rows; a
reader refuses by name a shard that is missing, cut short, or written by something else.

What is stored is verified when it is read: each page by Parquet's own checksum, and the footer, which says
where pages lie and what they mean, by a digest in front of it (other readers of Parquet skip it). Shards that
an earlier lmr wrote have neither, and are read as they are.

Several datasets can be read as one, their shards numbered through: the generations of a gallery that grows.
"""

import bisect
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmr.errors import ShardError, StorageError
from lmr.storage import objects
from lmr.storage.parquet import open_parquet, read_parquet

__all__ = ["GROUP_BYTES", "SCHEMA_VERSION", "Dataset", "JoinedDataset", "facts_of", "locate"]

SCHEMA_VERSION = 1
"""Version of the layout of shards; a reader refuses any other."""

GROUP_BYTES = 64 << 20
"""Size of a row group of a shard that is more than twice as large."""

_KEY = b"lmr"
_PART = re.compile(r"part-(\d{5,})\.parquet")
_DIGEST_MARK = b"lmr footer sha256"
_DIGEST_BYTES = len(_DIGEST_MARK) + hashlib.sha256().digest_size
_TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Dataset:
    """A folder of Parquet shards.

    Attributes
    ----------
    url
        The folder, at any fsspec URL.
    step
        Name of the step that writes it.
    fingerprint
        The step's fingerprint; shards that carry another are refused.
    shards
        How many shards the whole dataset has.
    """

    url: str
    step: str
    fingerprint: str
    shards: int

    def shard_url(self, shard: int) -> str:
        """Return the URL of a shard."""
        return objects.join(self.url, f"part-{shard:05d}.parquet")

    def present(self) -> dict[int, int]:
        """List the shards that are there, by one listing: shard number to size in bytes.

        An empty file is no shard: some file systems leave one behind when a machine loses power.
        """
        found = {}
        for name, size in objects.folder_sizes(self.url).items():
            match = _PART.fullmatch(name)
            if match and size and int(match[1]) < self.shards:
                found[int(match[1])] = size
        return found

    def has(self, shard: int) -> bool:
        """Tell whether a shard is there, as `present` does."""
        return bool(objects.size(self.shard_url(shard)))

    def write(self, shard: int, rows: pa.Table, *, row_group_rows: int | None = None, **facts: Any) -> int:
        """Write a shard whole or not at all; return its size in bytes.

        Parameters
        ----------
        shard
            Its number.
        rows
            Its rows.
        row_group_rows
            Cut the shard into row groups of this many rows, for readers that want one of them. Without it a
            large shard is cut into groups of about 64 MiB, so that it is written and read in pieces.
        **facts
            Further facts for the shard's metadata, as JSON (seconds taken, peak memory).
        """
        identity = {
            "schema": SCHEMA_VERSION,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "shard": shard,
            "shards": self.shards,
            "rows": rows.num_rows,
        }
        metadata = {_KEY: json.dumps({**identity, **facts, "footer": "digested"}).encode()}
        told, group = rows.replace_schema_metadata(metadata), row_group_rows or _group_rows(rows)
        return objects.put_written(
            self.shard_url(shard), lambda file: _write_parquet(file, told, group), rows.nbytes
        )

    def locate(self, shard: int) -> tuple["Dataset", int]:
        """Return the dataset that stores a shard, and the shard's number there."""
        return self, shard

    def read(
        self, shard: int, columns: Sequence[str] | None = None, *, rows: range | None = None
    ) -> pa.Table:
        """Read a shard, or some of its columns, or a range of its rows; no more row groups than hold them.

        Raises
        ------
        ShardError
            If the shard is missing, truncated, or was not written by this dataset's step and settings.
        """
        with self._opened(shard) as (parquet, _):
            names = None if columns is None else list(columns)
            return _read_rows(parquet, names, rows)

    def read_groups(self, shard: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read a shard row group by row group, holding one of them at a time; see `read`."""
        with self._opened(shard) as (parquet, _):
            for group in range(parquet.num_row_groups):
                yield _read_groups(parquet, None if columns is None else list(columns), [group])

    def facts(self, shard: int) -> dict[str, Any]:
        """Return what a shard's metadata says of it (rows, seconds, peak memory), reading its footer only."""
        with self._opened(shard) as (_, facts):
            return facts

    @contextmanager
    def _opened(self, shard: int) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
        """Open a shard, with its facts; errors inside the block are told as the shard's."""
        url = self.shard_url(shard)
        remake = f"delete {url} and run the same command again: only what is missing is made"
        try:
            with objects.open_read(url) as file:
                footer, digested = _read_footer(file)
                parquet = open_parquet(file, footer=footer)
                facts = self._check(parquet, shard, url, remake)
                if facts.get("footer") == "digested" and not digested:
                    raise ValueError("the digest of its footer is gone")
                yield parquet, facts
        except StorageError as error:
            if isinstance(error, ShardError) or not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise ShardError(
                f"shard {self.step}/{shard:05d} is missing",
                got=f"no file {url}",
                fix="run the same command again: missing shards are remade",
            ) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            got = " ".join(str(error).split())[:200]
            raise ShardError(
                f"shard {self.step}/{shard:05d} is damaged", got=f"{url}: {got}", fix=remake
            ) from error

    def _check(self, parquet: pq.ParquetFile, shard: int, url: str, fix: str) -> dict[str, Any]:
        what = f"shard {self.step}/{shard:05d} is not what it should be"
        facts = _facts(parquet)
        if facts is None:
            raise ShardError(what, got=f"{url}: a Parquet file that lmr did not write", fix=fix)
        if facts.get("schema") != SCHEMA_VERSION:
            raise ShardError(what, got=f"{url}: schema {facts.get('schema')}, not {SCHEMA_VERSION}", fix=fix)
        for key, want in (("step", self.step), ("fingerprint", self.fingerprint), ("shard", shard)):
            if facts.get(key) != want:
                raise ShardError(what, got=f"{url}: {key} {facts.get(key)!r}, not {want!r}", fix=fix)
        if facts.get("rows") != parquet.metadata.num_rows:
            got = f"{url}: {parquet.metadata.num_rows} of {facts.get('rows')} rows"
            raise ShardError(what, got=got, fix=fix)
        return facts


def facts_of(url: str) -> dict[str, Any]:
    """Return what a shard says of itself, whichever dataset it is of; empty where lmr did not write the file.

    Raises
    ------
    StorageError
        If the file cannot be read, or is damaged.
    """
    try:
        with objects.open_read(url) as file:
            footer, _ = _read_footer(file)
            return _facts(open_parquet(file, footer=footer)) or {}
    except (pa.ArrowException, OSError, ValueError) as error:
        got = " ".join(str(error).split())[:200]
        raise StorageError("a shard is damaged", got=f"{url}: {got}", fix=f"delete {url}") from error


def _group_rows(rows: pa.Table) -> int | None:
    """Return how many rows of a large table make a row group; None for a table that is one."""
    if rows.nbytes <= 2 * GROUP_BYTES:
        return None
    return max(1, int(rows.num_rows * GROUP_BYTES // rows.nbytes))


def _write_parquet(file: IO[bytes], rows: pa.Table, row_group_rows: int | None) -> None:
    """Write rows as a Parquet file, with checksums of its pages and a digest of its footer before that."""
    sink = pa.PythonFile(file, mode="w")
    # Descriptors and JPEGs do not compress and have no useful statistics.
    writer = pq.ParquetWriter(
        sink,
        rows.schema,
        compression="lz4",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    writer.write_table(rows, row_group_size=row_group_rows)
    sink.write(bytes(_DIGEST_BYTES))
    writer.close()
    end = file.seek(-8, os.SEEK_END)
    start = end - int.from_bytes(file.read(4), "little")
    file.seek(start)
    digest = _DIGEST_MARK + _digest(file.read())
    file.seek(start - _DIGEST_BYTES)
    file.write(digest)


def _read_footer(file: Any) -> tuple[pq.FileMetaData, bool]:
    """Read a file's footer, by one request where it is short; tell whether its digest was there."""
    size = file.seek(0, 2)
    tail = _tail(file, size, _TAIL_BYTES)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length + _DIGEST_BYTES > len(tail):
        tail = _tail(file, size, length + _DIGEST_BYTES)
    digest, footer = tail[-length - _DIGEST_BYTES : -length], tail[-length:]
    digested = digest.startswith(_DIGEST_MARK)
    if digested and digest[len(_DIGEST_MARK) :] != _digest(footer):
        raise ValueError("its footer is not the one that was written")
    return pq.read_metadata(pa.BufferReader(tail)), digested


def _digest(footer: bytes | memoryview) -> bytes:
    return hashlib.sha256(footer).digest()


def _tail(file: Any, size: int, count: int) -> bytes:
    file.seek(max(size - count, 0))
    tail: bytes = file.read(min(size, count))
    return tail


def _facts(parquet: pq.ParquetFile) -> dict[str, Any] | None:
    """Return what lmr wrote into a file's metadata; None if that is not there."""
    try:
        facts = json.loads((parquet.schema_arrow.metadata or {})[_KEY])
    except (KeyError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def _read_rows(parquet: pq.ParquetFile, columns: list[str] | None, rows: range | None) -> pa.Table:
    """Read the row groups that hold a range of rows, or all, and cut the range out."""
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    rows = range(sum(sizes)) if rows is None else rows
    starts = [0, *itertools.accumulate(sizes)]
    first = max(bisect.bisect_right(starts, rows.start) - 1, 0)
    last = bisect.bisect_left(starts, rows.stop)
    groups = range(first, min(last, len(sizes)))
    return _read_groups(parquet, columns, groups).slice(rows.start - starts[first], len(rows))


def _read_groups(parquet: pq.ParquetFile, columns: list[str] | None, groups: Sequence[int]) -> pa.Table:
    found = read_parquet(parquet, columns, row_groups=groups)
    _check_counts(parquet.metadata, groups, found)
    return found


def _check_counts(about: pq.FileMetaData, groups: Sequence[int], found: pa.Table) -> None:
    """Refuse fewer values than the footer tells of.

    A page's checksum does not cover its header. Of a damaged header the Parquet library tells nothing when
    the page is skipped or read in part.
    """
    if found.num_rows != sum(about.row_group(i).num_rows for i in groups):
        raise ValueError(f"{found.num_rows} rows were read, and there are more or less")
    for field in found.schema:
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            # An empty list takes the place of one value.
            lengths = pc.list_value_length(found.column(field.name)).fill_null(0)
            read = pc.sum(pc.max_element_wise(lengths, 1)).as_py() or 0
            if read != sum(_values(about.row_group(i), field.name) for i in groups):
                raise ValueError(f"{read} values were read of {field.name}, and there are more or less")


def _values(group: Any, name: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(int(one.num_values) for one in columns if one.path_in_schema.split(".")[0] == name)


class _HasShards(Protocol):
    @property
    def shards(self) -> int: ...


Part = TypeVar("Part", bound=_HasShards)


def locate(parts: Sequence[Part], shard: int) -> tuple[Part, int]:
    """Return the part that a shard of parts numbered through lies in, and its number there."""
    inside = shard
    for part in parts:
        if inside < part.shards:
            return part, inside
        inside -= part.shards
    raise IndexError(f"shard {shard} of {sum(part.shards for part in parts)}")


@dataclass(frozen=True)
class JoinedDataset(Dataset):
    """Datasets of one kind read as one; each shard stays where it was written.

    Attributes
    ----------
    parts
        The datasets, in order.
    """

    parts: tuple[Dataset, ...]

    def shard_url(self, shard: int) -> str:
        """Return the URL of a shard."""
        part, inside = self.locate(shard)
        return part.shard_url(inside)

    def present(self) -> dict[int, int]:
        """List the shards that are there, by one listing per part."""
        starts = itertools.accumulate((part.shards for part in self.parts), initial=0)
        listed = zip(starts, self.parts, strict=False)
        return {start + i: size for start, part in listed for i, size in part.present().items()}

    def write(self, shard: int, rows: pa.Table, *, row_group_rows: int | None = None, **facts: Any) -> int:
        """Write a shard into the part that it belongs to."""
        part, inside = self.locate(shard)
        return part.write(inside, rows, row_group_rows=row_group_rows, **facts)

    def locate(self, shard: int) -> tuple[Dataset, int]:
        """Return the part that stores a shard, and the shard's number there."""
        return locate(self.parts, shard)

    def read(
        self, shard: int, columns: Sequence[str] | None = None, *, rows: range | None = None
    ) -> pa.Table:
        """Read a shard, or some of its columns, or a range of its rows."""
        part, inside = self.locate(shard)
        return part.read(inside, columns, rows=rows)

    def read_groups(self, shard: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Read a shard row group by row group."""
        part, inside = self.locate(shard)
        return part.read_groups(inside, columns)

    def facts(self, shard: int) -> dict[str, Any]:
        """Return what a shard's metadata says of it."""
        part, inside = self.locate(shard)
        return part.facts(inside)
