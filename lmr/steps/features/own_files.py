"""Own descriptors as they come in, from files or from a Python program, checked before any work.

Vectors are an array (n, d), one for each photo, or (n, r, d), of which the first is the whole photo's and all
are nodes of the graph that ranks spread along. They lie in an `.npy` file, or with their ids in a Parquet
file of the columns `id` and `descriptor` (a list of numbers, or a list of such lists).
"""

import hashlib
import io
import tokenize
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import is_plain_id
from lmr.retrieval.descriptors import to_float
from lmr.retrieval.global_search.exact import spans
from lmr.runtime.settings import digest
from lmr.runtime.steps import Given, Role
from lmr.steps.both import Both
from lmr.steps.parquet_files import parquet_table
from lmr.steps.photos.listing import Photos
from lmr.steps.photos.names import named_offenders
from lmr.storage.arrow import Ragged, table

__all__ = ["Vectors", "check_dimensions", "read_vectors"]

ROWS_AT_ONCE = 65_536  # while they are checked
KINDS = (np.float16, np.float32, np.float64, np.uint8, np.int8)


@dataclass(frozen=True, eq=False)
class Vectors:
    """The descriptors of one side, by id, in the order of their file.

    Attributes
    ----------
    role
        "gallery" or "queries".
    url
        Where they come from.
    ids
        The photos.
    regions
        float16 unit rows: a photo's own vector first.
    """

    role: Role
    url: str
    ids: tuple[str, ...]
    regions: Ragged = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return int(self.regions.values.shape[1])

    @property
    def most_per_photo(self) -> int:
        """Most vectors of a photo."""
        return int(np.diff(self.regions.offsets).max())

    def first(self, count: int) -> "Vectors":
        """Return those of the first photos only."""
        offsets = self.regions.offsets[: count + 1]
        return replace(
            self, ids=self.ids[:count], regions=Ragged(self.regions.values[: offsets[-1]], offsets)
        )

    def photos(self) -> Photos:
        """Return the photos that they describe: ids without files."""
        nothing = ("",) * len(self)
        return Photos(self.role, self.url, self.ids, nothing, nothing)

    def given(self, per_shard: int) -> Given:
        """Return them as a dataset of one shard, a row group for each shard of photos."""
        photos = np.arange(len(self), dtype=np.int32)
        content = hashlib.sha256(np.ascontiguousarray(self.regions.values).data).hexdigest()
        return Given(
            name=f"vectors_{self.role}",
            folder=f"vectors/{self.role}",
            rows=table({"photo": photos, "regions": self.regions}),
            fingerprint=digest([self.role, self.ids, self.regions.offsets.tolist(), content]),
            row_group_rows=per_shard,
        )


def read_vectors(
    role: Role, source: str | NDArray[np.generic], ids: str | Sequence[str] | None = None
) -> Vectors:
    """Read the vectors of one side and check them.

    Parameters
    ----------
    role
        "gallery" or "queries".
    source
        An .npy or Parquet file at any URL, or the array itself.
    ids
        A text file with an id in each line, a Parquet file with a column `id`, or the ids themselves; None:
        they stand in the Parquet file beside the vectors.

    Raises
    ------
    LmrError
        If something cannot be read or does not fit: every photo concerned is counted, the first are named.
    """
    what = f"the descriptors of the {role}"
    option = "gallery" if role == "gallery" else "query"
    rows = _parquet(source) if isinstance(source, str) and _is_parquet(source) else None
    if ids is not None:
        names = _ids(ids)
    elif rows is not None:
        names = _ids_of(rows, str(source))
    else:
        raise LmrError(
            f"{what} have no ids",
            got=_shown(source),
            fix=f"give --{option}-ids: a text file of an id in each line, or a Parquet file with a column id",
        )
    if rows is not None:
        values, counts = _of_lists(rows, names, what, str(source))
    else:
        values, counts = _of_array(_array(source) if isinstance(source, str) else np.asarray(source), what)
    _check_number(len(counts), names, what)
    _check_ids(names, what)
    owners = np.repeat(np.arange(len(names)), counts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    url = storage.absolute(source) if isinstance(source, str) else "memory"
    return Vectors(role, url, tuple(names), Ragged(_unit_rows(values, owners, names, what), offsets))


def check_dimensions(vectors: Both[Vectors]) -> None:
    """Refuse queries whose vectors are of another length than the gallery's."""
    dimensions = vectors.map(lambda side: side.dimension)
    if dimensions.gallery != dimensions.queries:
        raise LmrError(
            "gallery and queries have descriptors of different dimensions",
            got=f"{dimensions.gallery} in the gallery, {dimensions.queries} of the queries",
            fix="describe both with the same extractor",
        )


def _shown(source: str | NDArray[np.generic]) -> str:
    return source if isinstance(source, str) else f"an array {source.shape} of {source.dtype}"


def _is_parquet(url: str) -> bool:
    return url.lower().endswith((".parquet", ".pq"))


def _array(url: str) -> NDArray[np.generic]:
    data = io.BytesIO(storage.read(url))
    try:
        found: NDArray[np.generic] = np.load(data, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, tokenize.TokenError, zipfile.BadZipFile) as error:
        # A damaged header may ask for any size, and is parsed as Python's text.
        raise LmrError(
            f"{url} is no file of descriptors", got=str(error), fix="save them by numpy.save, or as Parquet"
        ) from error
    if not isinstance(found, np.ndarray):
        raise LmrError(f"{url} holds several arrays", got=type(found).__name__, fix="save one by numpy.save")
    return found


def _parquet(url: str) -> pa.Table:
    return parquet_table(storage.read(url), url)


def _ids(source: str | Sequence[str]) -> list[str]:
    if not isinstance(source, str):
        return [str(one) for one in source]
    if _is_parquet(source):
        return _ids_of(_parquet(source), source)
    try:
        lines = storage.read(source).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LmrError(f"{source} is not text", got=str(error), fix="write one id in each line") from error
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def _ids_of(rows: pa.Table, url: str) -> list[str]:
    return ["" if one is None else str(one) for one in _column(rows, "id", url).to_pylist()]


def _column(rows: pa.Table, name: str, url: str) -> pa.Array:
    if name not in rows.column_names:
        raise LmrError(
            f"{url} has no column {name!r}",
            got=", ".join(rows.column_names),
            fix=f"write the {'ids' if name == 'id' else 'descriptors'} as a column {name!r}",
        )
    found = rows.column(name).combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def _of_array(array: NDArray[np.generic], what: str) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Return the vectors as rows, and how many there are of each photo."""
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype not in KINDS:
        raise LmrError(
            f"{what} are not an array of vectors",
            got=f"an array {array.shape} of {array.dtype}",
            fix="give (n, d), or (n, r, d) for several of each photo, of floats, uint8 or int8",
        )
    each = array.shape[1] if array.ndim == 3 else 1
    return array.reshape(-1, array.shape[-1]), np.full(len(array), each, np.int64)


def _of_lists(
    rows: pa.Table, names: Sequence[str], what: str, url: str
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Return the vectors of a Parquet file as rows, and how many there are of each photo."""
    lists = _column(rows, "descriptor", url)
    if not _is_list(lists.type):
        raise LmrError(
            f"{what} are no lists of numbers", got=f"{url}: a column of {lists.type}", fix="write lists"
        )
    _check_number(len(lists), names, what)  # what is refused below is named
    counts = np.ones(len(lists), np.int64)
    if _is_list(lists.type.value_type):
        counts = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
        _refuse(counts == 0, names, f"{what}: photos without a vector", "leave them out, or describe them")
        lists = lists.flatten()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)
    dimension = int(np.bincount(lengths).argmax()) if len(lengths) else 0
    owners = np.repeat(np.arange(len(counts)), counts)
    _refuse(
        _any(lengths != dimension, owners, len(counts)),
        names,
        f"{what}: vectors that have not {dimension} numbers as most have",
        "describe all photos with one extractor",
    )
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return _of_array(flat.reshape(len(lengths), dimension), what)[0], counts


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _unit_rows(
    values: NDArray[np.generic], owners: NDArray[np.int64], names: Sequence[str], what: str
) -> NDArray[np.float16]:
    """Return unit rows as they are stored; refuse vectors that have no direction."""
    unit = np.empty(values.shape, np.float16)
    endless, nothing = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for lo, hi in spans(len(values), ROWS_AT_ONCE):
        with np.errstate(over="ignore"):  # what float32 cannot hold is told below
            block = values[lo:hi].astype(np.float32)
        unit[lo:hi] = to_float(block)
        endless[lo:hi] = ~np.isfinite(block).all(axis=1)
        nothing[lo:hi] = ~unit[lo:hi].any(axis=1) & ~endless[lo:hi]
    again = "describe these photos again, or leave them out"
    _refuse(_any(endless, owners, len(names)), names, f"{what} hold NaN or infinity", again)
    _refuse(_any(nothing, owners, len(names)), names, f"{what} hold vectors of zeros", again)
    return unit


def _any(marks: NDArray[np.bool_], owners: NDArray[np.int64], photos: int) -> NDArray[np.bool_]:
    return np.bincount(owners, weights=marks, minlength=photos) > 0


def _check_number(descriptors: int, names: Sequence[str], what: str) -> None:
    if descriptors != len(names):
        raise LmrError(
            f"{what} and their ids differ in number",
            got=f"{descriptors:,} descriptors, {len(names):,} ids",
            fix="give one id for each descriptor, in the same order",
        )


def _check_ids(names: Sequence[str], what: str) -> None:
    bad = [repr(name) for name in names if not is_plain_id(name)]
    if bad:
        raise LmrError(
            f"{what} have ids that cannot stand in Kaggle's files",
            got=named_offenders(bad),
            fix="give every photo an id without spaces, commas and quotes; no formula, and not the word none",
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise LmrError(
            f"{what} have ids that stand there more than once",
            got=named_offenders(twice),
            fix="give each photo one id; several vectors of a photo are an array (n, r, d)",
        )


def _refuse(marks: NDArray[np.bool_], names: Sequence[str], what: str, fix: str) -> None:
    if marks.any():
        raise LmrError(what, got=named_offenders([names[i] for i in np.flatnonzero(marks).tolist()]), fix=fix)
