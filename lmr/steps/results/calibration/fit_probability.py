"""Fit a probability to the labelled answers of a finished run, and store it with how good it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.protocols.kaggle import parse_recognition_solution
from lmr.evaluation.reliability import Reliability, reliability, reliability_csv, reliability_svg
from lmr.retrieval.probability import METHODS, Method, PairModel, fit_pairs, held_out
from lmr.steps.calibration import Calibration, fitted_part, write_calibration
from lmr.steps.probability import pair_signals
from lmr.steps.recognition.labels import landmarks_of, names_of
from lmr.steps.results.folder.datasets import RunDatasets, open_datasets
from lmr.steps.results.folder.origins import Origin, read_origins
from lmr.steps.results.scores import read_solution
from lmr.steps.results.submission import ids_of
from lmr.storage.datasets import Dataset, JoinedDataset

__all__ = [
    "FittedProbability",
    "LabelledAnswers",
    "fit_probability",
    "labelled_answers",
    "right_photos",
    "store_probability",
]


@dataclass(frozen=True, eq=False)
class LabelledAnswers:
    """The answers of a run's labelled queries, and what was measured of each.

    Attributes
    ----------
    run
        The run.
    names
        The signals that its workflow measures.
    signals
        (p, 3) float64, as of `signals_of`.
    queries, photos
        (p,) rows of the query and of the gallery photo.
    right
        (p,) whether the solution names the photo.
    groups
        (p,) int64; queries that share a right photo are of one group.
    """

    run: RunDatasets
    names: tuple[str, ...]
    signals: NDArray[np.float64]
    queries: NDArray[np.int64]
    photos: NDArray[np.int64]
    right: NDArray[np.bool_]
    groups: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FittedProbability:
    """A calibration, and how good it was on queries that it was not fitted on.

    Attributes
    ----------
    calibration
        Fitted on all queries.
    held_out
        Of every method, by models that were fitted without the queries' landmarks.
    method
        The one that was asked for.
    """

    calibration: Calibration
    held_out: Mapping[Method, Reliability]
    method: Method

    @property
    def reliability(self) -> Reliability:
        """How good the method was."""
        return self.held_out[self.method]


def right_photos(root: str, url: str) -> dict[str, list[str]]:
    """Read a solution: query id to the ids of its right photos.

    A recognition solution (`id,landmark`) is taken too, for a run of recognition: right are the gallery's
    photos of that landmark.

    Raises
    ------
    LmrError
        If it is no solution, or names landmarks and the run knows none.
    """
    data = storage.read(url)
    header = data[:200].decode("utf-8-sig", errors="replace").lower().split("\n")[0]
    if "landmark" not in header:
        return read_solution(url)
    run = open_datasets(root)
    if run.recognised is None:
        raise LmrError(
            "this run knows no landmarks, and the solution names some",
            got=f"{url}, and a run of {run.about.get('workflow', 'another workflow')}",
            fix="give a CSV id,images, or a run of the workflow recognition",
        )
    numbers, names = landmarks_of(run.recognised["labels"]), names_of(run.recognised["labels"])
    gallery = ids_of(run.photos.gallery).to_pylist()
    photos: dict[str, list[str]] = {name: [] for name in names}
    for photo, number in zip(gallery, numbers.tolist(), strict=True):
        if number >= 0:
            photos[names[number]].append(photo)
    return {
        query: [photo for name in shown for photo in photos.get(name, [])]
        for query, shown in parse_recognition_solution(data, url).items()
    }


def labelled_answers(root: str, solution: Mapping[str, Sequence[str]]) -> LabelledAnswers:
    """Read what was measured of the answers of a finished run, and which of them a solution calls right.

    Answers are the photos of the last list, and those that were verified. Queries that the solution does not
    name are left out; those for which it names no photo count, with all their answers wrong.

    Raises
    ------
    StorageError
        If there is no finished run.
    LmrError
        If the solution names none of its queries, or nothing is measured of an answer.
    """
    run = open_datasets(root)
    verified = run.rankings[run.verified] if run.verified else None
    names = (
        *(("inliers", "votes") if verified is not None else ()),
        *(("similarity",) if run.described else ()),
    )
    if not names:
        raise LmrError(
            "nothing is measured of an answer of this run",
            got=root,
            fix="give a run of a workflow with verification or with global descriptors",
        )
    ids = run.photos.map(lambda photos: ids_of(photos).to_pylist())
    row_of = {photo: row for row, photo in enumerate(ids.gallery)}
    truth = {
        row: {row_of[photo] for photo in solution[query] if photo in row_of}
        for row, query in enumerate(ids.queries)
        if query in solution
    }
    if not truth:
        raise LmrError(
            "the solution names no query of this run",
            got=f"{len(solution)} queries in the solution, {len(ids.queries)} in {root}",
            fix="give the solution that belongs to the run's queries",
        )
    last = list(run.rankings.values())[-1]
    described = (run.described.queries, run.described.gallery) if run.described else (None, None)
    parts: list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]] = []
    for shard in range(last.shards):
        pairs = pair_signals(shard, last, verified, *described)
        kept = (pairs.photos >= 0) & np.isin(pairs.queries, list(truth))[:, None]
        row, place = np.nonzero(kept)
        rows = pairs.queries[row].astype(np.int64), pairs.photos[row, place].astype(np.int64)
        parts.append((pairs.signals[row, place], *rows))
    signals, queries, photos = (np.concatenate(some) for some in zip(*parts, strict=True))
    right = np.fromiter(
        (p in truth[q] for q, p in zip(queries.tolist(), photos.tolist(), strict=True)), bool, len(queries)
    )
    group_of = _groups(truth, len(ids.queries), len(ids.gallery))
    return LabelledAnswers(run, names, signals, queries, photos, right, group_of[queries])


def _groups(truth: Mapping[int, set[int]], queries: int, photos: int) -> NDArray[np.int64]:
    """Return the group of every query: queries that share a right photo, however far apart, are of one."""
    pairs = np.array([(q, queries + p) for q, shown in truth.items() for p in shown], np.int64).reshape(-1, 2)
    size = queries + photos
    joined = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    found: NDArray[np.int64] = connected_components(joined, directed=False)[1][:queries].astype(np.int64)
    return found


def fit_probability(
    answers: LabelledAnswers, method: Method = "logistic", *, folds: int = 5
) -> FittedProbability:
    """Fit a probability to labelled answers, and say how good it is on queries that it does not know.

    Parameters
    ----------
    answers
        From `labelled_answers`.
    method
        The curve from signals to probability.
    folds
        Groups of queries are dealt to so many folds; each is looked at by a model that was fitted without it.

    Raises
    ------
    LmrError
        If there are too few landmarks, no right answer, or no wrong one.
    """
    signals, right, names = answers.signals, answers.right, answers.names
    found = {
        one: reliability(
            held_out(signals, right, answers.groups, names=names, method=one, folds=folds), right
        )
        for one in METHODS
    }
    model: PairModel = fit_pairs(signals, right, names=names, method=method)
    run, score = answers.run, found[method]
    calibration = Calibration(
        model=model,
        settings=fitted_part(run.settings, names),
        weights=_weights(run),
        about={
            "method": method,
            "pairs": len(right),
            "right_pairs": int(right.sum()),
            "queries": len(np.unique(answers.queries)),
            "landmarks": len(np.unique(answers.groups[right])),
            "gallery": len(ids_of(run.photos.gallery)),
            "brier": round(score.brier, 6),
            "brier_of_share": round(score.base_brier, 6),
            "calibration_error": round(score.calibration_error, 6),
            "folds": folds,
        },
    )
    return FittedProbability(calibration, found, method)


def store_probability(folder: str, fitted: FittedProbability, title: str) -> str:
    """Write `probability.json`, `reliability.csv` and `reliability.svg`; return the first one's URL."""
    for name, text in (
        ("reliability.csv", reliability_csv(fitted.reliability)),
        ("reliability.svg", reliability_svg(fitted.reliability, title)),
    ):
        storage.put(storage.join(folder, name), text.encode())
    url = storage.join(folder, "probability.json")
    write_calibration(url, fitted.calibration)
    return url


def _weights(run: RunDatasets) -> dict[str, str]:
    """Return the digest of the weights of both extractors, where they have any."""
    origins = read_origins(run.root)
    sources = {"local": run.local, "describe": run.described}
    found = {group: _weights_of(origins, side.gallery) for group, side in sources.items() if side is not None}
    return {group: weights for group, weights in found.items() if weights}


def _weights_of(origins: Mapping[str, Origin], dataset: Dataset) -> str:
    part = dataset.parts[0] if isinstance(dataset, JoinedDataset) else dataset
    waiting = [part.fingerprint]
    while waiting:
        origin = origins.get(waiting.pop(0))
        if origin is None:
            continue
        if origin.weights:
            return origin.weights
        waiting += [name for read in origin.inputs.values() for name in read.values()]
    return ""
