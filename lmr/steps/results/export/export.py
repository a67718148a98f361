"""Write what a run has found into files of other programs."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmr import storage
from lmr.errors import LmrError
from lmr.steps.results.export.colmap import COLMAP, write_colmap
from lmr.steps.results.export.hloc import HLOC, write_hloc
from lmr.steps.results.export.sinks import SINKS
from lmr.steps.results.export.tables import KINDS, Kind, tables_of
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.text import one_of

__all__ = ["FORMATS", "Exported", "export_run"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes
    ----------
    files
        The files, in order of their names.
    left_out
        What the format does not carry, a sentence for people; empty where it carries all.
    """

    files: tuple[Path, ...]
    left_out: str = ""


def _write_tables(to: str, kinds: tuple[Kind, ...]) -> tuple[tuple[Kind, ...], Callable[..., str]]:
    def write(run: RunDatasets, what: Kind, folder: Path) -> str:
        sink = SINKS[to](folder, what)
        try:
            for rows in tables_of(run, what):
                sink.write(rows)
        finally:
            sink.close()
        return sink.left_out

    return kinds, write


FORMATS: Mapping[str, tuple[tuple[Kind, ...], Callable[[RunDatasets, Kind, Path], str]]] = {
    # Features are lists by photo, which CSV does not have.
    "csv": _write_tables("csv", tuple(kind for kind in KINDS if kind != "features")),
    "parquet": _write_tables("parquet", KINDS),
    "npy": _write_tables("npy", KINDS),
    "h5": _write_tables("h5", KINDS),
    "hloc": (HLOC, write_hloc),
    "colmap": (COLMAP, write_colmap),
}
"""What each format carries, and what writes it."""

_ELSEWHERE = {
    "kapture": "--to hloc, whose files kapture's own converters read, or --to colmap",
    "fiftyone": "--to csv: its rows have the photos' paths, from which FiftyOne makes samples",
}


def export_run(run: RunDatasets, what: str, to: str, folder: str | os.PathLike[str]) -> Exported:
    """Write a part of a run's results into files of one format.

    Parameters
    ----------
    run
        The datasets of a finished run.
    what
        One of `KINDS`.
    to
        One of `FORMATS`.
    folder
        A folder on this machine, made if need be. Files that are there are not replaced.

    Returns
    -------
    exported
        The files, and what the format does not carry.

    Raises
    ------
    LmrError
        If the format does not carry it, the run has no such thing, a package is missing, or a file is there.
    """
    kinds, write = _format(to)
    kind = next((one for one in KINDS if one == what), None)
    if kind is None:
        raise LmrError("nothing of this name can be exported", got=what, fix=one_of(what, KINDS))
    if kind not in kinds:
        able = [name for name, (some, _) in FORMATS.items() if kind in some]
        raise LmrError(f"{to} does not carry {kind}", got=f"--what {kind}", fix=f"--to {' or '.join(able)}")
    url = os.fspath(folder)
    if not storage.is_local(url):
        raise LmrError("exports are written to folders of this machine", got=url, fix="give a path")
    root = Path(storage.absolute(url))
    with _written_whole(root) as temporary:
        left_out = write(run, kind, temporary)
        names = sorted(path.name for path in temporary.iterdir())
        if there := [name for name in names if os.path.lexists(root / name)]:
            fix = "give another folder, or remove the file"
            raise LmrError("a file of this name is there", got=str(root / there[0]), fix=fix)
        for name in names:
            os.replace(temporary / name, root / name)
    return Exported(files=tuple(root / name for name in names), left_out=left_out)


def _format(to: str) -> tuple[tuple[Kind, ...], Callable[[RunDatasets, Kind, Path], str]]:
    if to in FORMATS:
        return FORMATS[to]
    if to in _ELSEWHERE:
        raise LmrError(f"lmr writes no files of {to} itself", got=f"--to {to}", fix=_ELSEWHERE[to])
    raise LmrError("there is no such format", got=f"--to {to}", fix=one_of(to, FORMATS))


@contextmanager
def _written_whole(root: Path) -> Iterator[Path]:
    """Give a folder beside the target, so that a file is whole when it has its name."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".lmr-export-", dir=root))
    except OSError as error:
        raise LmrError("the folder cannot be written", got=str(error), fix="give another --out") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
