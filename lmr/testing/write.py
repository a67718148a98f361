"""Write a world as a folder of JPEGs with its truth, in Kaggle's form; begun work is continued."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

import cv2

from lmr.errors import LmrError, SettingsError, StorageError
from lmr.testing.world import PhotoSpec, World, jpeg, photos

__all__ = ["RENDERER", "write_world"]

RENDERER = 1
"""Raised whenever the renderer draws other pixels for the same world."""

_BATCH = 16
_FOLDERS = {"gallery": "gallery", "query": "queries"}


def write_world(
    world: World,
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Render a world to a folder.

    Writes ``gallery/ID.jpg``, ``queries/ID.jpg``, ``solution.csv`` (header ``id,images``; a line for every
    query, its right answers separated by spaces, empty if there are none), ``landmarks.csv``
    (``id,set,landmark``) and ``world.json``. Every file is whole or absent; what is there already is kept.

    Parameters
    ----------
    world
        The world.
    folder
        Where to; made if absent.
    workers
        Processes to render with; 1 renders in this one. More need an importable main module.
    progress
        Called with (photos there, photos in all), first before anything is rendered.

    Raises
    ------
    StorageError
        If the folder holds another world, or photos of unknown origin, or cannot be written.
    """
    if workers < 1:
        raise SettingsError("workers must be at least 1", got=str(workers), fix="use the number of cores")
    folder = Path(folder)
    specs = photos(world)
    try:
        _claim(world, folder)
        _write_new(folder / "solution.csv", _solution(specs))
        _write_new(folder / "landmarks.csv", "".join(f"{line}\n" for line in _landmarks(specs)))
        there = {which: set(os.listdir(folder / name)) for which, name in _FOLDERS.items()}
        missing = [spec for spec in specs if f"{spec.id}.jpg" not in there[spec.set]]
        done = len(specs) - len(missing)
        if progress is not None:
            progress(done, len(specs))
        batches = [missing[i : i + _BATCH] for i in range(0, len(missing), _BATCH)]
        for count in _rendered(world, folder, batches, min(workers, len(batches))):
            done += count
            if progress is not None:
                progress(done, len(specs))
    except OSError as error:
        raise StorageError(
            f"the world cannot be written to {folder}",
            got=str(error),
            fix="check the path, its permissions and the free space; then run again",
        ) from error
    except BrokenProcessPool as error:
        raise LmrError(
            "a rendering process died",
            got=str(error),
            fix="run again, with fewer workers if memory is short; finished photos are kept",
        ) from error


def _claim(world: World, folder: Path) -> None:
    """Make the folder this world's, or refuse it."""
    mine = json.dumps({"renderer": RENDERER, **asdict(world)}, indent=1) + "\n"
    mark = folder / "world.json"
    if mark.exists():
        if mark.read_text() != mine:
            raise StorageError(
                f"{folder} holds another world",
                got=" ".join(mark.read_text().split()),
                fix="choose an empty folder, or delete this one",
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise StorageError(
            f"{folder} holds files that are not a world's",
            got="no world.json among them",
            fix="choose an empty folder",
        )
    for name in _FOLDERS.values():
        (folder / name).mkdir(parents=True, exist_ok=True)
    _write_new(mark, mine)


def _write_new(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name and rename it, unless it is there already."""
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def _solution(specs: list[PhotoSpec]) -> str:
    answers: dict[str, list[str]] = {}
    for spec in specs:
        if spec.set == "gallery" and spec.landmark:
            answers.setdefault(spec.landmark, []).append(spec.id)
    lines = ["id,images"]
    lines += [f"{s.id},{' '.join(answers.get(s.landmark, []))}" for s in specs if s.set == "query"]
    return "\n".join(lines) + "\n"


def _landmarks(specs: list[PhotoSpec]) -> Iterator[str]:
    yield "id,set,landmark"
    for spec in specs:
        yield f"{spec.id},{spec.set},{spec.landmark}"


def _render_batch(world: World, folder: Path, batch: list[PhotoSpec]) -> int:
    for spec in batch:
        _write_new(folder / _FOLDERS[spec.set] / f"{spec.id}.jpg", jpeg(world, spec))
    return len(batch)


def _rendered(world: World, folder: Path, batches: list[list[PhotoSpec]], workers: int) -> Iterator[int]:
    """Render batches, yielding the size of each when it is written."""
    if workers <= 1:
        for batch in batches:
            yield _render_batch(world, folder, batch)
        return
    # Spawned, not forked: the caller may hold threads (Dask, OpenMP). One OpenCV thread in each process.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        tasks = [pool.submit(_render_batch, world, folder, batch) for batch in batches]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
