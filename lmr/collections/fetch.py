"""Fetch a data set: its parts, many files at a time, each once; then gallery, queries and solution."""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lmr.collections.catalogue import Collection, Part
from lmr.collections.download import Digest, Got, digest_of, download, read_small
from lmr.collections.layouts import gunzip, solve, unpack
from lmr.collections.ready import GALLERY, QUERIES, Ready, open_collection
from lmr.errors import LmrError, StorageError
from lmr.evaluation.scores import first_five
from lmr.storage import absolute, put
from lmr.text import one_of

__all__ = ["AT_ONCE", "LEDGER", "Fetched", "Job", "fetch"]

AT_ONCE = 4
"""Files that are fetched at a time; a host is asked for no more."""

LEDGER = "fetched.json"
"""What was fetched, in the data set's folder: of each file its size, its time and its digest."""

_MOST_FAULTS = 5
_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Job:
    """One file of a data set.

    Attributes
    ----------
    part
        The part that it belongs to.
    file
        Its path below the part's base.
    """

    part: Part
    file: str

    @property
    def name(self) -> str:
        """Where it goes, below the data set's folder."""
        return f"{self.part.folder}/{PurePosixPath(self.file).name}"

    @property
    def final(self) -> str:
        """Where it lies in the end."""
        return self.name.removesuffix(".gz") if self.part.gunzipped else self.name


@dataclass(frozen=True)
class Fetched:
    """A data set after `fetch`.

    Attributes
    ----------
    ready
        What a run takes of it; None while parts are lacking that a run needs.
    loaded
        Files that were fetched now.
    there
        Files that had been fetched before.
    news
        What a user should know, sentences.
    """

    ready: Ready | None
    loaded: int
    there: int
    news: tuple[str, ...]


def fetch(
    collection: Collection,
    data: str | os.PathLike[str],
    *,
    parts: Sequence[str] = (),
    prune: int | None = None,
    mirror: str | None = None,
    told: Callable[[Job, int], object] = lambda *_: None,
) -> Fetched:
    """Fetch a data set into a folder of this machine; what is there and right is not fetched again.

    Parameters
    ----------
    collection
        The data set.
    data
        The folder that data sets lie in; this one goes into a folder of its name below it.
    parts
        Names of parts; none: all that a run needs.
    prune
        Of parts of several files, the first so many: a small part of the data set.
    mirror
        URL of a copy of the publisher's files, with the same paths; None: the publisher's hosts.
    told
        Is called with a file and the number of bytes that have arrived of it.

    Raises
    ------
    LmrError
        If files cannot be fetched, or are wrong; all others are kept, and the next call goes on.
    """
    folder = Path(absolute(os.fspath(data))) / collection.name
    if collection.layout == "by hand":
        return Fetched(_by_hand(collection, os.fspath(data)), 0, 0, ())
    jobs = [Job(part, file) for part in _chosen(collection, parts) for file in part.first(prune)]
    ledger = _Ledger(folder)
    missing = [job for job in jobs if not ledger.has(job)]
    _Fetching(collection, folder, ledger, mirror, told).run(missing)
    there = len(jobs) - len(missing)
    wanted = [part for part in collection.parts if part.wanted]
    lacking = [part.name for part in wanted if not any(ledger.has(Job(part, file)) for file in part.files)]
    if lacking:
        more = f"lmr dataset fetch {collection.name} --part {' --part '.join(lacking)}"
        news = [f"fetched into {folder}; a run needs {', '.join(lacking)} too: {more}"]
        return Fetched(None, len(missing), there, tuple(news))
    news = solve(collection, folder)
    for side in (GALLERY, QUERIES):
        if not any((folder / side).glob("*")):
            raise LmrError(
                f"the files of {collection.name} hold no photo for its {side}",
                got=f"{len(jobs)} files in {folder}",
                fix="delete that folder, and fetch it from the publisher, without --from",
            )
    return Fetched(open_collection(collection.name, os.fspath(data)), len(missing), there, tuple(news))


def _by_hand(collection: Collection, data: str) -> Ready:
    try:
        return open_collection(collection.name, data)
    except StorageError as error:
        raise LmrError(
            f"{collection.name} cannot be fetched: {collection.notes[0]}",
            got=error.got,
            fix=f"{collection.notes[1]}, in {absolute(data)}/{collection.name}",
        ) from error


def _chosen(collection: Collection, names: Sequence[str]) -> list[Part]:
    known = {part.name: part for part in collection.parts}
    for name in names:
        if name not in known:
            raise LmrError(f"{collection.name} has no such part", got=name, fix=one_of(name, known))
    return [known[name] for name in names] if names else [part for part in collection.parts if part.wanted]


class _Ledger:
    """Which files were fetched: name to size, time and digest, and what was unpacked from them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._path, self._lock = folder, folder / LEDGER, threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return  # a ledger that is lost costs a comparison with digests, and no more
        if isinstance(found, dict):
            self._files = {name: one for name, one in found.items() if isinstance(one, dict)}

    def has(self, job: Job) -> bool:
        """Tell whether a file is there, as it was when it was found right."""
        one = self._files.get(job.final)
        if one is None:
            return False
        if job.part.unpacked:
            return bool(one.get("unpacked")) and all((self.folder / n).is_file() for n in one["unpacked"])
        try:
            about = (self.folder / job.final).stat()
        except OSError:
            return False
        return (about.st_size, about.st_mtime_ns) == (one.get("size"), one.get("time_ns"))

    def known(self, job: Job) -> Digest | None:
        """Return the digest that a file of this name had when it was fetched first; None if it never was."""
        one = self._files.get(job.final, {}).get("digest")
        kind, _, value = str(one or "").partition(":")
        return Digest(kind, value) if kind in _DIGITS and value else None

    def ours(self, job: Job) -> bool:
        """Tell whether lmr has fetched the file that lies there; a person's own is never deleted."""
        return self._files.get(job.final, {}).get("fetched") is True

    def forget(self, job: Job) -> None:
        """Note that a file that was found right is not."""
        with self._lock:
            self._files.pop(job.final, None)
            put(str(self._path), json.dumps(self._files, indent=1).encode())

    def add(self, job: Job, digest: Digest, **more: Any) -> None:
        """Note that a file is right."""
        path = self.folder / job.final
        about: Mapping[str, Any] = {}
        if path.is_file():
            about = {"size": path.stat().st_size, "time_ns": path.stat().st_mtime_ns}
        with self._lock:
            self._files[job.final] = {**about, "digest": f"{digest.kind}:{digest.value}", **more}
            put(str(self._path), json.dumps(self._files, indent=1).encode())


class _Fetching:
    """Files on their way; the first fault that no other file can escape stops all."""

    def __init__(
        self,
        collection: Collection,
        folder: Path,
        ledger: _Ledger,
        mirror: str | None,
        told: Callable[[Job, int], object],
    ) -> None:
        self.collection, self.folder, self.ledger, self.mirror = collection, folder, ledger, mirror
        self._told, self._stop = told, threading.Event()
        self._lists: dict[str, bytes] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        # The ground truth first: unpacking needs it.
        jobs = sorted(jobs, key=lambda job: job.part.unpacked)
        packed = [job for job in jobs if job.part.unpacked]
        self._all([job for job in jobs if not job.part.unpacked], self._one)
        self._all(packed, self._one_packed)

    def _all(self, jobs: Sequence[Job], work: Callable[[Job], None]) -> None:
        faults: list[LmrError] = []
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")
        try:
            for done in as_completed([pool.submit(work, job) for job in jobs]):
                error = done.exception()
                if isinstance(error, LmrError):
                    faults.append(error)
                    # A full disk is full for all, and a host that is away is away for all.
                    if "disk" in error.what or "cannot write" in error.what or len(faults) >= _MOST_FAULTS:
                        self._stop.set()
                elif error is not None and not isinstance(error, _Stopped):
                    raise error
        finally:
            if faults:
                self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise StorageError(
                f"{len(faults)} files of {self.collection.name} could not be fetched",
                got=first_five(f"{fault.what}: {fault.got}" for fault in faults),
                fix=faults[0].fix,
            )

    def _one(self, job: Job) -> None:
        got = self._load(job)
        path, ours = self.folder / job.name, self.ledger.ours(job)
        # What was unpacked and deleted is fetched no more: whoever puts it there again has put it there.
        kept = {"fetched": True} if ours and not job.part.gunzipped else {}
        if job.part.gunzipped:
            gunzip(path, self.folder / job.final, fetched=ours)
        self.ledger.add(job, got.digest, **kept)

    def _one_packed(self, job: Job) -> None:
        got, path = self._load(job), self.folder / job.name
        ours = self.ledger.ours(job)  # an archive that cannot be unpacked now is not fetched again
        try:
            places = unpack(self.collection, self.folder, path, fetched=ours)
        finally:
            if not path.is_file():
                self.ledger.forget(job)  # it was damaged
        if not places:
            raise LmrError(
                f"{path.name} holds none of the photos of {self.collection.name}",
                got=f"{got.size:,} bytes",
                fix="delete it, and fetch it from the publisher",
            )
        self.ledger.add(job, got.digest, unpacked=places)
        if ours:
            path.unlink(missing_ok=True)

    def _load(self, job: Job) -> Got:
        if self._stop.is_set():
            raise _Stopped
        base = self.mirror or job.part.base
        digest = self._digest(job, base) or self.ledger.known(job)
        path = self.folder / job.name
        if path.is_file():
            there = digest_of(path, digest.kind if digest else "sha256")
            if digest in (None, there):
                # Somebody has put it there, or it could not be unpacked before.
                return Got(path.stat().st_size, there)
            if not self.ledger.ours(job):
                raise LmrError(
                    f"{path} is another file than its publisher describes, and lmr has not fetched it",
                    got=f"{there.kind} {there.value}, known is {digest.value}",
                    fix="move it away, and run the same command again",
                )

        def told(count: int) -> None:
            self._told(job, count)
            if self._stop.is_set():
                raise _Stopped

        got = download(f"{base.rstrip('/')}/{job.file}", path, digest=digest, told=told)
        self.ledger.add(job, got.digest, fetched=True)
        return got

    def _digest(self, job: Job, base: str) -> Digest | None:
        """Return the digest that is published for a file; None where none is."""
        if not job.part.digests:
            return None
        file = PurePosixPath(job.file)
        listed = job.part.digests.format(stem=file.stem, folder=file.parent.name)
        url = f"{base.rstrip('/')}/{listed}"
        if url not in self._lists:
            self._lists[url] = read_small(url)
        kind = "sha256" if listed == "checksums.txt" else "md5"
        for line in self._lists[url].decode(errors="replace").splitlines():
            value, _, name = line.strip().partition(" ")
            same = PurePosixPath(name.strip(" *")).name in (file.name, "")
            if same and re.fullmatch(f"[0-9a-fA-F]{{{_DIGITS[kind]}}}", value):
                return Digest(kind, value.lower())
        raise LmrError(
            f"the published digests do not name {file.name}",
            got=url,
            fix="tell the publisher, or give --from",
        )


class _Stopped(Exception):
    """Raised in files that are on their way when all are stopped."""
