"""From a data set's files, as they are published, to gallery, queries and solution."""

import gzip
import io
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from lmr.collections.catalogue import Collection
from lmr.collections.pickles import read_truth_pickle
from lmr.collections.ready import GALLERY, QUERIES, SOLUTION, TRUTH
from lmr.errors import LmrError, StorageError, one_line
from lmr.evaluation.protocols.kaggle import parse_solution
from lmr.storage.objects import remedy

__all__ = ["gunzip", "solve", "unpack"]

_DAMAGE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)
_AGAIN = "it was deleted: run the same command again"
_COPY_BYTES = 1 << 20


def unpack(collection: Collection, folder: Path, archive: Path, *, fetched: bool = True) -> list[str]:
    """Unpack an archive of a data set into gallery and queries; return the files below its folder.

    Parameters
    ----------
    collection
        The data set.
    folder
        Its folder.
    archive
        The archive in it.
    fetched
        Whether `lmr` has fetched it: a person's own is never deleted.

    Raises
    ------
    LmrError
        If the archive is damaged; it is deleted if it was fetched.
    StorageError
        If the disk is full.
    """
    sort = _sort_revisited(folder) if collection.layout == "revisited" else _sort_ilias
    written = []
    try:
        for path, read in _members(archive):
            for place, change in sort(path):
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(change(read(), path))
                written.append(place)
    except _DAMAGE as error:
        raise _damaged(archive, error, fetched) from error
    except OSError as error:
        raise StorageError(
            f"cannot unpack {archive.name} into {folder}", got=one_line(error), fix=remedy(error)
        ) from error
    return written


def _damaged(path: Path, error: Exception, fetched: bool) -> LmrError:
    if fetched:
        path.unlink(missing_ok=True)
    own = "it was not fetched by lmr, and stays: move it away, and run the same command again"
    return LmrError(f"{path.name} is damaged", got=one_line(error), fix=_AGAIN if fetched else own)


def gunzip(packed: Path, plain: Path, *, fetched: bool = True) -> None:
    """Write a packed file without its packing, whole or not at all; the packed one goes if it was fetched.

    Raises
    ------
    LmrError
        If it is damaged; it is deleted if it was fetched.
    StorageError
        If the disk is full.
    """
    part = plain.with_name(f"{plain.name}.part")
    try:
        with gzip.open(packed) as source, part.open("wb") as file:
            while data := source.read(_COPY_BYTES):
                file.write(data)
    except _DAMAGE as error:
        part.unlink(missing_ok=True)
        raise _damaged(packed, error, fetched) from error
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"cannot unpack {packed.name}", got=one_line(error), fix=remedy(error)) from error
    part.replace(plain)
    if fetched:
        packed.unlink()


def solve(collection: Collection, folder: Path) -> list[str]:
    """Write the solution for the photos that are there; return what a user should know of it, sentences.

    `solution.csv` names the right photos of each query. Revisited Oxford and Paris get `truth.csv` besides,
    with easy, hard and junk photos; there the solution's right photos are the easy and the hard ones.
    """
    if collection.layout == "revisited":
        return _solve_revisited(folder)
    if collection.layout == "ilias":
        return _solve_ilias(folder)
    return _solve_contest(folder)


_Change = Callable[[bytes, str], bytes]
_Sort = Callable[[str], Iterable[tuple[str, _Change]]]


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield path and reader of every file of an archive; links and devices are passed over."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isreg():

                def read(member: tarfile.TarInfo = member) -> bytes:
                    file = tar.extractfile(member)
                    data = file.read() if file else b""
                    if len(data) < member.size:
                        raise EOFError(f"the archive ends in {member.name}")
                    return data

                yield member.name, read


def _as_it_is(data: bytes, path: str) -> bytes:
    return data


def _sort_revisited(folder: Path) -> _Sort:
    truth = _truth(folder)
    gallery = set(truth["imlist"])
    boxes = {name: one["bbx"] for name, one in zip(truth["qimlist"], truth["gnd"], strict=True)}

    def sort(path: str) -> Iterator[tuple[str, _Change]]:
        name = PurePosixPath(path).stem
        if name in gallery:
            yield f"{GALLERY}/{name}.jpg", _as_it_is
        if name in boxes:
            box = boxes[name]
            yield f"{QUERIES}/{name}.png", lambda data, where: _cut(data, where, box)

    return sort


def _cut(data: bytes, path: str, box: Sequence[float]) -> bytes:
    """Cut a photo to a box; as the protocol's own code does, without regard to EXIF's orientation."""
    try:
        with Image.open(io.BytesIO(data)) as photo:
            cut = photo.convert("RGB").crop((box[0], box[1], box[2], box[3]))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise tarfile.ReadError(f"{path} is no photo: {error}") from error
    out = io.BytesIO()
    cut.save(out, "PNG")
    return out.getvalue()


def _sort_ilias(path: str) -> Iterator[tuple[str, _Change]]:
    parts = PurePosixPath(path).parts
    if len(parts) < 3 or any(part in ("..", "/") for part in parts):
        return
    thing, kind, name = parts[-3:]
    if not name.endswith(".jpg"):
        yield f"annotations/{thing}/{name}", _as_it_is
    elif kind in ("query", "pos"):
        yield f"{QUERIES if kind == 'query' else GALLERY}/{thing}/{name}", _as_it_is


def _truth(folder: Path) -> dict[str, Any]:
    (path,) = sorted((folder / "annotations").glob("gnd_*.pkl"))
    return read_truth_pickle(path.read_bytes(), str(path))


def _solve_revisited(folder: Path) -> list[str]:
    truth = _truth(folder)
    there = _names(folder / GALLERY)
    asked = [
        one for one in zip(truth["qimlist"], truth["gnd"], strict=True) if one[0] in _names(folder / QUERIES)
    ]

    def named(one: Mapping[str, Any], *keys: str) -> list[str]:
        names = [truth["imlist"][number] for key in keys for number in one[key]]
        return [name for name in names if name in there]

    _write_solution(folder, {query: named(one, "easy", "hard") for query, one in asked})
    rows = [
        ",".join([q, *(" ".join(named(one, key)) for key in ("easy", "hard", "junk"))]) for q, one in asked
    ]
    (folder / TRUTH).write_text("\n".join(["id,easy,hard,junk", *rows, ""]), encoding="utf-8")
    lost = len(set(truth["imlist"]) - there) + len(truth["qimlist"]) - len(asked)
    news = [f"{lost:,} photos of the ground truth are not in the archives that were fetched"] if lost else []
    return [*news, "the solution's right photos are the easy and the hard ones; junk is in truth.csv only"]


def _solve_ilias(folder: Path) -> list[str]:
    of_thing: dict[str, list[str]] = defaultdict(list)
    for path in sorted((folder / GALLERY).glob("*/*.jpg")):
        of_thing[path.parent.name].append(path.stem)
    queries = sorted((folder / QUERIES).glob("*/*.jpg"))
    _write_solution(folder, {path.stem: of_thing[path.parent.name] for path in queries})
    return []


def _solve_contest(folder: Path) -> list[str]:
    (path,) = sorted((folder / "annotations").glob("retrieval_solution*.csv"))
    whole = parse_solution(path.read_bytes(), str(path))
    queries, gallery = (_names_in_tars(folder / side) for side in (QUERIES, GALLERY))
    kept = {query: [p for p in photos if p in gallery] for query, photos in whole.items() if query in queries}
    _write_solution(folder, kept)
    counted = sum(bool(photos) for photos in kept.values())
    of_all = sum(bool(photos) for photos in whole.values())
    return [f"{counted:,} of the contest's {of_all:,} queries with an answer have one among these photos"]


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()} if folder.is_dir() else set()


def _names_in_tars(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in sorted(folder.glob("*.tar")):
        try:
            with tarfile.open(path, "r:") as tar:
                names |= {PurePosixPath(member.name).stem for member in tar if member.isreg()}
        except _DAMAGE as error:
            # What lies there may be a person's own archive.
            fix = f"delete {path}, and run the same command again"
            raise LmrError(f"{path.name} is damaged", got=one_line(error), fix=fix) from error
    return names


def _write_solution(folder: Path, right: Mapping[str, Sequence[str]]) -> None:
    rows = [f"{query},{' '.join(photos) or 'None'}" for query, photos in right.items()]
    (folder / SOLUTION).write_text("\n".join(["id,images", *rows, ""]), encoding="utf-8")
