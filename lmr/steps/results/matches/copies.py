"""Confident matches sorted into a folder for each query: copies of the photos, or links to them."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lmr import storage
from lmr.errors import LmrError
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.matches.lists import RunLists
from lmr.steps.results.matches.matches import files_of
from lmr.storage.json_files import read_json, write_json
from lmr.text import printable

__all__ = ["Copied", "copy_matches"]

RECORD = "lmr-matches.json"
"""Names what was written into the folder, so that nothing else there is ever changed."""

_NAME_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What lies in the folder afterwards.

    Attributes
    ----------
    photos, queries
        Photos, and folders of queries that have any.
    removed
        Photos of an earlier copy that are no confident matches any more.
    """

    photos: int
    queries: int
    removed: int


def copy_matches(run: RunDatasets, folder: str, *, links: bool = False) -> Copied:
    """Sort the confident matches of every query into a folder of its own.

    A photo is named by its rank and its file: `cathedral/001_IMG_2031.jpg`. What an earlier call has written
    is replaced, and only that. Queries whose ids would name one folder are told apart by their rows.

    Parameters
    ----------
    run
        A run whose workflow verifies pairs.
    folder
        A folder on this machine: a new or empty one, or one that was filled by an earlier call.
    links
        Whether symbolic links to the gallery's photos are made in place of copies.

    Raises
    ------
    LmrError
        If the folder holds something else, the workflow has no confident matches, or links are wanted of
        photos that are no files of this machine.
    """
    if run.verified is None or run.images is None:
        raise LmrError(
            "this run has no confident matches to copy",
            got="a workflow without verification",
            fix=f"see {_files_text(run)}",
        )
    if not storage.is_local(folder):
        raise LmrError("matches are copied to folders of this machine", got=folder, fix="give a path")
    root = Path(storage.absolute(folder))
    gallery = _gallery_folder(run) if links else None
    known, wanted = _read_record(root), _wanted(run)
    there = [name for name in wanted if os.path.lexists(root / name)]
    foreign = {name: wanted[name] for name in there if not _is_ours(root / name, known.get(name, ""))}
    # Of a call that was cut off, the record may not tell what it has written: that is what is wanted again.
    begun = {name: row for name, row in foreign.items() if name in known}
    for name, content in _photos(run, begun, gallery):
        if _holds(root / name, content):
            del foreign[name]
    if foreign:
        raise LmrError(
            f"the folder holds {len(foreign)} file(s) that are not copies of matches, or were changed since",
            got=str(root / next(iter(foreign))),
            fix="give a new or an empty folder",
        )
    removed = sum(_remove(root / name, written) for name, written in known.items() if name not in wanted)
    # Named before they are written, with what they hold until then: a call that is cut off can be made again.
    written = {name: known.get(name, "") for name in wanted}
    _store_record(root, written)
    try:
        for name, content in _photos(run, wanted, gallery):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.unlink(missing_ok=True)
                path.symlink_to(content)
            else:
                if path.is_symlink():
                    path.unlink()
                storage.put(str(path), content)
            written[name] = _mark(content)
    finally:
        _store_record(root, written)
    return Copied(photos=len(written), queries=len({Path(n).parent for n in written}), removed=removed)


def _files_text(run: RunDatasets) -> str:
    return ", ".join(files_of(run)[:3]) or "lmr matches RUN, which tells what was found"


def _wanted(run: RunDatasets) -> dict[str, int]:
    """Return the files to write, as paths below the folder, and the gallery row of each."""
    lists = RunLists(run)
    folders = _folders(lists.photos.queries.column("id").to_pylist())
    paths = lists.photos.gallery.column("path")
    wanted: dict[str, int] = {}
    for part in lists:
        if part.confident is None:
            continue
        for query, rank in zip(*part.confident.nonzero(), strict=True):
            row = int(part.last.photos[query, rank])
            file = _safe(PurePosixPath(paths[row].as_py()).name)
            wanted[f"{folders[part.queries[query]]}/{rank + 1:03d}_{file}"] = row
    return wanted


def _folders(ids: Sequence[str]) -> list[str]:
    """Return a folder's name for each query, no two the same, also where a disk knows no capitals."""
    names = [_safe(one) for one in ids]
    count = Counter(name.casefold() for name in names)
    taken = set(count)
    for row, name in enumerate(names):
        if count[name.casefold()] > 1:
            names[row] = f"{name}~{row}"
            while names[row].casefold() in taken:
                names[row] += "~"
            taken.add(names[row].casefold())
    return names


def _safe(name: str) -> str:
    """Return a name as one part of a path: not a folder's dots, nothing unseen, and not too long."""
    shown = printable(name).replace("/", "_")
    shown = f"_{shown}" if shown.strip(".") == "" else shown
    stem, suffix = os.path.splitext(shown)
    while len(f"{stem}{suffix}".encode()) > _NAME_BYTES and stem:
        stem = stem[:-1]
    return f"{stem}{suffix}"


def _photos(
    run: RunDatasets, wanted: Mapping[str, int], gallery: Path | None
) -> Iterator[tuple[str, bytes | Path]]:
    """Yield each file with its content, or with the photo that a link shall lead to; shards are read once."""
    if gallery is not None:
        paths = run.photos.gallery.read(0, ["path"]).column("path")
        for name, row in wanted.items():
            yield name, gallery / paths[row].as_py()
        return
    by_shard: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name, row in wanted.items():
        shard, inside = run.layouts.gallery.place(row)
        by_shard[shard].append((name, inside))
    for shard, some in sorted(by_shard.items()):
        assert run.images is not None
        images = run.images.gallery.read(shard, ["image"]).column("image")
        for name, inside in some:
            yield name, images[inside].as_py()


def _gallery_folder(run: RunDatasets) -> Path:
    """Return the folder of the gallery's photos, to which links lead."""
    url = str(run.about.get("gallery", ""))
    if not url or not storage.is_local(url) or not os.path.isdir(storage.local_path(url)):
        raise LmrError(
            "links can only lead to photos in a folder of this machine",
            got=url or "a run of an earlier lmr, which did not note the gallery's folder",
            fix="leave out --links: then the photos are copied",
        )
    return Path(storage.absolute(url))


def _mark(content: bytes | Path) -> str:
    """Return what the record keeps of a file: its digest, or where a link leads."""
    return f"link {content}" if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _is_ours(path: Path, written: str) -> bool:
    """Tell whether a file is still what was written; of what the record does not tell, it is not known."""
    if path.is_symlink():
        return _mark(Path(os.readlink(path))) == written
    return bool(written) and path.is_file() and _mark(path.read_bytes()) == written


def _holds(path: Path, content: bytes | Path) -> bool:
    """Tell whether a file is already what is to be written."""
    return _is_ours(path, _mark(content))


def _remove(path: Path, written: str) -> bool:
    """Remove a file that an earlier call wrote, and its folder if that is empty then."""
    if not os.path.lexists(path) or not _is_ours(path, written):
        return False
    path.unlink()
    with suppress(OSError):  # other files are there
        path.parent.rmdir()
    return True


def _read_record(root: Path) -> dict[str, str]:
    path = root / RECORD
    if not path.exists():
        return {}
    fix = "give a new or an empty folder"
    found: dict[str, str] = read_json(str(path), dict[str, dict[str, str]], fix=fix)["files"]
    return found


def _store_record(root: Path, files: Mapping[str, str]) -> None:
    write_json(str(root / RECORD), {"files": dict(files)})
