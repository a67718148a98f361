"""The results of a run as tables: who was found for whom, by which stage, and how surely."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmr import storage
from lmr.errors import LmrError, ShardError
from lmr.runtime.steps import Role
from lmr.steps.ranking import pair_keys, read_ranking
from lmr.steps.results.export.tables import confident_pairs
from lmr.steps.results.folder.datasets import RunDatasets, open_datasets
from lmr.steps.results.folder.files import read_scores, read_unusable
from lmr.steps.results.folder.kept import open_kept
from lmr.steps.results.matches.matches import match_tables
from lmr.steps.results.matches.probabilities import PairProbabilities
from lmr.steps.results.recognition import read_names
from lmr.steps.results.report.costs import costs_of
from lmr.steps.results.report.report import store_report
from lmr.storage.mapped import stack

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Results", "open_run"]


def open_run(url: str | os.PathLike[str], *, kept: str | None = None) -> "Results":
    """Open the results of a finished run.

    Parameters
    ----------
    url
        The run's folder: a path, or any fsspec URL such as `s3://bucket/runs/first`.
    kept
        Open results of other settings: a name of a folder below `results/`; `lmr compare` tells them.

    Raises
    ------
    StorageError
        If there is no finished run.
    """
    root = storage.absolute(os.fspath(url))
    return Results(open_datasets(root) if kept is None else open_kept(root, kept))


class Results:
    """The results of a run.

    Tables are pandas frames, a row per photo of a list, with ids and paths. They need pandas:
    `pip install "lmr[dataframes]"`. Descriptors are NumPy arrays.

    Parameters
    ----------
    datasets
        Which datasets the run consists of.
    """

    def __init__(self, datasets: RunDatasets) -> None:
        self.datasets = datasets

    def __repr__(self) -> str:
        scores = "".join(
            f"\n  {self.label(name)}: {self.measure} {score:.4f}" for name, score in self.scores.items()
        )
        return f"Results of {self.root}{scores}"

    @property
    def root(self) -> str:
        """The run's folder."""
        return self.datasets.root

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of every step, as plain values."""
        return self.datasets.settings

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the rankings, one after each stage, in order."""
        return tuple(self.datasets.rankings)

    def label(self, stage: str) -> str:
        """Return what people read in place of a stage's name."""
        return self.datasets.label(stage)

    @property
    def measure(self) -> str:
        """What the scores are: mAP@100, or GAP of a workflow of recognition."""
        return "mAP@100" if self.datasets.recognised is None else "GAP"

    @cached_property
    def scores(self) -> dict[str, float]:
        """The `measure` after each stage or ingredient, by its name; empty without a solution."""
        return read_scores(self.datasets)

    def query_scores(self) -> "DataFrame":
        """Return every query's AP@100 after each stage; NaN for a query without a right photo.

        Returns
        -------
        frame
            Columns `query`, and one for each stage; no rows without a solution.
        """
        if self.datasets.scores is None:
            return _frame({name: [] for name in ("query", *self.stages)})
        rows = self.datasets.scores.read(0)
        return _frame({"query": rows.column("id"), **{name: rows.column(name) for name in self.stages}})

    def photos(self, role: Role = "gallery") -> "DataFrame":
        """Return the photos of one side, in order of their rows: columns `id`, `path`, `label` of a list."""
        rows = self.datasets.photos.of(role).read(0)
        return _frame(
            {name: rows.column(name) for name in ("id", "path", "label") if name in rows.column_names}
        )

    def matches(self) -> "DataFrame":
        """Return the final list of every query, best first.

        Returns
        -------
        frame
            Columns `query`, `query_path`, `rank` (from 1), `photo`, `photo_path`, `score` (of the last
            stage), `inliers` (0 where the pair was not verified), `confident` (more inliers than the
            threshold), `probability` (that the photo shows the query's landmark), `stage` (the first stage
            whose list holds the photo). What the run does not have is left out: `probability` needs a
            calibration, and the two before it verification.
        """
        return _frame(pa.concat_tables(match_tables(self.datasets)))

    def ranking(self, stage: str) -> "DataFrame":
        """Return the list of every query after a stage, best first.

        Parameters
        ----------
        stage
            One of `stages`.

        Returns
        -------
        frame
            Columns `query`, `query_path`, `rank` (from 1), `photo`, `photo_path`, `score`.

        Raises
        ------
        LmrError
            If the workflow has no such stage.
        """
        if stage not in self.datasets.rankings:
            raise LmrError("there is no such stage", got=stage, fix=f"one of: {', '.join(self.stages)}")
        query, rank, photo, score = self._exploded(stage)
        columns = self._named(query, photo) | {"rank": rank + 1, "score": score}
        return _frame(
            {n: columns[n] for n in ("query", "query_path", "rank", "photo", "photo_path", "score")}
        )

    def pairs(self) -> "DataFrame":
        """Return every pair that was verified.

        Returns
        -------
        frame
            Columns `query`, `query_path`, `photo`, `photo_path`, `inliers`, `tentative` (matches before
            RANSAC), `confident`, `probability` (only with a calibration); most inliers first.

        Raises
        ------
        LmrError
            If the workflow verifies nothing.
        """
        dataset = self.datasets.pairs
        if dataset is None:
            raise LmrError("this workflow verifies no pairs", got=self.root, fix="see `matches` or `ranking`")
        names = ("query", "photo", "inliers", "tentative")
        query, photo, inliers, tentative = (np.asarray(stack(dataset, name)) for name in names)
        order = np.lexsort((photo, query, -inliers))
        query, photo = query[order], photo[order]
        said = PairProbabilities(self.datasets) if self.datasets.probable else None
        return _frame(
            {
                **self._named(query, photo),
                "inliers": inliers[order],
                "tentative": tentative[order],
                "confident": np.isin(pair_keys(query, photo), confident_pairs(self.datasets)),
                **({"probability": said.of(query, photo)} if said else {}),
            }
        )

    def landmarks(self) -> "DataFrame":
        """Return the landmark of every query of a run of recognition, the surest first.

        Returns
        -------
        frame
            Columns `query`, `landmark` and `confidence`; None and -inf where nothing is named.

        Raises
        ------
        LmrError
            If the workflow names no landmarks.
        """
        names = read_names(self.datasets)
        rows = [(query, *(named or (None, -np.inf))) for query, named in names.items()]
        rows.sort(key=lambda row: (-row[2], row[0]))
        return _frame(
            {name: [row[i] for row in rows] for i, name in enumerate(("query", "landmark", "confidence"))}
        )

    def unusable(self) -> "DataFrame":
        """Return the photos that could not be used: columns `set`, `id`, `path`, `reason`."""
        found = read_unusable(self.datasets)
        return _frame({name: [getattr(u, name) for u in found] for name in ("set", "id", "path", "reason")})

    def costs(self) -> "DataFrame":
        """Return what each step took, whichever run made its shards.

        Returns
        -------
        frame
            Columns `step`, `shards`, `rows`, `bytes`, `seconds` (of all workers together), `peak_bytes`.
        """
        costs = costs_of(self.datasets.steps)
        return _frame(
            {
                "step": [c.step for c in costs],
                "shards": [c.shards_made for c in costs],
                "rows": [c.rows for c in costs],
                "bytes": [c.n_bytes for c in costs],
                "seconds": [c.seconds for c in costs],
                "peak_bytes": [c.peak_memory_bytes for c in costs],
            }
        )

    def descriptors(self, role: Role = "gallery") -> NDArray[np.float16]:
        """Return the global descriptors of one side, (n, d) float16 unit rows, in order of `photos`.

        A photo without a descriptor has zeros. The array is mapped from this machine's disk and read-only.

        Raises
        ------
        LmrError
            If the workflow describes no photos.
        """
        if self.datasets.described is None:
            raise LmrError(
                "this workflow has no global descriptors",
                got=self.root,
                fix="open a run of a workflow that describes photos, such as retrieval",
            )
        try:
            found: NDArray[np.float16] = stack(self.datasets.described.of(role), "descriptor")
        except ShardError as error:
            # The planner does not bring back what no unfinished step needs.
            raise ShardError(
                error.what,
                got=error.got,
                fix="run the command that made the run, with another --out: descriptors that later steps "
                "have used are not made again in a finished run",
            ) from error
        return found

    def report(self) -> str:
        """Write the report page anew, and return where it lies."""
        return store_report(self.datasets)

    @cached_property
    def _photos(self) -> dict[str, pa.Table]:
        return {role: rows.read(0, ["id", "path"]) for role, rows in self.datasets.photos.items()}

    def _named(self, query: NDArray[Any], photo: NDArray[Any]) -> dict[str, Any]:
        """Return ids and paths of queries and gallery photos that are given by row."""
        queries, gallery = self._photos["queries"], self._photos["gallery"]
        q, p = pa.array(query), pa.array(photo)
        return {
            "query": pc.take(queries.column("id"), q),
            "query_path": pc.take(queries.column("path"), q),
            "photo": pc.take(gallery.column("id"), p),
            "photo_path": pc.take(gallery.column("path"), p),
        }

    def _exploded(self, stage: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return query, rank, photo and score of every entry of a stage's lists."""
        dataset = self.datasets.rankings[stage]
        parts = [read_ranking(dataset, shard) for shard in range(dataset.shards)]
        found = []
        for part in parts:
            row, rank = np.nonzero(part.photos >= 0)
            found.append((part.queries[row], rank, part.photos[row, rank], part.scores[row, rank]))
        query, rank, photo, score = (np.concatenate(one) for one in zip(*found, strict=True))
        return query, rank, photo, score


def _frame(columns: Mapping[str, Any] | pa.Table) -> "DataFrame":
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise LmrError(
            "tables of results need pandas", got=str(error), fix='pip install "lmr[dataframes]"'
        ) from error
    if isinstance(columns, pa.Table):
        columns = {name: columns.column(name) for name in columns.column_names}
    return pd.DataFrame({name: _plain(values) for name, values in columns.items()})


def _plain(values: Any) -> Any:
    """Return a column as pandas takes it: text as a list, numbers as they are."""
    if not isinstance(values, pa.ChunkedArray | pa.Array):
        return values
    return values.to_pylist() if pa.types.is_string(values.type) else np.asarray(values)
