"""Calibration: the threshold of confident matches, fitted to labelled pairs of a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError
from lmr.evaluation.calibrate import Curve
from lmr.evaluation.pages.curve import curve_svg
from lmr.steps.results.folder.datasets import open_datasets
from lmr.steps.results.submission import ids_of
from lmr.storage.arrow import column

__all__ = ["LabelledPairs", "labelled_pairs", "store_calibration"]


@dataclass(frozen=True)
class LabelledPairs:
    """The verified pairs of a run's labelled queries.

    Attributes
    ----------
    features
        The extractor of the local features.
    inliers
        (p,) int32.
    right
        (p,) whether the solution names the photo.
    queries
        How many queries have a pair.
    """

    features: str
    inliers: NDArray[np.int32]
    right: NDArray[np.bool_]
    queries: int


def labelled_pairs(root: str, solution: Mapping[str, Sequence[str]]) -> LabelledPairs:
    """Read a finished run's verified pairs, and which of them a solution calls right.

    Queries that the solution does not name are left out; those for which it names no photo count, with all
    their pairs wrong.

    Raises
    ------
    StorageError
        If there is no finished run.
    LmrError
        If the solution names none of its queries.
    """
    run = open_datasets(root)
    if run.pairs is None:
        raise LmrError(
            "this run verified no pairs", got=root, fix="give a run of a workflow with verification"
        )
    ids = run.photos.map(lambda photos: ids_of(photos).to_pylist())
    queries, gallery = ids.queries, ids.gallery
    labelled = np.array([query in solution for query in queries])
    if not labelled.any():
        raise LmrError(
            "the solution names no query of this run",
            got=f"{len(solution)} queries in the solution, {len(queries)} in {root}",
            fix="give the solution that belongs to the run's queries",
        )
    truth = [frozenset(solution.get(query, ())) for query in queries]
    dataset = run.pairs
    inliers, right, asked = [], [], set()
    for shard in range(dataset.shards):
        rows = dataset.read(shard, ["query", "photo", "inliers"])
        query, photo = column(rows, "query"), column(rows, "photo")
        kept = labelled[query]
        inliers.append(column(rows, "inliers")[kept])
        names = zip(query[kept].tolist(), photo[kept].tolist(), strict=True)
        right.append(np.array([gallery[p] in truth[q] for q, p in names], dtype=np.bool_))
        asked.update(np.unique(query[kept]).tolist())
    features = run.settings.get("local", {}).get("features", "own features")
    return LabelledPairs(features, np.concatenate(inliers), np.concatenate(right), len(asked))


def store_calibration(folder: str, pairs: LabelledPairs, curve: Curve, threshold: int, wanted: str) -> str:
    """Write `settings.toml`, `curve.csv` and `curve.svg`; return the first one's URL.

    Parameters
    ----------
    folder
        Where to, at any URL.
    pairs, curve, threshold
        What was calibrated on, and the result.
    wanted
        What was asked for, in words.
    """
    lines = [
        f"# Fitted by lmr calibrate to {wanted}, for {pairs.features}.",
        f"# {curve.pairs} pairs of {pairs.queries} queries, {curve.right_pairs} of them right;"
        f" {curve.accepted[threshold]} have more than {threshold} inliers.",
        f"# Precision {curve.precision[threshold]:.4f}, at least {curve.precision_low[threshold]:.4f} with"
        f" {curve.confidence:.0%} confidence; recall of right pairs {curve.recall[threshold]:.4f}.",
        "[verify]",
        f"min_inliers = {threshold}",
    ]
    table = ["more_than,accepted,right,precision,precision_low,recall"]
    for t in np.flatnonzero(curve.accepted > 0).tolist():
        shares = (curve.precision[t], curve.precision_low[t], curve.recall[t])
        table.append(",".join([f"{t},{curve.accepted[t]},{curve.right[t]}", *(f"{s:.6f}" for s in shares)]))
    title = f"{pairs.features}: {curve.pairs} pairs of {pairs.queries} queries"
    for name, text in (
        ("curve.csv", "\n".join(table) + "\n"),
        ("curve.svg", curve_svg(curve, threshold, title)),
        ("settings.toml", "\n".join(lines) + "\n"),
    ):
        url = storage.join(folder, name)
        storage.put(url, text.encode())
    return url
