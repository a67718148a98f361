"""Ask a finished run for one more photo: opened once, asked many times, nothing of it is stored.

The photo goes through the shard functions of the run's own steps, on tables in memory, against the datasets
that the run has made of its gallery. So it gets the list that the workflow would give it. Only verification
reads otherwise: it gathers the candidates' features from everywhere, in place of whole shards. Similarities
may differ in their last digit, since BLAS multiplies one row in another order than many.
"""

import io
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from lmr import storage
from lmr.api.reopen import Reopened, reopen
from lmr.errors import LmrError, PhotoError
from lmr.retrieval.descriptors import to_float
from lmr.runtime.steps import Given, Step, closure
from lmr.runtime.threads import limit_threads
from lmr.steps.photos.ingest import IngestSettings, ingest_one
from lmr.steps.ranking import Ranking, ranks_in, read_ranking
from lmr.steps.sizes import runs_of
from lmr.steps.verification.verify import verify_listed, verify_shard
from lmr.steps.workflow import Workflow
from lmr.storage.arrow import column, ragged
from lmr.storage.datasets import Dataset
from lmr.storage.in_memory import MemoryDataset
from lmr.storage.mapped import kept_open, stack

__all__ = ["Answer", "FoundPhoto", "PhotoSearch", "open_search"]

_FEW = {verify_shard: verify_listed}
"""Shard functions that read much for few queries, and what makes the same rows of what the queries need."""


class _Pair(NamedTuple):
    inliers: int
    confident: bool
    lines: NDArray[np.float32]


_UNVERIFIED = _Pair(0, False, np.empty((0, 4), np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundPhoto:
    """A photo of the gallery that was found.

    Attributes
    ----------
    row, id, path
        Its row in the gallery, its id, and its path below the gallery's folder.
    rank
        Its place in the list, from 1.
    score
        Of the last stage.
    similarity
        Cosine of both photos' global descriptors, -1 to 1.
    stage
        The first stage whose list holds it.
    inliers
        Matches of local features that agree in geometry; 0 where the pair was not verified, None without
        verification.
    confident
        Whether it has more inliers than the threshold; None without verification.
    probability
        That it shows the same landmark; None without a calibration.
    lines
        (n, 4) float32: x and y of each inlier in the query and in the photo, as fractions of its size.
    """

    row: int
    id: str
    path: str
    rank: int
    score: float
    similarity: float
    stage: str
    inliers: int | None = None
    confident: bool | None = None
    probability: float | None = None
    lines: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 4), np.float32), repr=False)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for one photo.

    Attributes
    ----------
    width, height
        Upright size of the photo, pixels.
    note
        What is not as it should be with it; empty for most.
    matches
        The photos found, best first.
    seconds
        What each step took, by its name.
    """

    width: int
    height: int
    note: str
    matches: tuple[FoundPhoto, ...]
    seconds: Mapping[str, float]

    @property
    def confident(self) -> int | None:
        """How many confident matches there are; None without verification."""
        flags = [one.confident for one in self.matches]
        return None if flags and flags[0] is None else sum(bool(flag) for flag in flags)


def open_search(
    run: str | os.PathLike[str], *, until: str | None = None, own_code: bool = False
) -> "PhotoSearch":
    """Open a finished run to search its gallery with photos that it does not know.

    Parameters
    ----------
    run
        The run's folder: a path, or any fsspec URL.
    until
        The stage whose list is the answer, such as "expand"; None: the last.
    own_code
        Whether to run code that the run's folder names; see `lmr.api.reopen.reopen`.

    Raises
    ------
    LmrError
        If there is no finished run of photos, or what has to be searched is no longer there.

    Examples
    --------
    >>> import lmr
    >>> search = lmr.open_search("run/")  # doctest: +SKIP
    >>> [found.path for found in search.ask("photo.jpg").matches]  # doctest: +SKIP
    """
    return PhotoSearch(reopen(run, own_code=own_code), until)


class PhotoSearch:
    """Searches the gallery of a finished run. Threads may share one; they are answered one after the other.

    Parameters
    ----------
    run
        The run.
    until
        The stage whose list is the answer; None: the last.

    Raises
    ------
    LmrError
        If there is no such stage, or what has to be searched is no longer there.
    """

    def __init__(self, run: Reopened, until: str | None = None) -> None:
        self.run, self._lock = run, threading.Lock()
        self._opened: dict[str, Any] = {}
        stages = tuple(run.flow.rankings)
        if until is not None and until not in stages:
            raise LmrError("there is no such stage", got=until, fix=f"one of: {', '.join(stages)}")
        self.stages = stages[: stages.index(until) + 1] if until else stages
        flow = run.flow
        assert flow.images is not None  # `reopen` asks
        assert flow.described is not None
        self._images, self._described = flow.images.queries.parts[0], flow.described
        ends = [flow.rankings[name].step for name in self.stages]
        self._probable = self._probability_of(flow)
        ends += [self._probable] if self._probable else []
        order = closure([*ends, *flow.described.queries.source.parts])
        depend = {self._images.fingerprint}
        self._steps: list[Step] = []
        for step in order:
            if any(part.fingerprint in depend for part in _read_by(step)):
                depend.add(step.fingerprint)
                self._steps.append(step)
        self._check(depend)

    def _probability_of(self, flow: Workflow) -> Step | None:
        """Return the step that gives the answers a probability; None where they have none."""
        # A search that ends before verification has no inliers to judge by.
        known = flow.verified is None or flow.verified.ranking in [flow.rankings[n] for n in self.stages]
        return flow.probable_of(flow.rankings[self.stages[-1]]) if known else None

    @property
    def ingest(self) -> IngestSettings:
        """What photos may be, as the run's settings have it."""
        settings: IngestSettings = self._images.settings
        return settings

    def ask(
        self,
        photo: bytes | str | os.PathLike[str],
        *,
        most: int | None = None,
        limits: IngestSettings | None = None,
    ) -> Answer:
        """Search for one photo.

        Parameters
        ----------
        photo
            The bytes of its file, or where it lies: a path, or any fsspec URL.
        most
            Photos of the answer at most; None: all that the run's lists hold.
        limits
            What the photo may be; None: as the run's own photos.

        Raises
        ------
        PhotoError
            If the photo cannot be used.
        LmrError
            If it cannot be read, or what has to be searched is damaged.
        """
        content = photo if isinstance(photo, bytes) else storage.read(storage.absolute(os.fspath(photo)))
        started = time.perf_counter()
        rows = ingest_one(content, limits or self.ingest)
        (about,) = rows.select(["width", "height", "reason", "note"]).to_pylist()
        if about["reason"]:
            raise PhotoError(about["reason"], fix="give a photo that can be opened, such as a JPEG")
        seconds = {"decode": time.perf_counter() - started}
        with self._lock, kept_open(self._opened):
            limit_threads()
            made = self._make(rows, seconds)
            matches = self._matches(made, most)
        size = {"width": about["width"], "height": about["height"]}
        return Answer(**size, note=about["note"], matches=matches, seconds=seconds)

    def warm(self) -> None:
        """Unpack and open all that a search needs, so that the first one is as quick as the others."""
        noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        self.ask(file.getvalue())

    def rankings(self, photo: bytes) -> dict[str, Ranking]:
        """Return the list of a photo after each stage, as the workflow's steps would write it."""
        with self._lock, kept_open(self._opened):
            made = self._make(ingest_one(photo, self.ingest), {})
            return self._rankings(made)

    def _make(self, images: pa.Table, seconds: dict[str, float]) -> dict[str, MemoryDataset]:
        """Run the steps that depend on the query; return what they make, by fingerprint."""
        first = self._images
        made = {first.fingerprint: MemoryDataset.of(first.name, first.fingerprint, images)}
        for step in self._steps:
            started = time.perf_counter()
            inputs = {name: self._dataset(source, made) for name, source in step.inputs.items()}
            few = _FEW.get(step.make)
            if few is not None:
                tables = [few(step.settings, **inputs)]
            else:
                more = {**step.implied, **step.placement}
                tables = [step.make(i, step.settings, **inputs, **more) for i in range(step.shards)]
            made[step.fingerprint] = MemoryDataset.of(step.name, step.fingerprint, *tables)
            seconds[step.name] = time.perf_counter() - started
        return made

    def _dataset(self, source: Any, made: Mapping[str, MemoryDataset]) -> Dataset:
        found = made.get(source.fingerprint)
        if found is not None:
            return found
        stored: Dataset = source.dataset(self.run.root)
        return stored

    def _rankings(self, made: Mapping[str, MemoryDataset]) -> dict[str, Ranking]:
        steps = {name: self.run.flow.rankings[name].step for name in self.stages}
        return {name: read_ranking(made[step.fingerprint], 0) for name, step in steps.items()}

    def _matches(self, made: Mapping[str, MemoryDataset], most: int | None) -> tuple[FoundPhoto, ...]:
        rankings = self._rankings(made)
        last = list(rankings.values())[-1]
        listed = last.photos[0][last.photos[0] >= 0][:most]
        ranks = np.stack([ranks_in(one.photos, listed[None])[0] for one in rankings.values()])
        brought = np.argmax(ranks > 0, axis=0)
        query = to_float(column(made[self._described.queries.source.fingerprint].read(0), "descriptor"))[0]
        gallery = stack(self._described.gallery.source.dataset(self.run.root), "descriptor")
        similarity = to_float(gallery[listed]) @ query if len(listed) else np.empty(0, np.float32)
        verified = self._verified(made)
        said = np.full(len(listed), np.nan)
        if self._probable is not None:
            said = column(made[self._probable.fingerprint].read(0), "probability")[0]
        ids, paths = self.run.flow.inputs.photos.gallery.ids, self.run.flow.inputs.photos.gallery.places
        found = []
        for place, row in enumerate(listed.tolist()):
            more = None if verified is None else verified.get(row, _UNVERIFIED)
            found.append(
                FoundPhoto(
                    row=row,
                    id=ids[row],
                    path=paths[row],
                    rank=place + 1,
                    score=float(last.scores[0][place]),
                    similarity=float(similarity[place]),
                    stage=self.stages[int(brought[place])],
                    inliers=None if more is None else more.inliers,
                    confident=None if more is None else more.confident,
                    probability=None if self._probable is None else float(said[place]),
                    lines=_UNVERIFIED.lines if more is None else more.lines,
                )
            )
        return tuple(found)

    def _verified(self, made: Mapping[str, MemoryDataset]) -> dict[int, _Pair] | None:
        """Return inliers, confidence and lines of the photos that were verified; None where none are."""
        flow = self.run.flow
        if flow.verified is None or flow.verified.pairs.fingerprint not in made or flow.local is None:
            return None
        assert flow.images is not None
        pairs = made[flow.verified.pairs.fingerprint].read(0)
        ranking = made[flow.verified.ranking.step.fingerprint].read(0)
        sure = set(column(ranking, "photos")[0][: int(column(ranking, "confident")[0])].tolist())
        matches, counts = ragged(pairs, "matches"), column(pairs, "inliers")
        local, root = flow.local.gallery.source.dataset(self.run.root), self.run.root
        owners, xy = stack(local, "photo"), stack(local, "xy")
        images = flow.images.gallery.dataset(root)
        widths, heights = stack(images, "width"), stack(images, "height")
        size = made[self._images.fingerprint].read(0, ["width", "height"])
        own = column(made[flow.local.queries.source.fingerprint].read(0), "xy")
        own = own / np.array([column(size, "width")[0], column(size, "height")[0]], np.float32)
        found = {}
        photos = column(pairs, "photo")
        for i, (row, first) in enumerate(zip(photos.tolist(), runs_of(owners, photos)[0], strict=True)):
            there = xy[first + matches[i][:, 1].astype(np.int64)] / [widths[row], heights[row]]
            lines = np.hstack([own[matches[i][:, 0]], there]).astype(np.float32)
            found[row] = _Pair(int(counts[i]), row in sure, lines)
        return found

    def _check(self, depend: set[str]) -> None:
        """Refuse a run that lacks what has to be searched."""
        needed = {part.fingerprint: part for step in self._steps for part in _read_by(step)}
        for fingerprint, part in needed.items():
            if fingerprint in depend:
                continue
            missing = part.shards - len(part.dataset(self.run.root).present())
            if missing:
                raise LmrError(
                    f"this run no longer holds all that is searched: {part.name}",
                    got=f"{missing:,} of {part.shards:,} shards of {part.folder}/{fingerprint} are missing",
                    fix="run the command that made the run, with another --out: what later steps have used "
                    "is not made again in a finished run",
                )


def _read_by(step: Step) -> list[Step]:
    """Return the steps that a step reads."""
    sources = [source for source in step.inputs.values() if not isinstance(source, Given)]
    return [part for source in sources for part in source.step.parts]
