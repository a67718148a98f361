"""A run's results by settings: those of other settings are never overwritten.

The files in the run's folder are of the settings that ran last; what those have none of is removed there.
`results/DIGEST/` holds the small ones of every setting that ran there to its end, and `results/latest` says
whose the files in the folder are:

=====================  =====================================================
`datasets.json`        the record of the run: its settings and its datasets
`submission.csv`       as it was submitted
`scores.json`          with a solution: the score after each stage
`protocols.json`       the score by each protocol that was asked for
`query_scores.csv`     with a solution: every query's score after each stage
`landmarks.csv`        of recognition: the name of every query
=====================  =====================================================
"""

import re
from contextlib import suppress
from hashlib import sha256

import numpy as np

from lmr import storage
from lmr.errors import StorageError
from lmr.runtime.settings import digest
from lmr.steps.results.folder.datasets import RECORD, RunDatasets, open_datasets, store_datasets
from lmr.steps.results.folder.files import score_rows
from lmr.steps.results.folder.protocol_files import PROTOCOLS_FILE
from lmr.text import csv_cell

__all__ = ["RESULTS", "digest_of", "keep_results", "kept_digests", "open_kept"]

RESULTS = "results"
_OF_SOME = ("scores.json", PROTOCOLS_FILE, "landmarks.csv")
"""Files that some runs have and others have not."""

_DIGEST = re.compile(r"([0-9a-f]{12})/.*")


def digest_of(run: RunDatasets) -> str:
    """Return the 12 hex digits that name the results of a run: of its settings, photos and solution."""
    made = [run.submission.fingerprint, run.scores.fingerprint if run.scores else ""]
    made += [one.fingerprint for _, one in sorted((run.recognised or {}).items())]
    made += [run.probable.fingerprint] if run.probable else []
    made += [run.protocols.fingerprint] if run.protocols else []
    return digest([run.settings, made])


def keep_results(run: RunDatasets) -> str:
    """Keep the small files of a finished run under its digest, and return their folder.

    The record is written last: a folder without one is not whole, and nobody reads it.
    """
    name = digest_of(run)
    folder = storage.join(run.root, RESULTS, name)
    for file in _files(run):
        with suppress(StorageError):  # not every workflow leaves every file
            if storage.exists(url := storage.join(run.root, file)):
                storage.put(storage.join(folder, file), storage.read(url))
    if (found := score_rows(run)) is not None:
        columns = [one for one in found.column_names if one != "id"]
        lines = [",".join(["id", *columns])]
        values = np.stack([found.column(one).to_numpy() for one in columns], axis=1).tolist()
        for query, row in zip(found.column("id").to_pylist(), values, strict=True):
            lines.append(",".join([csv_cell(query), *("" if v != v else repr(v) for v in row)]))
        storage.put(storage.join(folder, "query_scores.csv"), "\n".join([*lines, ""]).encode())
    store_datasets(run, f"{RESULTS}/{name}/{RECORD}")
    storage.put(storage.join(run.root, RESULTS, "latest"), f"{name}\n".encode())
    _remove_stale(run, name)
    return folder


def _remove_stale(run: RunDatasets, kept: str) -> None:
    """Remove the files of earlier settings from the run's folder that this run has none of its own of.

    What is kept nowhere else, as an earlier lmr left it, is renamed; nothing is written over.
    """
    own = _files(run)
    others = [one for one in kept_digests(run.root) if one != kept]
    for file in (one for one in _OF_SOME if one not in own):
        url = storage.join(run.root, file)
        if not storage.exists(url):
            continue
        content = storage.read(url)
        copies = (storage.join(run.root, RESULTS, one, file) for one in others)
        if not any(storage.exists(copy) and storage.read(copy) == content for copy in copies):
            there = storage.join(run.root, f"earlier-{file}")
            if storage.exists(there) and storage.read(there) != content:
                there = storage.join(run.root, f"earlier-{sha256(content).hexdigest()[:12]}-{file}")
            storage.put(there, content)
        storage.delete(url)


def _files(run: RunDatasets) -> list[str]:
    # Only this run's own: the folder may hold a file that other settings have left.
    scored, recognised = score_rows(run) is not None, run.recognised is not None
    scores = [*["scores.json"] * scored, *[PROTOCOLS_FILE] * (run.protocols is not None)]
    return ["submission.csv", *scores, *["landmarks.csv"] * recognised]


def kept_digests(root: str) -> list[str]:
    """Return the digests of all results that a run's folder keeps, the latest first, the others by name."""
    folder = storage.join(root, RESULTS)
    files = storage.find(folder)
    found = {match[1] for path in files if path.endswith(f"/{RECORD}") and (match := _DIGEST.fullmatch(path))}
    latest = storage.read(storage.join(folder, "latest")).decode().strip() if "latest" in files else ""
    return sorted(found, key=lambda one: (one != latest, one))


def open_kept(root: str, name: str) -> RunDatasets:
    """Return the record of kept results.

    Raises
    ------
    StorageError
        If there are none of this digest, or their record is damaged.
    """
    if name not in (known := kept_digests(root)):
        raise StorageError(
            "there are no results of these settings",
            got=f"{name} in {root}",
            fix=f"one of: {', '.join(known)}" if known else "run the settings to their end first",
        )
    return open_datasets(root, record=f"{RESULTS}/{name}/{RECORD}")
