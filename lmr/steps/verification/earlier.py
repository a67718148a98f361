"""Pairs that were verified before, of the same photos and by the same settings, are taken over.

A pair's result depends on the features of its two photos, their sizes and the recipe, and on nothing else. So
each shard of pairs says what its photos' features are, by the fingerprints of the generations, and a shard of
a later run (the gallery has grown, or other candidates are asked for) takes over the pairs that it shares.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmr.errors import ShardError
from lmr.runtime.settings import Part, digest
from lmr.steps.ranking import pair_keys
from lmr.storage.arrow import column
from lmr.storage.datasets import Dataset, JoinedDataset
from lmr.storage.earlier import Earlier

__all__ = ["OF", "photos_of_pairs", "take_over"]

OF = "pairs_of"
"""The fact of a shard that says what its pairs are made of."""


def photos_of_pairs(
    shard: int,
    settings: Part,
    revision: int,
    gallery: Mapping[str, Dataset],
    queries: Mapping[str, Dataset],
    overlays: Dataset | None = None,
) -> dict[str, Any]:
    """Return what the pairs of a shard are made of, so that equal values mean equal pairs.

    Parameters
    ----------
    shard
        Number of the gallery's shard.
    settings, revision
        How pairs are verified.
    gallery, queries
        The datasets of photos and of local features.
    overlays
        Features that are left out; None leaves none out.

    Returns
    -------
    The digest of the settings and of what is left out; the gallery's generation and shard; the queries'
    generations, in order.
    """
    parts = [_parts(dataset) for dataset in queries.values()]
    return {
        "settings": digest([settings, revision, *([overlays.fingerprint] if overlays else [])]),
        "gallery": [_located(dataset, shard) for dataset in gallery.values()],
        "queries": [list(generation) for generation in zip(*parts, strict=True)],
    }


def _parts(dataset: Dataset) -> list[str]:
    parts = dataset.parts if isinstance(dataset, JoinedDataset) else (dataset,)
    return [part.fingerprint for part in parts]


def _located(dataset: Dataset, shard: int) -> list[Any]:
    part, inside = dataset.locate(shard)
    return [part.fingerprint, inside]


def take_over(
    earlier: Earlier | None,
    shard: int,
    of: Mapping[str, Any],
    query: NDArray[np.integer[Any]],
    photo: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], pa.Table | None]:
    """Find pairs that were verified before.

    Parameters
    ----------
    earlier
        What the step has made before; None: nothing.
    shard
        Number of the gallery's shard.
    of
        What the pairs are made of now (`photos_of_pairs`).
    query, photo
        (p,) the pairs that are asked for, rows of queries and gallery.

    Returns
    -------
    places
        Numbers of the pairs that were found.
    rows
        Their rows, in that order; None where none was found.
    """
    wanted, missing = pair_keys(query, photo), np.arange(len(query))
    places, tables = [np.empty(0, np.int64)], []
    for dataset, facts in earlier.shards(shard) if earlier is not None else ():
        if not len(missing):
            break
        if not _same(facts.get(OF), of):
            continue
        try:
            there = dataset.read(shard)
        except ShardError:
            continue  # damaged: these are verified again
        keys = pair_keys(column(there, "query"), column(there, "photo"))
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(keys, wanted[missing], sorter=order).clip(max=max(len(keys) - 1, 0))
        found = keys[order[at]] == wanted[missing] if len(keys) else np.zeros(len(missing), np.bool_)
        if found.any():
            tables.append(there.take(order[at[found]]).replace_schema_metadata(None))
            places.append(missing[found])
            missing = missing[~found]
    return np.concatenate(places), pa.concat_tables(tables) if tables else None


def _same(before: Any, now: Mapping[str, Any]) -> bool:
    """Whether pairs of the same rows are the same; queries may have come, at the end, or gone there."""
    if not isinstance(before, dict) or any(before.get(k) != now[k] for k in ("settings", "gallery")):
        return False
    queries = before.get("queries")
    return isinstance(queries, list) and all(a == b for a, b in zip(queries, now["queries"], strict=False))
