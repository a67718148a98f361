"""A data set on disk, as a run takes it: gallery, queries, solution."""

import os
import shlex
from dataclasses import dataclass

from lmr import storage
from lmr.collections.catalogue import COLLECTIONS
from lmr.errors import LmrError, StorageError
from lmr.text import one_of, printable

__all__ = ["GALLERY", "QUERIES", "SOLUTION", "TRUTH", "Ready", "open_collection"]

GALLERY, QUERIES, SOLUTION, TRUTH = "gallery", "queries", "solution.csv", "truth.csv"
"""What a data set's folder holds; folders of one's own are data sets by these names too."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A data set that can be run on.

    Attributes
    ----------
    name
        Its name, or its folder.
    folder
        Its folder or URL.
    gallery, queries
        Folders or URLs of its photos.
    solution
        Right photos of every query, as `lmr run --solution` takes them; None where there are none.
    truth
        Easy, hard and junk photos, as `lmr evaluate --protocol revisited-medium` takes them; None without.
    protocols
        The protocols that the truth is for, by its header.
    data
        The folder that data sets lie in; None of a folder of one's own.
    """

    name: str
    folder: str
    gallery: str
    queries: str
    solution: str | None
    truth: str | None
    protocols: tuple[str, ...] = ()
    data: str | None = None

    @property
    def short_name(self) -> str:
        """Its name, or the last part of its folder."""
        return os.path.basename(self.name.rstrip("/"))

    def command(self, out: str | None = None) -> str:
        """Return the command that runs the retrieval workflow on it."""
        out = out or storage.join("runs", self.short_name or "run")
        if self.data is not None:
            # By its name it is scored as its publisher does, beside published figures.
            words = ["lmr", "run", "retrieval", "--dataset", self.name, "--data", self.data]
            return shlex.join([*words, "--out", out])
        words = ["lmr", "run", "retrieval", "--gallery", self.gallery, "--queries", self.queries]
        if self.solution:
            words += ["--solution", self.solution]
        return shlex.join([*words, "--out", out])


def open_collection(name: str, data: str = "data") -> Ready:
    """Return what a run takes of a data set that was fetched, or of a folder of one's own.

    Parameters
    ----------
    name
        The name of a data set below `data`, or a folder or URL that holds `gallery`, `queries` and, to be
        scored, `solution.csv`.
    data
        The folder that data sets are fetched into.

    Raises
    ------
    LmrError
        If it is not there, or lacks its gallery or its queries.
    """
    known = next((one for one in COLLECTIONS if name == one.name or name in one.aliases), None)
    name = known.name if known else name
    folder = storage.join(storage.absolute(data), name) if known else storage.absolute(name)
    urls = {part: storage.join(folder, part) for part in (GALLERY, QUERIES, SOLUTION, TRUTH)}
    missing = [part for part in (GALLERY, QUERIES) if not storage.exists(urls[part])]
    if missing and known:
        raise StorageError(
            f"the data set {name} is not there",
            got=f"no {' and no '.join(missing)} in {folder}",
            fix=f"lmr dataset fetch {name} --data {shlex.quote(data)}",
        )
    if missing and not storage.exists(folder):
        raise LmrError(
            "there is no such data set, and no such folder",
            got=printable(name),
            fix=f"{one_of(name, [c.name for c in COLLECTIONS])}, or a folder with gallery/ and queries/",
        )
    if missing:
        raise StorageError(
            f"the folder {printable(name)} is no data set",
            got=f"it has no {' and no '.join(missing)}",
            fix="put the photos to search into gallery/, those to look for into queries/, and, to score, "
            "a solution.csv beside them",
        )
    truth = urls[TRUTH] if storage.exists(urls[TRUTH]) else None
    return Ready(
        name=name,
        folder=folder,
        gallery=urls[GALLERY],
        queries=urls[QUERIES],
        solution=urls[SOLUTION] if storage.exists(urls[SOLUTION]) else None,
        truth=truth,
        protocols=_protocols(truth) if truth else (),
        data=storage.absolute(data) if known else None,
    )


def _protocols(truth: str) -> tuple[str, ...]:
    """Return the protocols that a ground truth is for, by the columns that its first line names."""
    header = storage.read(truth).split(b"\n", 1)[0].decode(errors="replace").replace('"', "").split(",")
    columns = {column.strip() for column in header}
    if {"easy", "hard"} <= columns:
        return "revisited-easy", "revisited-medium", "revisited-hard"
    return ("classic",) if "ok" in columns else ()
