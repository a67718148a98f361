"""What can be exported of a run, as plain tables: ids and paths in all, a block of rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import LmrError, ShardError
from lmr.runtime.steps import Role
from lmr.steps.both import Both
from lmr.steps.ranking import pair_keys, read_ranking
from lmr.steps.results.folder.datasets import RunDatasets
from lmr.steps.results.matches.lists import RunLists
from lmr.steps.results.matches.matches import match_tables
from lmr.steps.results.matches.probabilities import PairProbabilities
from lmr.storage.arrow import Ragged, column, table
from lmr.storage.datasets import Dataset
from lmr.storage.plain import plain

__all__ = ["KINDS", "Kind", "Names", "confident_pairs", "described_of", "read_kept", "tables_of"]

Kind = Literal["matches", "rankings", "pairs", "features", "descriptors", "graph"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can be exported."""


class Names:
    """Ids and paths of a run's photos, by their rows.

    Parameters
    ----------
    run
        The datasets of the run.
    """

    def __init__(self, run: RunDatasets) -> None:
        self.photos: Both[pa.Table] = run.photos.map(lambda photos: photos.read(0, ["id", "path"]))

    def ids(self, role: Role, rows: NDArray[Any]) -> pa.ChunkedArray:
        """Return the ids of some photos."""
        return self.photos.of(role).column("id").take(pa.array(rows))

    def paths(self, role: Role, rows: NDArray[Any]) -> pa.ChunkedArray:
        """Return the paths of some photos below their folder; empty where a photo is no file."""
        return self.photos.of(role).column("path").take(pa.array(rows))

    def pair(self, query: NDArray[Any], photo: NDArray[Any]) -> dict[str, Any]:
        """Return the columns that name queries and gallery photos."""
        return {
            "query": self.ids("queries", query),
            "query_path": self.paths("queries", query),
            "photo": self.ids("gallery", photo),
            "photo_path": self.paths("gallery", photo),
        }


def tables_of(run: RunDatasets, what: Kind) -> Iterator[pa.Table]:
    """Yield what is to be exported of a run, some rows at a time; columns as `docs/reference/files.md` says.

    Raises
    ------
    LmrError
        If the run's workflow makes no such thing, or its shards are gone.
    """
    makers: Mapping[Kind, Callable[[RunDatasets], Iterator[pa.Table]]] = {
        "matches": match_tables,
        "rankings": _rankings,
        "pairs": _pairs,
        "features": _features,
        "descriptors": _descriptors,
        "graph": _graph,
    }
    return makers[what](run)


def read_kept(dataset: Dataset, shard: int, columns: list[str] | None = None) -> pa.Table:
    """Read a shard of a dataset that a finished run does not need any more.

    Raises
    ------
    ShardError
        If it is not there; the fix is to make it anew in another folder.
    """
    try:
        return dataset.read(shard, columns)
    except ShardError as error:
        # The planner does not bring back what no unfinished step needs.
        fix = (
            "run the command that made the run, with another --out: "
            "a finished run does not make these shards again"
        )
        raise ShardError(error.what, got=error.got, fix=fix) from error


def confident_pairs(run: RunDatasets) -> NDArray[np.int64]:
    """Return the keys of the pairs that are confident matches, as of `pair_keys`."""
    sure: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    if run.verified is not None:
        ranking = run.rankings[run.verified]
        for shard in range(ranking.shards):
            part = read_ranking(ranking, shard)
            count = column(ranking.read(shard, ["confident"]), "confident")
            row, rank = np.nonzero(np.arange(part.photos.shape[1]) < count[:, None])
            sure.append(pair_keys(part.queries[row], part.photos[row, rank]))
    return np.concatenate(sure)


def _lacks(what: str, why: str) -> LmrError:
    return LmrError(
        f"there is nothing to export as {what}", got=f"a workflow that {why}", fix="--what matches"
    )


def _rankings(run: RunDatasets) -> Iterator[pa.Table]:
    lists, names = RunLists(run), Names(run)
    for part in lists:
        for stage, ranking in part.stages.items():
            row, place = np.nonzero(ranking.photos >= 0)
            stages = pa.array(np.zeros(len(row), np.int32))
            columns = {
                "stage": pa.DictionaryArray.from_arrays(stages, pa.array([stage])).cast(pa.string()),
                **names.pair(ranking.queries[row], ranking.photos[row, place]),
                "rank": (place + 1).astype(np.int32),
                "score": ranking.scores[row, place],
            }
            yield pa.table(columns)


def _pairs(run: RunDatasets) -> Iterator[pa.Table]:
    if run.pairs is None:
        raise _lacks("pairs", "verifies none")
    names, sure = Names(run), confident_pairs(run)
    said = PairProbabilities(run) if run.probable else None
    for shard in range(run.pairs.shards):
        rows = read_kept(run.pairs, shard)
        query, photo = column(rows, "query"), column(rows, "photo")
        more = plain(rows.drop_columns(["query", "photo"]))
        yield pa.table(
            {
                **names.pair(query, photo),
                "confident": np.isin(pair_keys(query, photo), sure),
                **({} if said is None else {"probability": said.of(query, photo)}),
                **{name: more.column(name) for name in more.column_names},
            }
        )


def _features(run: RunDatasets) -> Iterator[pa.Table]:
    if run.local is None:
        raise _lacks("features", "extracts no local ones")
    names = Names(run)
    for role, dataset in run.local.items():
        for shard in range(dataset.shards):
            rows = read_kept(dataset, shard)
            owners = column(rows, "photo")
            photos, starts = np.unique(owners, return_index=True)
            offsets = np.append(starts, len(owners)).astype(np.int64)
            columns = {n: column(rows, n) for n in rows.column_names if n != "photo"}
            lists = {n: Ragged(_rows(values), offsets) for n, values in columns.items()}
            yield pa.table(
                {
                    **_named(names, role, photos),
                    "features": np.diff(offsets).astype(np.int32),
                    **_columns(plain(table(lists))),
                }
            )


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 2 else values[:, None]


def _named(names: Names, role: Role, photos: NDArray[Any]) -> dict[str, Any]:
    sides = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(photos), np.int32)), pa.array([role]))
    return {
        "set": sides.cast(pa.string()),
        "photo": names.ids(role, photos),
        "photo_path": names.paths(role, photos),
    }


def _columns(rows: pa.Table) -> dict[str, Any]:
    return {name: rows.column(name) for name in rows.column_names}


def described_of(run: RunDatasets) -> Both[Dataset]:
    """Return the datasets of global descriptors.

    Raises
    ------
    LmrError
        If the workflow makes none.
    """
    if run.described is None:
        raise _lacks("descriptors", "makes no global ones")
    return run.described


def _descriptors(run: RunDatasets) -> Iterator[pa.Table]:
    names = Names(run)
    for role, dataset in described_of(run).items():
        for shard in range(dataset.shards):
            rows = read_kept(dataset, shard, ["photo", "descriptor"])
            photos = column(rows, "photo")
            yield pa.table({**_named(names, role, photos), **_columns(plain(rows.drop_columns(["photo"])))})


def _graph(run: RunDatasets) -> Iterator[pa.Table]:
    dataset = next((one for one in run.steps if one.step == "neighbours"), None)
    if dataset is None:
        raise _lacks("graph", "joins no photos to a graph")
    names = Names(run)
    for shard in range(dataset.shards):
        rows = read_kept(dataset, shard)
        photos, found, sims = column(rows, "photo"), column(rows, "ids"), column(rows, "sims")
        row, place = np.nonzero(found >= 0)
        yield pa.table(
            {
                "photo": names.ids("gallery", photos[row]),
                "photo_path": names.paths("gallery", photos[row]),
                "rank": (place + 1).astype(np.int32),
                "neighbour": names.ids("gallery", found[row, place]),
                "neighbour_path": names.paths("gallery", found[row, place]),
                "similarity": sims[row, place].astype(np.float32),
            }
        )
