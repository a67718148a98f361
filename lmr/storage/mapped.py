"""Datasets unpacked once per machine, as flat files that all its worker processes map.

A task that needs rows from everywhere (features of many queries, descriptors of neighbours, the lists of
an index) does not read shards per row and does not hold the dataset in its own memory: the first process
that asks unpacks the dataset to local disk under a file lock, all others map the same pages. What is
unpacked is named by its fingerprint, so it never goes stale. It is described by lengths and digests; what no
longer fits its description, or cannot be opened, is unpacked again. The least recently used goes first when
the folder outgrows its limit.

The folder is `lmr-unpacked` below `lmr.storage.folders.cache_root()` (`$LMR_CACHE`), its limit
`$LMR_CACHE_GB` (default: half of the disk's free space when something is added).
"""

import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import LmrError, StorageError
from lmr.storage._sealed import DESCRIPTION, is_whole, seal, sync
from lmr.storage.arrow import Ragged, arrays_of, column, ragged
from lmr.storage.datasets import Dataset
from lmr.storage.folders import private_folder, remove
from lmr.storage.in_memory import MemoryDataset
from lmr.storage.locks import locked

Opened = TypeVar("Opened")

__all__ = [
    "cache_folder",
    "kept_open",
    "map_rows",
    "named_arrays",
    "spilled",
    "spilled_rows",
    "stack",
    "stack_ragged",
    "unpack",
    "write_arrays",
    "write_rows",
]

_kept: ContextVar[dict[str, Any] | None] = ContextVar("_kept", default=None)


def cache_folder() -> Path:
    """Return this user's folder for unpacked datasets on this machine, made if need be."""
    return private_folder("unpacked")


@contextmanager
def kept_open(opened: dict[str, Any]) -> Iterator[None]:
    """Keep what is opened inside the block, and open nothing that is kept.

    For a program that asks again and again: looking whether a folder is whole takes longer than a small
    search. Whoever gives the dictionary decides how long its files stay mapped.
    """
    token = _kept.set(opened)
    try:
        yield
    finally:
        _kept.reset(token)


def stack(dataset: Dataset, name: str) -> NDArray[Any]:
    """Return one column of all shards as one array, mapped from local disk.

    Returns
    -------
    array
        (n,) for a column of numbers, (n, d) for one of packed rows; read-only.
    """
    return unpack(dataset, name, lambda folder: _write_stack(dataset, name, folder), _map_stack)


def stack_ragged(dataset: Dataset, name: str) -> Ragged:
    """Return one list column of all shards as one `Ragged`, mapped from local disk."""
    return unpack(dataset, name, lambda folder: _write_ragged(dataset, name, folder), _map_ragged)


def named_arrays(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """Return the arrays that a one-shard dataset holds (a codebook, a projection), read once per call."""
    return arrays_of(dataset.read(0))


def spilled(write: Callable[[IO[bytes]], None]) -> NDArray[np.uint8]:
    """Return the bytes that `write` makes, mapped from a file of this machine's disk that has no name.

    For what is made in one piece and would be held twice otherwise. The file ends with the last array that
    maps it, or with the process, however that ends.
    """
    root = cache_folder()
    try:
        with tempfile.TemporaryFile(dir=root) as file:
            write(file)
            file.flush()
            if not file.tell():
                return np.empty(0, np.uint8)
            return np.memmap(file, np.uint8, mode="r")
    except OSError as error:
        raise StorageError(
            "there is no room for a temporary file on this machine",
            got=str(error),
            fix=f"free space under {root}, or set LMR_CACHE to a larger disk",
        ) from error


def spilled_rows(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return arrays one after another as one array, mapped as by `spilled`; one of them is held at a time."""
    widths: dict[str, Any] = {"width": None, "dtype": None}

    def write(file: IO[bytes]) -> None:
        for array in arrays:
            # An empty shard does not know its width.
            if len(array) or widths["width"] is None:
                widths.update(width=array.shape[1:], dtype=array.dtype)
            file.write(np.ascontiguousarray(array).data)

    found = spilled(write)
    return (
        found.view(widths["dtype"]).reshape(-1, *widths["width"])
        if len(found)
        else np.empty((0, *widths["width"]), widths["dtype"])
    )


def unpack(
    dataset: Dataset, key: str, write: Callable[[Path], None], open_: Callable[[Path], Opened]
) -> Opened:
    """Open what `write` made of a dataset on this machine, making it first if it is not there.

    Parameters
    ----------
    dataset
        The dataset; its fingerprint and `key` name the result.
    key
        Which view of the dataset this is.
    write
        Fills an empty folder.
    open_
        Opens the finished folder; called while nobody may remove it.
    """
    if isinstance(dataset, MemoryDataset):
        # Its fingerprint is that of every photo that is asked for: nothing of it may stay. What is mapped
        # outlives the folder.
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            return open_(Path(folder))
    name = f"{dataset.step}-{dataset.fingerprint}-{key}"
    kept = _kept.get()
    if kept is None:
        return _unpacked_once(dataset, name, write, open_)
    if name not in kept:
        kept[name] = _unpacked_once(dataset, name, write, open_)
    opened: Opened = kept[name]
    return opened


def _unpacked_once(
    dataset: Dataset, name: str, write: Callable[[Path], None], open_: Callable[[Path], Opened]
) -> Opened:
    root = cache_folder()
    target = root / name
    with locked(root / f"{name}.lock"):
        if is_whole(target):
            # What is whole and still cannot be opened is a miss too.
            with suppress(OSError, ValueError, LmrError):
                os.utime(target)
                return open_(target)
        try:
            _make(root, name, write)
            return open_(target)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"cannot unpack {dataset.step} on this machine",
                got=str(error),
                fix=f"free space under {root}, or set LMR_CACHE to a larger disk",
            ) from error


def _make(root: Path, name: str, write: Callable[[Path], None]) -> None:
    """Unpack into a folder that then takes its name at once; whoever calls holds the lock of the name."""
    for left in [f.name for f in root.iterdir() if f.name == name or f.name.startswith(f".{name}.")]:
        remove(root, left)  # damaged, or begun by a process that was killed
    _limit_bytes(0)  # a wrong one is told before the work
    temporary = f".{name}.{uuid.uuid4().hex}"
    try:
        (root / temporary).mkdir()
        write(root / temporary)
        pa.default_memory_pool().release_unused()  # what was read is not needed again
        seal(root / temporary)
        os.replace(root / temporary, root / name)
        sync(root)
    finally:
        remove(root, temporary)
    _trim(root, keep=name)


def _write_stack(dataset: Dataset, name: str, folder: Path) -> None:
    arrays = (column(dataset.read(i, [name]), name) for i in range(dataset.shards))
    write_rows(folder / "values", arrays)


def _map_stack(folder: Path) -> NDArray[Any]:
    return map_rows(folder / "values")


def _write_ragged(dataset: Dataset, name: str, folder: Path) -> None:
    counts: list[NDArray[Any]] = []

    def values() -> Iterator[NDArray[Any]]:
        for i in range(dataset.shards):
            rows = ragged(dataset.read(i, [name]), name)
            counts.append(np.diff(rows.offsets))
            yield rows.values

    write_rows(folder / "values", values())
    write_rows(
        folder / "offsets", [np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)]
    )


def _map_ragged(folder: Path) -> Ragged:
    return Ragged(map_rows(folder / "values"), map_rows(folder / "offsets"))


def write_arrays(groups: Iterable[pa.Table], folder: Path, *, bare: Container[str] = ()) -> None:
    """Write each array that `array_table` stored to a file NAME.npy, as the parts of the arrays come.

    Parameters
    ----------
    groups
        The rows of the shard, one row group after another.
    folder
        Where the files lie.
    bare
        Arrays whose bytes alone are written, to a file NAME.
    """
    for group in groups:
        about = group.drop_columns("data").to_pylist()
        for row, data in zip(about, group.column("data"), strict=True):
            name = row["name"]
            with open(folder / (name if name in bare else f"{name}.npy"), "ab") as file:
                if not row["part"] and name not in bare:
                    shape = tuple(row["shape"])
                    header = {"descr": row["dtype"], "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(memoryview(data.as_buffer()))


def write_rows(path: Path, arrays: Iterable[NDArray[Any]]) -> None:
    """Write arrays one after another as one flat file, holding one of them at a time."""
    rows, width, dtype = 0, None, None
    with open(path, "wb") as file:
        for array in arrays:
            # An empty shard does not know its width.
            if len(array) or width is None:
                width, dtype = array.shape[1:], array.dtype
            rows += len(array)
            file.write(np.ascontiguousarray(array).data)
    shape = [rows, *(width or ())]
    path.with_suffix(".json").write_text(json.dumps({"shape": shape, "dtype": np.dtype(dtype).str}))


def map_rows(path: Path) -> NDArray[Any]:
    """Map what `write_rows` has written."""
    about = json.loads(path.with_suffix(".json").read_bytes())
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", shape=shape)


def _trim(root: Path, keep: str) -> None:
    """Remove the least recently used unpacked datasets until the folder keeps its limit."""
    used = sorted((used, name, size) for name, (used, size) in _unpacked(root).items())
    total = sum(size for _, _, size in used)
    limit = _limit_bytes(total + shutil.disk_usage(root).free)
    for _, name, size in used:
        if total <= limit:
            return
        if name == keep:
            continue
        # Someone may be opening it right now; then it is in use and stays.
        with locked(root / f"{name}.lock", wait=False) as held:
            if held:
                remove(root, name)
                remove(root, f"{name}.lock")
                total -= size


def _unpacked(root: Path) -> dict[str, tuple[float, int]]:
    """Return the unpacked datasets: when each was last used, and its size in bytes."""
    found = {}
    for folder in root.iterdir():
        # Another process may remove one while it is looked at.
        with suppress(FileNotFoundError, NotADirectoryError):
            if not folder.name.startswith(".") and (folder / DESCRIPTION).is_file():
                size = sum(file.lstat().st_size for file in folder.iterdir())
                found[folder.name] = folder.lstat().st_mtime, size
    return found


def _limit_bytes(available: int) -> float:
    text = os.environ.get("LMR_CACHE_GB")
    if not text:
        return available / 2
    with suppress(ValueError):
        if (limit := float(text)) >= 0 and not math.isnan(limit):
            return limit * 1e9
    raise StorageError("LMR_CACHE_GB is no size", got=text, fix="give a number of gigabytes, such as 200")
