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
from lmr.steps.ranking import read_ranking
from lmr.steps.results.datasets import RunDatasets, open_datasets
from lmr.steps.results.files import read_scores, read_unusable
from lmr.steps.results.report import costs_of, store_report
from lmr.storage.arrow import column
from lmr.storage.mapped import stack

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Results", "open_run"]


def open_run(url: str | os.PathLike[str]) -> "Results":
    """Open the results of a finished run.

    Parameters
    ----------
    url
        The run's folder: a path, or any fsspec URL such as `s3://bucket/runs/first`.

    Raises
    ------
    StorageError
        If there is no finished run.
    """
    return Results(open_datasets(storage.absolute(os.fspath(url))))


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
            f"\n  {self.label(name)}: mAP@100 {score:.4f}" for name, score in self.scores.items()
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

    @cached_property
    def scores(self) -> dict[str, float]:
        """mAP@100 after each stage, by the stage's name; empty without a solution."""
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
            threshold), `stage` (the first stage whose list holds the photo). Verified columns are left out
            of a workflow without verification.
        """
        query, rank, photo, score = self._exploded(self.stages[-1])
        columns = self._named(query, photo)
        columns = {**columns, "rank": rank + 1, "score": score}
        if self.datasets.pairs is not None and self.datasets.verified is not None:
            inliers, sure = self._verified
            keys = _key(query, photo)
            columns |= {"inliers": _look_up(keys, *inliers), "confident": np.isin(keys, sure)}
        columns["stage"] = self._first_stage(query, photo)
        order = (
            "query",
            "query_path",
            "rank",
            "photo",
            "photo_path",
            "score",
            "inliers",
            "confident",
            "stage",
        )
        return _frame({name: columns[name] for name in order if name in columns})

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
            RANSAC), `confident`; most inliers first.

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
        _, sure = self._verified
        return _frame(
            {
                **self._named(query, photo),
                "inliers": inliers[order],
                "tentative": tentative[order],
                "confident": np.isin(_key(query, photo), sure),
            }
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
                fix="run the same command with another --out: descriptors that later steps have used are "
                "not made again in a finished run",
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

    @cached_property
    def _verified(self) -> tuple[tuple[NDArray[np.int64], NDArray[Any]], NDArray[np.int64]]:
        """Return the inliers of all verified pairs by key, sorted, and the keys of the confident ones."""
        assert self.datasets.pairs is not None
        names = ("query", "photo", "inliers")
        query, photo, inliers = (np.asarray(stack(self.datasets.pairs, name)) for name in names)
        keys = _key(query, photo)
        order = np.argsort(keys)
        sure: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        if self.datasets.verified is not None:
            ranking = self.datasets.rankings[self.datasets.verified]
            for shard in range(ranking.shards):
                part = read_ranking(ranking, shard)
                count = column(ranking.read(shard, ["confident"]), "confident")
                row, rank = np.nonzero(np.arange(part.photos.shape[1]) < count[:, None])
                sure.append(_key(part.queries[row], part.photos[row, rank]))
        return (keys[order], inliers[order]), np.concatenate(sure)

    def _first_stage(self, query: NDArray[Any], photo: NDArray[Any]) -> NDArray[np.object_]:
        """Return the first stage whose lists hold each pair."""
        keys, first = _key(query, photo), np.full(len(query), "", object)
        for stage in self.stages:
            q, _, p, _ = self._exploded(stage)
            first[(first == "") & np.isin(keys, _key(q, p))] = stage
        return first


def _key(query: NDArray[Any], photo: NDArray[Any]) -> NDArray[np.int64]:
    return (query.astype(np.int64) << 32) | photo.astype(np.int64)


def _look_up(keys: NDArray[np.int64], known: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.int32]:
    """Return the values of keys among sorted known ones; 0 where a key is not known."""
    if not len(known):
        return np.zeros(len(keys), np.int32)
    places = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[places] == keys, values[places], 0).astype(np.int32)


def _frame(columns: Mapping[str, Any]) -> "DataFrame":
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        raise LmrError(
            "tables of results need pandas", got=str(error), fix='pip install "lmr[dataframes]"'
        ) from error
    plain = {n: v.to_pylist() if isinstance(v, pa.ChunkedArray | pa.Array) else v for n, v in columns.items()}
    return pd.DataFrame(plain)
