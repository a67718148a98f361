"""Datasets unpacked once per machine, as flat files that all its worker processes map.

A task that needs rows from everywhere (features of many queries, descriptors of neighbours, the lists of
an index) does not read shards per row and does not hold the dataset in its own memory: the first process
that asks unpacks the dataset to local disk under a file lock, all others map the same pages. What is
unpacked is named by its fingerprint, so it never goes stale; the least recently used goes first when the
folder outgrows its limit.

The folder is `$LMR_CACHE` (default: `lmr-cache-<user>` under the temporary directory), its limit
`$LMR_CACHE_GB` (default: half of the disk's free space when something is added).
"""

import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmr.errors import StorageError
from lmr.storage.arrow import Ragged, arrays_of, column, ragged
from lmr.storage.datasets import Dataset

Opened = TypeVar("Opened")

__all__ = ["cache_folder", "map_rows", "named_arrays", "stack", "stack_ragged", "unpack", "write_rows"]


def cache_folder() -> Path:
    """Return this user's folder for unpacked datasets on this machine, made if need be."""
    default = Path(tempfile.gettempdir()) / f"lmr-cache-{os.getuid()}"
    folder = Path(os.environ.get("LMR_CACHE", default))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise StorageError(
            "cannot make the folder for unpacked datasets",
            got=str(error),
            fix="set LMR_CACHE to a writable folder",
        ) from error
    if owner != os.getuid():
        raise StorageError(
            f"{folder} belongs to another user",
            got=f"uid {owner}",
            fix="set LMR_CACHE to a folder of your own",
        )
    return folder


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
    root = cache_folder()
    name = f"{dataset.step}-{dataset.fingerprint}-{key}"
    target = root / name
    with _locked(root / f"{name}.lock"):
        if not target.exists():
            temporary = root / f".{name}.{uuid.uuid4().hex}"
            try:
                temporary.mkdir()
                write(temporary)
                os.replace(temporary, target)
            except OSError as error:
                raise StorageError(
                    f"cannot unpack {dataset.step} on this machine",
                    got=str(error),
                    fix=f"free space under {root}, or set LMR_CACHE to a larger disk",
                ) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            _trim(root, keep=name)
        os.utime(target)
        return open_(target)


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
    about = json.loads(path.with_suffix(".json").read_text())
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, mode="r", shape=shape)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # A lock file on the machine's own disk; shared storage is never locked.
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _trim(root: Path, keep: str) -> None:
    """Remove the least recently used unpacked datasets until the folder keeps its limit."""
    folders = [f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")]
    sizes = {f: sum(g.stat().st_size for g in f.iterdir()) for f in folders}
    total = sum(sizes.values())
    free = shutil.disk_usage(root).free
    limit = float(os.environ.get("LMR_CACHE_GB", (total + free) / 2 / 1e9)) * 1e9
    for folder in sorted(folders, key=lambda f: f.stat().st_mtime):
        if total <= limit:
            return
        if folder.name == keep:
            continue
        # Someone may be opening it right now; then it is in use and stays.
        with open(root / f"{folder.name}.lock", "w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]
